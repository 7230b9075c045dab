"""Where voxels land, which box is cut, what the numbers become, and that a volume is decoded once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from client.data.case import Case
from client.data.images import cropping, nifti, volumes
from client.data.images.cache import VolumeCache
from client.data.images.nifti import Volume, read_volume
from client.data.images.volumes import Grid, prepare, resample
from client.data.layouts import find_cases
from common.config.view import View
from common.data.batch import CT, PET
from common.errors import DataError, UnknownName

WHOLE = View(size=None, window=[1, 1, 1], crop="none", ct_hu=[-1000.0, 1000.0], pet="suv")


def case_of(ct: Path, pet: Path | None = None, label: Path | None = None) -> Case:
    images = {CT: ct} if pet is None else {CT: ct, PET: pet}
    return Case("CHUM-001", "CHUM", images, label, {}, None, None, None, None)


def rotation(degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])


def mm_block(shape: tuple[int, int, int], affine: np.ndarray, low: tuple, high: tuple) -> np.ndarray:
    """1 where a voxel's center lies inside a box given in world millimeters."""
    points = nib.affines.apply_affine(affine, np.argwhere(np.ones(shape, bool))).reshape(*shape, 3)
    return ((points >= low) & (points < high)).all(axis=-1).astype(np.float32)


# ------------------------------------------------------------------------------------------------------ resampling


def test_a_grid_that_coincides_is_copied_exactly(tmp_path, disk):
    hu = disk.ct()
    affine = nib.affines.from_matvec(np.diag([3.0, 3.0, 3.0]), [-17.3, 4.44, 105.8])
    case = case_of(
        disk.save(tmp_path / "ct.nii.gz", hu, affine),
        disk.save(tmp_path / "pet.nii.gz", disk.pet(), affine),
        disk.save(tmp_path / "label.nii.gz", disk.label(), affine),
    )
    ready = prepare(case, view=WHOLE, modalities=[CT, PET])
    expected = (torch.from_numpy(hu.transpose(2, 1, 0).astype(np.float32)) + 1000) / 2000 * 2 - 1
    assert torch.equal(ready.images[CT][0], expected)
    assert torch.equal(ready.images[PET][0] * 25, torch.from_numpy(disk.pet().transpose(2, 1, 0) / 25) * 25)
    assert torch.equal(ready.mask[0], torch.from_numpy(disk.label().transpose(2, 1, 0).copy()))
    assert ready.outside_mm3 == (0.0, 0.0) and ready.voxel_mm3 == 27.0
    assert np.allclose(ready.affine, affine, atol=1e-5)


@pytest.mark.parametrize("turned", range(8))
def test_flipped_and_permuted_files_give_the_same_tensors(tmp_path, disk, turned):
    affine = nib.affines.from_matvec(np.diag([2.0, 3.0, 4.0]), [5.0, -9.0, 30.0])
    straight = nib.Nifti1Image(disk.ct(), affine)
    axes = [(0, 1, 2), (2, 0, 1)][turned // 4]
    signs = [1 - 2 * (turned & 1), 1 - (turned & 2), -1]
    other = straight.as_reoriented(np.array([[a, s] for a, s in zip(axes, signs, strict=True)]))
    case = case_of(disk.save(tmp_path / "a.nii.gz", disk.ct(), affine))
    twin = case_of(disk.save(tmp_path / "b.nii.gz", np.asanyarray(other.dataobj), other.affine))
    view = replace(WHOLE, spacing_mm=[4.0, 3.0, 2.0])
    assert not np.allclose(other.affine, affine)
    assert torch.equal(
        prepare(case, view=view, modalities=[CT]).images[CT], prepare(twin, view=view, modalities=[CT]).images[CT]
    )


@pytest.mark.parametrize("degrees", [0.0, 7.0, -20.0])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 2.0), (4.0, 4.0, 2.5)])
def test_a_bright_block_lands_at_its_millimeters(degrees, spacing):
    affine = nib.affines.from_matvec(rotation(degrees) @ np.diag(spacing), [-50.0, -50.0, -30.0])
    shape = tuple(int(n) for n in 110 / np.array(spacing))
    low, high = (-21.0, -12.0, -3.0), (12.0, 15.0, 21.0)  # edges on the target's voxel borders
    grid = Grid(np.array([-34.5, -34.5, -16.5]), np.array([3.0, 3.0, 3.0]), (23, 23, 20))
    wanted = mm_block(grid.shape, grid.affine, low, high)
    volume = Volume(mm_block(shape, affine, low, high), affine)
    for order in (0, 1):
        found = resample(volume, grid, order=order, outside=0.0)
        overlap = 2 * (wanted * (found > 0.5)).sum() / (wanted.sum() + (found > 0.5).sum())
        assert overlap > 0.9, (order, overlap)
        points = np.argwhere(np.ones(grid.shape, bool))
        centers = [np.average(points, axis=0, weights=v.ravel()) for v in (wanted, found)]
        assert np.abs(centers[0] - centers[1]).max() < 0.34  # a millimeter


