"""Which series belong together, and which geometry is refused, on DICOM that the test writes."""

import numpy as np
import pytest

from client.dicom.series import EARLIEST, LATEST, examination_of, find_series
from client.dicom.volume import read_slices, to_ras
from common.errors import DataError
from tests.helpers.dicom import Scan, Visit, box, pet_header, write_scan, write_structures

DATA = np.arange(4 * 5 * 6).reshape(4, 5, 6).astype(np.int16)


def ct(**changes):
    return Scan("CT", DATA, **changes)


def pet(**changes):
    return Scan("PT", DATA, changes=pet_header(**changes))


def only(folder):
    [series] = find_series(folder).patients.values()
    return series


def test_a_volume_is_sorted_by_position_and_rescaled(tmp_path):
    paths = write_scan(tmp_path, ct(slope=2.0, intercept=-1024.0), Visit())
    volume = read_slices(paths, role="CT")
    assert np.array_equal(volume.data, DATA * 2.0 - 1024) and volume.spacing == (2.0, 2.0, 3.0)
    assert np.array_equal(volume.affine[:3, 3], [-20, -30, 100])
    assert np.array_equal(to_ras(volume.affine)[:3], [[-2, 0, 0, 20], [0, -2, 0, 30], [0, 0, 3, 100]])


def test_pixel_spacing_is_between_rows_first(tmp_path):
    volume = read_slices(write_scan(tmp_path, ct(spacing=(1.5, 2.5, 3.0)), Visit()), role="CT")
    assert np.array_equal(np.diag(volume.affine)[:3], [1.5, 2.5, 3.0])


def test_an_oblique_series_keeps_its_directions(tmp_path):
    turn = np.deg2rad(20)
    directions = (np.cos(turn), np.sin(turn), 0.0, -np.sin(turn), np.cos(turn), 0.0)
    volume = read_slices(write_scan(tmp_path, ct(orientation=directions), Visit()), role="CT")
    assert np.allclose(volume.affine[:3, 0], 2 * np.array(directions[:3]), atol=1e-6)
    assert np.allclose(volume.affine[:3, 2], [0, 0, 3])


def test_missing_slices_are_counted(tmp_path):
    paths = sorted(write_scan(tmp_path, ct(), Visit()))
    with pytest.raises(DataError, match=r"gaps at 1 places \(2 slices are missing\)"):
        read_slices([*paths[:2], *paths[4:]], role="CT")


def test_two_slices_at_one_position_are_a_mixed_series(tmp_path):
    paths = write_scan(tmp_path / "a", ct(), Visit()) + write_scan(tmp_path / "b", ct(), Visit())
    with pytest.raises(DataError, match="several slices at one position"):
        read_slices(paths, role="CT")


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (ct(orientation=(0.0, 1.0, 0.0, -1.0, 0.0, 0.0)), "different orientation"),
        (ct(spacing=(1.0, 1.0, 3.0)), "different pixel spacing"),
        (Scan("CT", DATA[:3]), "different size"),
        (ct(changes={"SamplesPerPixel": 3}), "color or multi-frame"),
    ],
)
def test_mixed_series_are_named(tmp_path, other, what):
    paths = write_scan(tmp_path / "a", ct(), Visit()) + write_scan(tmp_path / "b", other, Visit())
    with pytest.raises(DataError, match=what):
        read_slices(paths, role="CT")


def test_a_tilted_gantry_is_refused(tmp_path):
    paths = []
    for k in range(4):
        scan = Scan("CT", DATA[:, :, :1], origin=(0.0, 0.5 * k, 3.0 * k))
        paths += write_scan(tmp_path / str(k), scan, Visit())
    with pytest.raises(DataError, match="tilted gantry"):
        read_slices(paths, role="CT")


def test_ct_pet_and_the_structures_drawn_on_it_find_each_other(tmp_path):
    visit, planning, low_dose = Visit(), ct(), ct()
    for scan in (planning, low_dose, pet()):
        write_scan(tmp_path, scan, visit)
    write_structures(tmp_path, {"GTVp": [box(-18, -10, -28, -20, 100)]}, visit, drawn_on=low_dose.uid)
    (tmp_path / "readme.txt").write_text("exported")
    found = find_series(tmp_path)
    examination = examination_of(*found.patients.values())
    assert (examination.ct.uid, examination.pet.modality) == (low_dose.uid, "PT")
    assert examination.structures is not None and found.other_files == 1


def test_several_cts_without_a_word_which_are_refused(tmp_path):
    visit = Visit()
    for scan in (ct(), ct(), pet()):
        write_scan(tmp_path, scan, visit)
    with pytest.raises(DataError, match="2 CT series belong to one examination"):
        examination_of(only(tmp_path))


def test_a_pet_without_its_own_ct_is_refused(tmp_path):
    visit = Visit()
    write_scan(tmp_path, pet(), visit)
    write_scan(tmp_path, ct(), Visit(study=visit.study))
    with pytest.raises(DataError, match="no CT in its frame of reference"):
        examination_of(only(tmp_path))


def test_of_several_examinations_one_is_chosen_by_date_or_none(tmp_path):
    scans = {}
    for date in ("20240305", "20230101"):
        scans[date] = ct()
        visit = Visit(date=date)
        write_scan(tmp_path, scans[date], visit)
        write_scan(tmp_path, pet(), visit)
    with pytest.raises(DataError, match="There are 2 examinations; choose with --examination"):
        examination_of(only(tmp_path))
    assert examination_of(only(tmp_path), which=EARLIEST).ct.uid == scans["20230101"].uid
    assert examination_of(only(tmp_path), which=LATEST).ct.uid == scans["20240305"].uid


def test_a_localizer_is_no_scan(tmp_path):
    visit = Visit()
    scout = ct(changes={"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]})
    write_scan(tmp_path, scout, visit)
    with pytest.raises(DataError, match="There is no CT series"):
        examination_of(only(tmp_path))
    write_scan(tmp_path, ct(), visit)
    assert examination_of(only(tmp_path)).ct.uid != scout.uid


def test_an_empty_folder_says_so(tmp_path):
    with pytest.raises(DataError, match=r"No DICOM CT, PET or RTSTRUCT was found"):
        find_series(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        find_series(tmp_path / "nowhere")
