"""A hundred kinds of bad data: what doctor says of each, what a run does, and that no number changes in silence.

Each row is a mutation of a healthy cohort of ten patients, the verdict (severity, area, words; None where nothing is
said because nothing changes) and how many cases a run would use and skip, or REFUSED; UNTOLD where only a step that
needs the outcome is refused, and the others use all.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from client.center.config import CenterConfig
from client.commands.doctor import diagnose
from client.data.case import untold_of
from client.data.images.checks import load_usable
from client.data.images.volumes import prepare
from client.data.layouts import find_cases
from common.config.view import View
from common.data.batch import CT, PET
from common.errors import DataError

COUNT, SIDE, MM = 10, 24, 3.0
HEADER = "PatientID,CenterID,Gender,Age,Tobacco Consumption,Performance Status,Relapse,RFS,HPV Status"
REFUSED, UNTOLD = "refused", "the outcome refused"
ALL, ONE_LESS, GONE = (COUNT, 0), (COUNT - 1, 1), (COUNT - 1, 0)
VIEW = View(spacing_mm=[6.0] * 3, size=[8] * 3, window=[8] * 3, crop="center")


def write_cohort(root: Path) -> Path:
    lines = [HEADER]
    for number in range(1, COUNT + 1):
        case, rng = f"CHUM-{number:03d}", np.random.default_rng(number)
        label = np.zeros((SIDE,) * 3, np.uint8)
        x, y = number % 3, number // 3
        label[3 + x : 8 + x, 6 + y : 11 + y, 4:9], label[4 + x : 7 + x, 16:19, 5:8] = 1, 2
        air = np.indices(label.shape).min(axis=0) < 2
        ct = np.where(air, -1000, np.rint(rng.normal(0, 60, label.shape)).clip(-250, 250))
        save(root / "imagesTr" / f"{case}__CT.nii.gz", ct.astype(np.int16))
        pet = rng.random(label.shape) + 5.0 * (label > 0)
        save(root / "imagesTr" / f"{case}__PT.nii.gz", np.where(air, 0.0, pet).astype(np.float32))
        save(root / "labelsTr" / f"{case}.nii.gz", label)
        words = [
            case,
            1,
            (number // 2) % 2,
            50 + number * 7 % 23,
            (number // 3) % 2,
            1,
            number % 2,
            350 + number * 137,
            1,
        ]
        lines.append(",".join(map(str, words)))
    (root / "ehr.csv").write_text("\n".join(lines) + "\n")
    return root


def save(path, data, affine=None, **header):
    path.parent.mkdir(parents=True, exist_ok=True)
    one = nib.Nifti1Image(data, np.diag([MM, MM, MM, 1.0]) if affine is None else affine)
    for name, value in header.items():
        one.header[name] = value
    nib.save(one, path)


def file(root, kind, number=1):
    return root / ("imagesTr" if kind else "labelsTr") / f"CHUM-{number:03d}{kind}.nii.gz"


def voxels(path):
    return np.asarray(nib.load(path).dataobj)


# ------------------------------------------------------------------------------------------------ kinds of mutation


def image(kind, how, *, every=False, affine=None):
    """Voxels changed, of the first patient or of every one."""

    def mutate(root):
        for number in range(1, COUNT + 1 if every else 2):
            path = file(root, kind, number)
            save(path, how(voxels(path)), affine)

    return mutate


def raw(kind, how):
    """The file's own bytes changed."""
    return lambda root: file(root, kind).write_bytes(how(file(root, kind).read_bytes()))


def header(kind, start, new):
    """Bytes of the NIfTI header changed."""

    def how(content):
        plain = bytearray(gzip.decompress(content))
        plain[start : start + len(new)] = new
        return gzip.compress(bytes(plain))

    return raw(kind, how)


def forms(kind, sform, qform):
    def mutate(root):
        one = nib.Nifti1Image(voxels(file(root, kind)), None)
        one.header.set_zooms((MM,) * 3)
        for put, (matrix, code) in ((one.set_sform, sform), (one.set_qform, qform)):
            put(matrix, code=code)
        nib.save(one, file(root, kind))

    return mutate


def table(how):
    """The text of the table changed."""
    return lambda root: (root / "ehr.csv").write_text(how((root / "ehr.csv").read_text()))