def test_downsampling_averages_instead_of_picking(disk):
    stripes = np.zeros((90, 30, 30), np.float32)
    stripes[::3] = 3.0  # one bright plane in three: a 3 mm voxel should see the mean, 1
    grid = Grid(np.array([31.0, 10.0, 10.0]), np.array([3.0, 1.0, 1.0]), (8, 5, 5))
    found = resample(Volume(stripes, np.eye(4)), grid, order=1, outside=0.0)
    assert np.abs(found - 1).max() < 0.35  # plain linear sampling gives 0 everywhere
    smooth = np.arange(90, dtype=np.float32)[:, None, None] * np.ones((1, 30, 30), np.float32)
    exact = resample(Volume(smooth, np.eye(4)), grid, order=1, outside=0.0)
    assert np.allclose(exact, grid.origin_mm[0] + 3.0 * np.arange(8)[:, None, None], atol=1e-4)


def test_outside_is_air_for_ct_and_zero_for_pet(tmp_path, disk):
    case = case_of(
        disk.save(tmp_path / "ct.nii.gz", np.full((9, 9, 9), 500, np.int16) + disk.label((9, 9, 9))),
        disk.save(tmp_path / "pet.nii.gz", 2 + disk.pet((9, 9, 9))),
    )
    ready = prepare(case, view=replace(WHOLE, window=[13, 9, 11]), modalities=[CT, PET])
    image, uptake = ready.images[CT][0], ready.images[PET][0]
    assert image.shape == (13, 9, 11)
    assert (image[:2] == -1).all() and (image[-2:] == -1).all() and (image[:, :, :1] == -1).all()
    assert (uptake[:2] == 0).all() and (uptake[2:-2, :, 1:-1] >= 2 / 25).all()
    assert ready.affine[:3, 3].tolist() == [-3.0, 0.0, -6.0]


def test_voxels_reach_to_their_outer_edge():
    coarse = Volume(np.full((4, 4, 4), 7.0, np.float32), np.diag([6.0, 6.0, 6.0, 1.0]))  # from -3 to 21 mm
    grid = Grid(np.full(3, -4.0), np.full(3, 2.0), (14, 14, 14))  # voxel centers from -4 to 22 mm
    found = resample(coarse, grid, order=1, outside=0.0)
    expected = np.zeros(grid.shape)
    expected[1:13, 1:13, 1:13] = 7.0
    assert np.array_equal(found, expected)


def test_extreme_paddings_do_not_bleed(tmp_path, disk):
    hu = np.zeros((40, 40, 40), np.int16)
    hu[:5], hu[20, 20, 20] = -10505, 27205
    case = case_of(disk.save(tmp_path / "ct.nii.gz", hu, np.eye(4)))
    image = prepare(case, view=WHOLE, modalities=[CT]).images[CT]
    assert image.min() == -1 and image[0, :, :, 5:].max() < 0.2 and image[0, :, :, 5:].min() == 0


# ---------------------------------------------------------------------------------------------- real cases, their grids