def column(name, how, *, only=None):
    """Cells of a column changed: of every row, or of those whose number (from 1) is named."""

    def change(text):
        head, *rows = [line.split(",") for line in text.strip().split("\n")]
        at = head.index(name)
        for number, row in enumerate(rows, start=1):
            if only is None or number in only:
                row[at] = str(how(row[at]))
        return "\n".join(map(",".join, [head, *rows])) + "\n"

    return table(change)


def copy_of(how, name="ehr_old.csv"):
    return lambda root: (root / name).write_text(how((root / "ehr.csv").read_text()))


def renamed(name):
    return lambda root: (root / "ehr.csv").rename(root / name)


def replaced(kind, make):
    def mutate(root):
        file(root, kind).unlink()
        make(file(root, kind))

    return mutate


def copied(kind, source, target):
    return lambda root: shutil.copy(file(root, kind, source), file(root, kind, target))


def linked(root):
    (root / "imagesTr").rename(root.parent / "disk")
    (root / "imagesTr").symlink_to(root.parent / "disk", target_is_directory=True)


def both(*mutations):
    return lambda root: [mutate(root) for mutate in mutations] and None


RGB = np.zeros((SIDE,) * 3, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
UNSET = (None, 0)
THREE = np.diag([MM, MM, MM, 1.0])
TURNED = THREE + np.array([[0, 0, 0, 30.0], [0] * 4, [0] * 4, [0] * 4])
FAR = THREE + np.array([[0, 0, 0, 400.0], [0] * 4, [0] * 4, [0] * 4])
W, E, N = "warning", "error", "note"
BROKEN = "missing, corrupt or truncated"

KINDS = {
    # CT
    "CT cut": (raw("__CT", lambda b: b[: len(b) // 2]), (E, "images", BROKEN), ONE_LESS),
    "CT of no bytes": (raw("__CT", lambda b: b""), (E, "images", BROKEN), ONE_LESS),
    "CT is text": (raw("__CT", lambda b: b"no image " * 90), (E, "images", BROKEN), ONE_LESS),
    "CT with a wrong checksum": (raw("__CT", lambda b: b[:-8] + b"12345678"), (E, "images", BROKEN), ONE_LESS),
    "CT of an unknown type": (header("__CT", 70, struct.pack("<h", 9999)), (E, "images", BROKEN), ONE_LESS),
    "CT in color": (image("__CT", lambda ct: RGB), (E, "images", "CT file holds colors"), ONE_LESS),
    "CT of complex numbers": (image("__CT", lambda ct: ct.astype(np.complex64)), (E, "images", "complex"), ONE_LESS),
    "CT of one slice": (image("__CT", lambda ct: ct[:, :, 0]), (E, "images", "2 dimensions instead of 3"), ONE_LESS),
    "CT of two phases": (image("__CT", lambda ct: np.stack([ct, ct], -1)), (E, "images", "4 dimensions"), ONE_LESS),
    "CT with NaN": (image("__CT", lambda ct: np.where(ct > 99, np.nan, ct)), (E, "images", "NaN"), ONE_LESS),
    "CT all zero": (image("__CT", lambda ct: ct * 0), (E, "images", "CT volume is empty"), ONE_LESS),
    "CT with an sform of zeros": (
        both(header("__CT", 254, struct.pack("<h", 1)), header("__CT", 280, bytes(48))),
        (E, "images", "does not place its voxels"), ONE_LESS,
    ),
    "CT of four slices": (image("__CT", lambda ct: ct[:, :, :4]), (E, "images", "smaller than one patch"), ONE_LESS),
    "CT is a named pipe": (replaced("__CT", os.mkfifo), (W, "folder", "belong to no case"), GONE),
    "CT is a folder": (replaced("__CT", os.mkdir), (W, "folder", "belong to no case"), GONE),
    "CT is absent": (replaced("__CT", lambda path: None), (W, "folder", "belong to no case"), GONE),
    "CT under another name": (
        lambda root: file(root, "__CT").rename(root / "imagesTr" / "CHUM-001 CT.nii.gz"),
        (W, "folder", "belong to no case"), GONE,
    ),
    "CT negated": (image("__CT", lambda ct: -ct), (W, "images", "values look negated"), ALL),
    "CT a thousandth": (image("__CT", lambda ct: ct / 1000), (W, "images", "holds no air"), ALL),
    "CT ten times": (image("__CT", lambda ct: ct * 10), (W, "images", "values look scaled"), ALL),
    "CT without its intercept": (image("__CT", lambda ct: ct + 1024), (W, "images", "holds no air"), ALL),
    "CT with its intercept twice": (image("__CT", lambda ct: ct - 1024), (W, "images", "hardly any tissue"), ALL),
    "CT cut off at 0": (image("__CT", lambda ct: ct.clip(0)), (W, "images", "holds no air"), ALL),
    "CT padded": (image("__CT", lambda ct: np.where(ct == -1000, -3024, ct)), (N, "images", "padded below"), ALL),
    "CT without geometry": (forms("__CT", UNSET, UNSET), (W, "images", "does not say how it lies"), ALL),
    "CT of two geometries": (forms("__CT", (TURNED, 1), (THREE, 1)), (W, "images", "two different geometries"), ALL),
    "all spacings a tenth": (
        both(*(image(k, lambda a: a, every=True, affine=np.diag([0.3, 0.3, 0.3, 1])) for k in ("__CT", "__PT", ""))),
        (E, "images", "smaller than one patch"), REFUSED,
    ),
    "all spacings ten times": (
        both(*(image(k, lambda a: a, every=True, affine=np.diag([30.0, 30, 30, 1])) for k in ("__CT", "__PT", ""))),
        (W, "images", "voxels outside 0.3 to 8 mm"), ALL,
    ),
    "CT with a name in its header": (
        header("__CT", 148, b"Doe Jane 1951-02-03"), (W, "privacy", "header field 'descrip'"), ALL,
    ),
    "CT that gzip remembers by name": (
        raw("__CT", lambda b: b[:3] + b"\x08" + b[4:10] + b"Doe_Jane.nii\0" + b[10:].split(b"\0", 1)[-1]
            if b[3] & 8 else b[:3] + b"\x08" + b[4:10] + b"Doe_Jane.nii\0" + b[10:]),
        (W, "privacy", "another file name"), ALL,
    ),
    "one CT under two codes": (copied("__CT", 2, 1), (E, "cohort", "same CT, voxel for voxel"), ALL),
    "a second spelling of one file": (
        lambda root: shutil.copy(file(root, "__CT"), root / "imagesTr" / "CHUM_001__CT.nii.gz"),
        (W, "folder", "several files of one kind"), GONE,
    ),
    # PET
    "PET in Bq/mL": (image("__PT", lambda pet: pet * 20_000), (E, "images", "not in SUV"), ONE_LESS),
    "PET a tenth": (image("__PT", lambda pet: pet / 10), (W, "images", "highest value is below 1.5"), ALL),
    "PET ten times": (image("__PT", lambda pet: pet * 10), (W, "images", "mean over the body is above 4"), ALL),
    "PET as integers": (image("__PT", lambda pet: pet.astype(np.int16)), (W, "images", "whole numbers only"), ALL),
    "PET below zero": (image("__PT", lambda pet: pet - 1), (W, "images", "negative values"), ALL),
    "PET with NaN": (image("__PT", lambda pet: pet * np.nan), (E, "images", "PET volume holds NaN"), ONE_LESS),
    "PET all zero": (image("__PT", lambda pet: pet * 0), (E, "images", "PET volume is empty"), ONE_LESS),
    "PET in color": (image("__PT", lambda pet: RGB), (E, "images", "PET file holds colors"), ONE_LESS),
    "PET far away": (image("__PT", lambda pet: pet, affine=FAR), (E, "images", "do not overlap"), ONE_LESS),
    "PET cut": (raw("__PT", lambda b: b[:99]), (E, "images", "PET file is missing, corrupt"), ONE_LESS),
    "PET absent": (replaced("__PT", lambda path: None), (N, "cohort", "9 with PET"), ALL),
    "PET of another patient": (copied("__PT", 2, 1), (W, "cohort", "same PET, voxel for voxel"), ALL),
    "PET is the CT": (
        lambda root: shutil.copy(file(root, "__CT"), file(root, "__PT")), (W, "images", "negative values"), ALL,
    ),
    # labels
    "label with a 3": (image("", lambda a: a * 3), (E, "images", "label holds the value"), ONE_LESS),
    "label with a -1": (image("", lambda a: a.astype(np.int16) - 1), (E, "images", "label holds the value"), ONE_LESS),
    "label of halves": (image("", lambda a: a * 0.5), (E, "images", "label holds the value"), ONE_LESS),
    "label of 255": (image("", lambda a: (a > 0) * np.uint8(255)), (E, "images", "holds the value 255"), ONE_LESS),
    "label off by rounding": (image("", lambda a: a * 0.9999999), None, ALL),
    "label stretched over the integers": (
        both(image("", lambda a: a * np.uint8(127)), header("", 112, struct.pack("<ff", 1 / 127, 0))),
        None, ALL,
    ),
    "label empty": (image("", lambda a: a * 0), (W, "labels", "label is empty"), ALL),
    "label of a voxel": (
        image("", lambda a: (np.arange(a.size).reshape(a.shape) == 5000).astype(np.uint8)),
        (W, "labels", "3 voxels or fewer"), ALL,
    ),
    "label everywhere": (image("", lambda a: a * 0 + 1), (W, "labels", "covers more than 25%"), ALL),
    "labels upside down": (
        image("", lambda a: a[:, :, ::-1], every=True), (W, "labels", "With upside down it would"), ALL,
    ),
    "labels mirrored": (
        image("", lambda a: a[::-1], every=True), (W, "labels", "With left and right exchanged it would"), ALL,
    ),
    "label elsewhere": (
        image("", lambda a: np.roll(a, 8, axis=2)), (W, "labels", "does not hold more uptake than the body"), ALL,
    ),
    "label on another grid": (
        image("", lambda a: a[::2, ::2, ::2], affine=np.diag([6.0, 6, 6, 1])), (W, "labels", "different grids"), ALL,
    ),
    "label in color": (image("", lambda a: RGB), (E, "images", "label file holds colors"), ONE_LESS),
    "label of a channel each": (image("", lambda a: np.stack([a, a], -1)), (E, "images", "4 dimensions"), ONE_LESS),
    "label far away": (image("", lambda a: a, affine=FAR), (E, "images", "CT and label do not overlap"), ONE_LESS),
    "label of another patient": (copied("", 2, 1), (W, "cohort", "same label, voxel for voxel"), ALL),
    "labels without a primary": (
        image("", lambda a: (a > 0).astype(np.uint8) * 2, every=True), (W, "labels", "No label holds a GTVp"), ALL,
    ),
    "label absent": (replaced("", lambda path: None), (N, "cohort", "9 with a label"), GONE),
    # tables as files
    "no table": (lambda root: (root / "ehr.csv").unlink(), (W, "records", "No table was read"), ALL),
    "a spreadsheet": (renamed("ehr.xlsx"), (W, "records", "'ehr.xlsx' is a spreadsheet"), ALL),
    "semicolons": (table(lambda t: t.replace(",", ";")), (N, "records", "separated by semicolons"), ALL),
    "tabs": (table(lambda t: t.replace(",", "\t")), (N, "records", "separated by tabs"), ALL),
    "a title": (table(lambda t: "Export of March\n" + t), (N, "records", "1 lines above the header"), ALL),
    "a suffix in capitals": (renamed("EHR.CSV"), None, ALL),
    "UTF-16": (lambda root: (root / "ehr.csv").write_text((root / "ehr.csv").read_text(), "utf-16"), None, ALL),
    "not UTF-8": (lambda r: (r / "ehr.csv").write_bytes(b"PatientID,\xc4lter\n"), (E, "records", "UTF-8"), REFUSED),
    "a header alone": (table(lambda t: HEADER + "\n"), (W, "records", "has a header but no row"), ALL),
    "a table of no bytes": (table(lambda t: ""), (E, "records", "is empty"), REFUSED),
    "PatientID renamed": (table(lambda t: t.replace("PatientID", "Patient")), (W, "records", "is not read"), ALL),
    "Age renamed": (table(lambda t: t.replace("Age", "Alter")), (W, "records", "'age' (age)"), ALL),
    "RFS renamed": (table(lambda t: t.replace(",RFS", ",Survival")), (W, "records", "'rfs' (rfs.time)"), UNTOLD),
    "Age twice": (table(lambda t: t.replace("Gender", "Age")), (W, "records", "several columns called 'age'"), ALL),
    "RFS twice": (table(lambda t: t.replace("Gender", "RFS")), (E, "records", "several columns called 'rfs'"), UNTOLD),
    "a table of something else": (copy_of(lambda t: "Nurse,Shift\nA,1\n"), (W, "records", "'ehr_old.csv' is not"), ALL),
    "a cell too many": (table(lambda t: t.replace("\nCHUM-001,", "\nCHUM-001,,")), (W, "records", "1 rows of"), ALL),
    "an old copy with other ages": (
        copy_of(lambda t: t.replace("CHUM-001,1,0,57", "CHUM-001,1,0,56")), (W, "records", "another 'age'"), ALL,
    ),
    "an old copy with other outcomes": (
        copy_of(lambda t: t.replace(",487,", ",400,")), (W, "records", "another 'rfs'"), ALL,
    ),
    "an equal copy": (copy_of(lambda t: t), None, ALL),
    # rows and cells
    "a row twice": (table(lambda t: t + t.split("\n")[1] + "\n"), (W, "records", "stand there twice, equal"), ALL),
    "a patient twice": (
        table(lambda t: t + t.split("\n")[1].replace("487", "488") + "\n"), (W, "records", "more than once"), ALL,
    ),
    "an ID that is none": (column("PatientID", lambda c: "Doe", only=[1]), (W, "records", "1 rows of"), ALL),
    "an ID left out": (column("PatientID", lambda c: "", only=[1]), (W, "records", "1 rows of"), ALL),
    "an ID of another center": (
        column("PatientID", lambda c: "CHUP-001", only=[1]), (W, "records", "1 patients with images stand in no"), ALL,
    ),
    "an age of 999": (column("Age", lambda c: 999, only=[1]), (W, "records", "1 values of 'age'"), ALL),
    "an age in words": (column("Age", lambda c: "sixty", only=[1]), (W, "records", "1 values of 'age'"), ALL),
    "an age below zero": (column("Age", lambda c: -1, only=[1]), (W, "records", "1 values of 'age'"), ALL),
    "ages of 0": (column("Age", lambda c: 0, only=[1, 2]), (W, "records", "2 patients have an age of 0"), ALL),
    "ages of 99": (column("Age", lambda c: 99, only=[1, 2]), (W, "records", "2 patients have an age of 99"), ALL),
    "a sex of x": (column("Gender", lambda c: "x", only=[1]), (W, "records", "1 values of 'gender'"), ALL),
    "HPV 2": (column("HPV Status", lambda c: 2, only=[1]), (W, "records", "1 values of 'hpv status'"), ALL),
    "a performance status of 9": (
        column("Performance Status", lambda c: 9, only=[1]), (W, "records", "1 values of 'performance status'"), ALL,
    ),
    "tobacco perhaps": (
        column("Tobacco Consumption", lambda c: "perhaps", only=[1]), (W, "records", "1 values of 'tobacco"), ALL,
    ),
    "tobacco NA": (column("Tobacco Consumption", lambda c: "NA", only=[1]), (N, "records", "1 cells of 'tobacco"), ALL),
    "a field that knows the outcome": (
        table(lambda t: "\n".join(
            line if i == 0 or not line else ",".join([*line.split(",")[:4], line.split(",")[6], *line.split(",")[5:]])
            for i, line in enumerate(t.split("\n")))),
        (W, "records", "tells who relapses"), ALL,
    ),
    # outcomes
    "relapse coded 1 and 2": (column("Relapse", lambda c: int(c) + 1), (E, "records", "of 'relapse'"), UNTOLD),
    "relapse perhaps": (column("Relapse", lambda c: "perhaps", only=[1]), (W, "records", "of 'relapse'"), ALL),
    "relapse perhaps for two": (column("Relapse", lambda c: "perhaps", only=[1, 2]), (E, "records", "of 'r"), UNTOLD),
    "two times in words": (column("RFS", lambda c: "long", only=[1, 2]), (E, "records", "2 values of 'rfs'"), UNTOLD),
    "two IDs that are none": (column("PatientID", lambda c: "Doe", only=[1, 2]), (E, "records", "2 rows of"), REFUSED),
    "a time in words": (column("RFS", lambda c: "long", only=[1]), (W, "records", "1 values of 'rfs'"), ALL),
    "a time below zero": (column("RFS", lambda c: -5, only=[1]), (W, "records", "1 values of 'rfs'"), ALL),
    "an event without a time": (column("RFS", lambda c: "", only=[1]), (W, "records", "event without a time"), ALL),
    "no event and no time": (column("RFS", lambda c: "", only=[2]), (N, "records", "no event and no time"), ALL),
    "a time without its end": (column("Relapse", lambda c: "", only=[1]), (N, "records", "not whether it ended"), ALL),
    "months everywhere": (column("RFS", lambda c: int(c) // 30), (E, "records", "are they months"), UNTOLD),
    "months for some": (
        column("RFS", lambda c: int(c) // 30, only=[2, 4]), (W, "records", "were months entered for some"), ALL,
    ),
    "hours everywhere": (column("RFS", lambda c: int(c) * 24), (E, "records", "is its unit right"), UNTOLD),
    "all times equal": (column("RFS", lambda c: 900), (W, "records", "All times of follow-up are 900"), ALL),
    "a time of 0": (column("RFS", lambda c: 0, only=[1]), (W, "records", "a follow-up of 0 days"), ALL),
    "no event": (column("Relapse", lambda c: 0), (W, "records", "have no event"), ALL),
    "only events": (column("Relapse", lambda c: 1), (W, "records", "have an event"), ALL),
    # folders
    "images behind a link": (linked, None, ALL),
}  # fmt: skip


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("healthy") / "root")


def verdicts(root):
    config = CenterConfig("CHUM", str(root), cache=str(root.parent / "cache"), vault=str(root.parent / "vault"))
    _, found = diagnose(config)
    return [(f.severity, f.area, f.what) for f in found if f.area != "machine"]


def prepared(case):
    """The case as a run prepares it; of files of the same bytes, once: most kinds change one patient of ten."""
    files = [*sorted(case.images.items()), ("label", case.label)]
    key = tuple((name, path.name, hashlib.sha256(path.read_bytes()).digest()) for name, path in files if path)
    if key not in PREPARED:
        PREPARED[key] = prepare(case, view=VIEW, modalities=[CT, PET])
    return PREPARED[key]


PREPARED = {}


def used(root):
    """How many labeled cases a run would train on and skip; and everything of them that a number comes from."""
    try:
        cases = [case for case in find_cases(root, center="CHUM") if case.label is not None]
        ready, skipped = load_usable(cases, prepare_one=prepared)
    except DataError:
        return REFUSED, None
    if untold_of(cases):
        assert (len(ready), skipped) == ALL and not any(case.event is not None for case in cases)
        return UNTOLD, None
    numbers = {
        case.patient: (
            [tensor.numpy() for tensor in made.images.values()],
            None if made.mask is None else made.mask.numpy(),
            made.outside_mm3,
            dict(case.record),
            case.days,
            case.event,
        )
        for case, made in ready
    }
    return (len(ready), skipped), numbers


def same(a, b):
    return str(a.keys()) == str(b.keys()) and all(
        all(np.array_equal(x, y) for x, y in zip(a[p][0], b[p][0], strict=True))
        and np.array_equal(a[p][1], b[p][1])
        and a[p][2:] == b[p][2:]
        for p in a
    )


def test_there_are_at_least_eighty():
    assert len(KINDS) >= 80


def test_the_healthy_cohort_is_healthy(healthy):
    assert [what for severity, _, what in verdicts(healthy) if severity != N] == []
    assert used(healthy)[0] == ALL


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_said_or_changes_nothing(kind, healthy, tmp_path):
    mutate, verdict, run = KINDS[kind]
    root = tmp_path / "root"
    shutil.copytree(healthy, root)
    mutate(root)
    found, (usage, numbers) = verdicts(root), used(root)
    if verdict is None:
        assert [f for f in found if f[0] != N] == []
        assert usage == run and same(numbers, used(healthy)[1])
        return
    severity, area, words = verdict
    assert any((s, a) == (severity, area) and words in what for s, a, what in found), found
    assert usage == run
    assert not any("CHUM-0" in what.replace("as in CHUM-001", "") for _, _, what in found)  # sentences name no patient


RUNS = {
    ALL: "uses all ten patients",
    ONE_LESS: "leaves that patient out and counts it",
    GONE: "has one patient less",
    REFUSED: "does not begin",
    UNTOLD: "refuses the steps that need the outcome; the others use all ten patients",
}
SEVERITIES = {W: "warning", E: "**error**", N: "note"}
PAGE = Path(__file__).resolve().parents[3] / "docs/hospital/bad-data.md"


def row_of_page(kind):
    _, verdict, run = KINDS[kind]
    if verdict is None:
        return f"| {kind} | nothing: every number is the same | {RUNS[run]} |"
    severity, area, words = verdict
    return f"| {kind} | {SEVERITIES[severity]}, {area}: “{words}” | {RUNS[run]} |"


def test_the_page_shows_every_kind_with_its_verdict_and_what_a_run_does():
    shown = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][1:]
    expected = [row_of_page(kind) for kind in KINDS]
    assert shown == expected, "The table of the page should be:\n" + "\n".join(expected)