def centroid(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return nib.affines.apply_affine(affine, np.argwhere(mask)).mean(axis=0)


def test_real_masks_on_ct_and_pet_grids_meet_on_the_common_grid(shared_data):
    folder = shared_data / "sts7_native_sample"
    cases = find_cases(folder)
    assert len(cases) == 7
    dices, kept = [], []
    for case in cases:
        label = folder / f"{case.patient}__gtv_on_CT.nii.gz"
        on_ct, on_pet = (
            read_volume(label, role="label"),
            read_volume(Path(str(label).replace("CT", "PT")), role="label"),
        )
        ready = prepare(replace(case, label=label), view=WHOLE, modalities=[CT, PET])
        grid = Grid(ready.affine[:3, 3], np.full(3, 3.0), ready.images[CT].shape[:0:-1])
        from_ct = ready.mask[0].numpy().transpose(2, 1, 0)
        from_pet = resample(on_pet, grid, order=0, outside=0.0)
        dices.append(2 * (from_ct * from_pet).sum() / (from_ct.sum() + from_pet.sum()))
        kept.append(from_ct.sum() * 27.0 / (on_ct.data.sum() * on_ct.voxel_mm3))
        assert np.abs(centroid(from_ct, ready.affine) - centroid(on_ct.data, on_ct.affine)).max() < 0.5  # mm
        assert np.abs(centroid(from_pet, ready.affine) - centroid(on_pet.data, on_pet.affine)).max() < 0.75
        uptake = ready.images[PET][0].numpy().transpose(2, 1, 0)
        assert uptake[from_ct == 1].mean() > 1.5 * uptake[from_ct == 0].mean()  # the tumor is where the PET is hot
    # PET masks have voxels of up to 5.5 mm and the smallest tumor is 37 ml: sampling alone costs it 6 % and 0.13 Dice
    assert min(dices) > 0.86 and np.mean(dices) > 0.93
    assert max(abs(np.array(kept) - 1)) < 0.06 and abs(np.mean(kept) - 1) < 0.005


def test_real_ct_masks_become_the_pet_masks_on_the_pet_grid(shared_data):
    folder = shared_data / "sts7_native_sample"
    for path in sorted(folder.glob("*__gtv_on_PT.nii.gz")):
        on_pet = read_volume(path, role="label")
        on_ct = read_volume(Path(str(path).replace("PT", "CT")), role="label")
        grid = Grid(on_pet.affine[:3, 3], on_pet.spacing, on_pet.data.shape)
        found = resample(on_ct, grid, order=0, outside=0.0)
        assert 2 * (found * on_pet.data).sum() / (found.sum() + on_pet.data.sum()) > 0.985


def test_real_native_cases_agree_with_their_prepared_twins(shared_data):
    for case in find_cases(shared_data / "sts7_native_sample")[:3]:
        twin = next(c for c in find_cases(shared_data / "sts7") if c.patient == case.patient)
        theirs = read_volume(twin.images[CT], role="CT")
        grid = Grid(theirs.affine[:3, 3], np.full(3, 3.0), theirs.data.shape)
        ours = resample(read_volume(case.images[CT], role="CT"), grid, order=1, outside=-1024.0)
        inside = (ours > -1000) & (theirs.data > -1000)
        assert np.corrcoef(ours[inside], theirs.data[inside])[0, 1] > 0.97


# ---------------------------------------------------------------------------------------------------------- the crop


def head(
    shape: tuple[int, int, int] = (50, 50, 90), brain: tuple[float, float, float] = (75.0, 60.0, 300.0)
) -> np.ndarray:
    """PET of 4 mm voxels: a ball of 60 mm radius with SUV 8, and a hotter, smaller bladder far below."""
    grid = np.moveaxis(np.indices(shape), 0, -1) * 4.0
    suv = (
        0.3
        + 7.7 * (np.linalg.norm(grid - brain, axis=-1) < 60)
        + 60.0 * (np.linalg.norm(grid - (100, 100, 30), axis=-1) < 20)
    )
    return suv.astype(np.float32)


def test_head_neck_cube_hangs_from_the_brain(disk):
    pet = Volume(head(), np.diag([4.0, 4.0, 4.0, 1.0]))
    center = cropping.head_neck_center(pet, pet)
    assert center[0] == pytest.approx(75, abs=2.1)
    assert center[1] == pytest.approx(60 + 30, abs=2.1)
    assert center[2] == pytest.approx(300 - 60 + 30 - 72, abs=8)  # smoothing moves the edge by less than 2 voxels


def test_faint_brain_falls_back_to_the_low_threshold(disk):
    faint = (head() / 8).astype(np.float32)  # brain SUV 1
    faint[faint < 0.2] = 0
    pet = Volume(faint, np.diag([4.0, 4.0, 4.0, 1.0]))
    center = cropping.head_neck_center(pet, pet)
    assert center[:2] == pytest.approx([75, 90], abs=8) and 140 < center[2] < 205


def test_crop_is_the_same_with_and_without_pet_in_the_step_and_never_sees_the_label(tmp_path, disk):
    suv = head()
    hu = np.where(suv > 1, 40, -1000).astype(np.int16)
    four = np.diag([4.0, 4.0, 4.0, 1.0])
    mask = np.zeros(suv.shape, np.uint8)
    mask[20:22, 20:22, 40:42] = 1
    mask[:4, :4, :4] = 2
    ct, pet = disk.save(tmp_path / "ct.nii.gz", hu, four), disk.save(tmp_path / "pet.nii.gz", suv, four)
    view = View(spacing_mm=[4.0, 4.0, 4.0], size=[36, 36, 36], window=[36, 36, 36])
    both = prepare(case_of(ct, pet), view=view, modalities=[CT, PET])
    alone = prepare(case_of(ct, pet), view=view, modalities=[CT])
    labeled = prepare(case_of(ct, pet, disk.save(tmp_path / "l.nii.gz", mask, four)), view=view, modalities=[CT])
    assert torch.equal(both.images[CT], alone.images[CT]) and set(alone.images) == {CT}
    assert np.array_equal(both.affine, alone.affine) and np.array_equal(both.affine, labeled.affine)
    assert both.images[CT].shape == (1, 36, 36, 36)
    assert labeled.outside_mm3 == (0.0, 64 * 64.0)
    assert labeled.mask.sum() == 8
    x, y, z = (np.array([20, 20, 40]) * 4 - labeled.affine[:3, 3]) / 4
    assert labeled.mask[0, int(z), int(y), int(x)] == 1


def test_outside_and_inside_label_volumes_add_up(tmp_path, disk):
    mask = disk.label((20, 20, 20))
    mask[10:, 10:, 10:] = 2
    case = case_of(
        disk.save(tmp_path / "ct.nii.gz", disk.ct((20, 20, 20))), None, disk.save(tmp_path / "l.nii.gz", mask)
    )
    ready = prepare(case, view=View(size=[9, 11, 8], window=[9, 11, 8], crop="center"), modalities=[CT])
    for structure in (1, 2):
        inside = float((ready.mask == structure).sum()) * ready.voxel_mm3
        assert inside + ready.outside_mm3[structure - 1] == float((mask == structure).sum()) * 27.0


def test_ct_only_crop_follows_the_top_of_the_body(tmp_path, disk):
    """A head of 160 mm on a neck and shoulders; the cube must lie below the brain, in front of the head's middle."""
    grid = np.moveaxis(np.indices((80, 70, 100)), 0, -1) * 4.0
    skull = np.linalg.norm((grid - (160, 140, 300)) / (75, 95, 90), axis=-1) < 1  # vertex at 390 mm
    neck = (np.linalg.norm(grid[..., :2] - (160, 130), axis=-1) < 60) & (grid[..., 2] < 260)
    shoulders = (np.abs(grid - (160, 130, 40)) < (160, 80, 70)).all(axis=-1)
    hu = np.where(skull | neck | shoulders, 30, -1000).astype(np.int16)
    center = cropping.head_neck_center(Volume(hu, np.diag([4.0, 4.0, 4.0, 1.0])), None)
    assert center == pytest.approx([160, 170, 390 - 130 + 30 - 72], abs=10)
    cut = cropping.head_neck_center(Volume(hu[:, :, :75], np.diag([4.0, 4.0, 4.0, 1.0])), None)  # scan ends at 300 mm
    assert cut == pytest.approx([160, 170, 300 - 60 + 30 - 72], abs=10)


def test_box_stays_inside_the_common_field_of_view(tmp_path, disk):
    four = np.diag([4.0, 4.0, 4.0, 1.0])
    suv = head(brain=(75.0, 60.0, 100.0), shape=(50, 50, 40))  # brain low in a short scan
    ct = disk.save(tmp_path / "ct.nii.gz", disk.ct((50, 50, 60)), four)
    pet = disk.save(tmp_path / "pet.nii.gz", suv, nib.affines.from_matvec(np.eye(3) * 4, [0, 0, 40.0]))
    view = View(spacing_mm=[4.0, 4.0, 4.0], size=[36, 36, 36], window=[36, 36, 36], pet="suv")
    ready = prepare(case_of(ct, pet), view=view, modalities=[CT, PET])
    assert ready.affine[2, 3] == 40.0 and (ready.images[PET] > 0).all()


# ------------------------------------------------------------------------------------------- intensities and options


def test_pet_zscore_is_over_the_crop(tmp_path, disk):
    case = case_of(disk.save(tmp_path / "ct.nii.gz", disk.ct()), disk.save(tmp_path / "pet.nii.gz", disk.pet()))
    image = prepare(case, view=replace(WHOLE, pet="zscore"), modalities=[CT, PET]).images[PET]
    assert image.mean().abs() < 1e-5 and (image.std(correction=0) - 1).abs() < 1e-5
    assert image.dtype == torch.float32


def test_suv_is_clipped_and_scaled(tmp_path, disk):
    suv = disk.pet()
    suv[0, 0, 0], suv[1, 1, 1] = 2016.0, 12.5
    case = case_of(disk.save(tmp_path / "ct.nii.gz", disk.ct()), disk.save(tmp_path / "pet.nii.gz", suv))
    image = prepare(case, view=WHOLE, modalities=[CT, PET]).images[PET][0]
    assert image[0, 0, 0] == 1.0 and image[1, 1, 1] == 0.5


def test_another_volume_is_scaled_as_the_view_says_where_it_is_not_zero(tmp_path, disk):
    mr = disk.pet() * 300 + 1
    mr[:2] = 0  # air
    case = case_of(disk.save(tmp_path / "ct.nii.gz", disk.ct()))
    case = replace(case, images={**case.images, "MR": disk.save(tmp_path / "mr.nii.gz", mr)})
    zscored = prepare(case, view=WHOLE, modalities=[CT, "MR"]).images["MR"]
    inside = zscored[zscored != 0]
    assert inside.numel() == (mr != 0).sum() and inside.mean().abs() < 1e-5
    assert (inside.std(correction=0) - 1).abs() < 1e-5
    by_rank = prepare(case, view=replace(WHOLE, intensities={"MR": "percentiles"}), modalities=["MR"]).images["MR"]
    low, high = np.percentile(mr[mr != 0], (0.5, 99.5))
    assert by_rank[0, 4, 5, 6].item() == pytest.approx(float((mr[6, 5, 4] - low) / (high - low) * 2 - 1), abs=1e-5)
    assert (by_rank.min(), by_rank.max()) == (-1, 1)


@pytest.mark.parametrize("change", [{"crop": "tumor"}, {"pet": "raw"}, {"intensities": {"MR": "raw"}}])
def test_unknown_view_options_name_the_choices(tmp_path, disk, change):
    case = case_of(disk.save(tmp_path / "ct.nii.gz", disk.ct()))
    with pytest.raises(UnknownName, match="Known: "):
        prepare(case, view=replace(WHOLE, **change), modalities=[CT])


# ------------------------------------------------------------------------------------------------------------- cache


@pytest.fixture
def loads(monkeypatch) -> list[str]:
    seen: list[str] = []
    real = nifti._decode
    monkeypatch.setattr(nifti, "_decode", lambda path: (seen.append(Path(path).name), real(path))[1])
    return seen


def test_a_volume_is_decoded_once_across_caches_and_processes(cohort, tmp_path, loads):
    case = find_cases(cohort("CHUM-001"))[0]
    first = prepare(case, view=WHOLE, modalities=[CT, PET], cache=VolumeCache(tmp_path / "cache"))
    assert len(loads) == 3
    again = prepare(case, view=WHOLE, modalities=[CT, PET], cache=VolumeCache(tmp_path / "cache"))
    plain = prepare(case, view=WHOLE, modalities=[CT, PET])
    assert len(loads) == 6  # only the call without a cache decoded again
    for other in (again, plain):
        assert all(torch.equal(first.images[m], other.images[m]) for m in (CT, PET))
        assert torch.equal(first.mask, other.mask) and np.array_equal(first.affine, other.affine)
        assert first.outside_mm3 == other.outside_mm3 and first.voxel_mm3 == other.voxel_mm3


def test_the_key_follows_content_and_settings(cohort, tmp_path, disk, monkeypatch):
    case, cache = find_cases(cohort("CHUM-001"))[0], VolumeCache(tmp_path / "cache")
    entries = lambda: len(list((tmp_path / "cache").rglob("*.safetensors")))  # noqa: E731
    prepare(case, view=WHOLE, modalities=[CT], cache=cache)
    prepare(case, view=replace(WHOLE, pet="zscore"), modalities=[CT], cache=cache)  # no PET asked for: same entry
    assert entries() == 1
    prepare(case, view=replace(WHOLE, ct_hu=[-500.0, 500.0]), modalities=[CT], cache=cache)
    prepare(case, view=WHOLE, modalities=[CT], cache=cache, with_label=False)
    assert entries() == 3
    disk.save(case.images[CT], disk.ct(seed=9))
    changed = prepare(case, view=WHOLE, modalities=[CT], cache=cache)
    assert entries() == 4 and torch.equal(changed.images[CT], prepare(case, view=WHOLE, modalities=[CT]).images[CT])
    monkeypatch.setattr(volumes, "CODE", "volumes-next")
    prepare(case, view=WHOLE, modalities=[CT], cache=cache)
    assert entries() == 5


def test_file_digests_are_remembered(cohort, tmp_path, monkeypatch):
    import hashlib

    case = find_cases(cohort("CHUM-001"))[0]
    prepare(case, view=WHOLE, modalities=[CT], cache=VolumeCache(tmp_path / "cache"))
    monkeypatch.setattr(hashlib, "file_digest", lambda *a: pytest.fail("read the file again"))
    prepare(case, view=WHOLE, modalities=[CT], cache=VolumeCache(tmp_path / "cache"))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_entry_is_rebuilt(cohort, tmp_path, loads, damage):
    case, cache = find_cases(cohort("CHUM-001"))[0], VolumeCache(tmp_path / "cache")
    first = prepare(case, view=WHOLE, modalities=[CT], cache=cache)
    (entry,) = (tmp_path / "cache").rglob("*.safetensors")
    content = bytearray(entry.read_bytes())
    content[-5] ^= 1
    entry.write_bytes({"truncated": content[:200], "flipped": content, "empty": b""}[damage])
    again = prepare(case, view=WHOLE, modalities=[CT], cache=cache)
    assert len(loads) == 4 and torch.equal(first.images[CT], again.images[CT])
    prepare(case, view=WHOLE, modalities=[CT], cache=cache)
    assert len(loads) == 4
    assert not list((tmp_path / "cache").rglob(".partial-*"))


def test_a_cache_that_cannot_be_written_says_so_once_and_costs_time_alone(cohort, tmp_path, caplog):
    case = find_cases(cohort("CHUM-001"))[0]
    (tmp_path / "file").write_text("")
    plain = prepare(case, view=WHOLE, modalities=[CT])
    for _ in range(2):
        found = prepare(case, view=WHOLE, modalities=[CT], cache=VolumeCache(tmp_path / "file"))
        assert torch.equal(found.images[CT], plain.images[CT])
    assert [record.levelname for record in caplog.records if "cannot be written" in record.message] == ["WARNING"]


# -------------------------------------------------------------------------------------------------- any reference


def test_the_reference_carries_the_grid_and_the_others_are_brought_there(tmp_path, disk):
    t1 = disk.save(tmp_path / "t1.nii.gz", disk.pet((20, 18, 16)))
    coarse = nib.affines.from_matvec(np.diag([6.0, 6.0, 6.0]), [0, 0, 0])
    flair = disk.save(tmp_path / "flair.nii.gz", disk.pet((10, 9, 8)), coarse)
    case = replace(case_of(t1), images={"T1": t1, "FLAIR": flair}, reference="T1")
    ready = prepare(case, view=WHOLE, modalities=["FLAIR", "T1"])
    assert {name: tuple(image.shape) for name, image in ready.images.items()} == {
        "FLAIR": (1, 16, 18, 20), "T1": (1, 16, 18, 20),
    }  # fmt: skip
    assert np.allclose(ready.affine, np.diag([3.0, 3.0, 3.0, 1.0]))
    with pytest.raises(DataError, match="The case has no T1 file, which carries the grid"):
        prepare(replace(case, images={"FLAIR": flair}), view=WHOLE, modalities=["FLAIR"])


def test_a_crop_around_the_foreground_holds_it_and_head_neck_needs_a_ct(tmp_path, disk):
    volume = np.zeros((40, 30, 30), np.float32)
    volume[28:36, 4:12, 10:18] = 100.0
    t1 = disk.save(tmp_path / "t1.nii.gz", volume)
    case = replace(case_of(t1), images={"T1": t1}, reference="T1")
    view = replace(WHOLE, size=[10, 10, 10], window=[10, 10, 10], crop="foreground")
    image = prepare(case, view=view, modalities=["T1"]).images["T1"]
    assert int((image != 0).sum()) == 0  # a flat foreground has no spread: all of it is its own mean
    affine = prepare(case, view=view, modalities=["T1"]).affine
    low, high = nib.affines.apply_affine(affine, [[-0.5] * 3, [9.5] * 3])
    inside_low, inside_high = np.array([28, 4, 10]) * 3.0 - 1.5, np.array([36, 12, 18]) * 3.0 - 1.5
    assert (low <= inside_low).all() and (high >= inside_high).all()
    with pytest.raises(
        DataError, match=r"view\.crop is head_neck, which looks for a body in a CT, but the grid is the T1's"
    ):
        prepare(case, view=replace(view, crop="head_neck"), modalities=["T1"])
