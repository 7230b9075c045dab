"""Turn a folder of DICOM CT, PET and RTSTRUCT series into the HECKTOR layout, without identifiers.

PET becomes SUV by body weight; structures become labels (1 GTVp, 2 GTVn) by their names; geometry is checked slice by
slice. Patients get codes (CHUM-001); the table of codes stays in the vault. Whatever cannot be done right is not done:
the patient is left out, and prepared.csv says why. Started again, only new patients are added.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from client.commands.files import add_center, center_of, vault_of

if TYPE_CHECKING:
    import numpy as np

    from client.dicom.series import Examination, Series

EXAMPLE = "python -m client prepare /export/pacs --center center.yaml --table clinical.csv"
TABLE = "prepared.csv"
CASE = "case"


@dataclass
class Row:
    """What was done for one patient: a line of prepared.csv."""

    case: str
    status: str = "prepared"  # prepared, kept (was there already) or refused
    ct_mm: str = ""
    pet_mm: str = ""
    suv_factor: str = ""
    suv_reference: str = ""
    gtvp_ml: str = ""
    gtvn_ml: str = ""
    regions: str = ""
    regions_left_out: str = ""
    why: str = ""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="folder with DICOM files, in any order")
    add_center(parser)
    parser.add_argument("--out", type=Path, help="where to write (root of the center's file)")
    parser.add_argument("--names", type=Path, help="YAML with the names of GTVp and GTVn at this hospital")
    parser.add_argument(
        "--table",
        type=Path,
        action="append",
        default=[],
        help="clinical CSV with a PatientID column; copied with the codes",
    )
    parser.add_argument(
        "--examination", choices=("only", "earliest", "latest"), default="only", help="of several examinations (only)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prepare every patient, write the table, and print it; exit code 1 where a patient was refused."""
    from client.dicom.series import find_series

    config = center_of(arguments)
    out = arguments.out or Path(config.root)
    names = _names(arguments.names)
    found = find_series(arguments.folder)
    codes = _codes(vault_of(config), config.code, found.patients)
    rows = [
        prepare_patient(series, codes[patient], out=out, names=names, which=arguments.examination)
        for patient, series in sorted(found.patients.items(), key=lambda item: codes[item[0]])
    ]
    write_table(out / TABLE, rows)
    _print(rows, found.other_files, found.other_modalities)
    for table in arguments.table:
        print(copy_table(table, codes, out))
    return 1 if any(row.status == "refused" for row in rows) else 0


def prepare_patient(
    series: Sequence[Series], code: str, *, out: Path, names: Mapping[str, Sequence[str]], which: str
) -> Row:
    """Write one patient's images and label; the row says what was done, or why nothing was."""
    from client.dicom.series import examination_of
    from common.errors import DataError

    if (out / "imagesTr" / f"{code}__CT.nii.gz").exists():
        return Row(code, status="kept")
    row = Row(code)
    try:
        images = _convert(examination_of(series, which=which), row, names)
    except DataError as error:
        return Row(code, status="refused", why=" ".join(error.problems))
    # The CT last: it is what says that a patient is prepared, so a run that stops half-way starts this one again.
    for name in sorted(set(images) - {"__CT"}):
        write_nifti(out / ("imagesTr" if name else "labelsTr") / f"{code}{name}.nii.gz", *images[name])
    write_nifti(out / "imagesTr" / f"{code}__CT.nii.gz", *images["__CT"])
    return row


def _convert(
    examination: Examination, row: Row, names: Mapping[str, Sequence[str]]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """File-name suffix -> voxels and affine (RAS) of every image of a case; fills in the row."""
    import numpy as np

    from client.dicom.structures import draw
    from client.dicom.suv import suv_of
    from client.dicom.volume import read_slices, to_ras

    ct = read_slices(examination.ct.files, role="CT")
    row.ct_mm = _millimeters(ct.spacing)
    images = {"__CT": (np.rint(ct.data.clip(-32768, 32767)).astype(np.int16), to_ras(ct.affine))}
    if examination.pet is not None:
        pet = read_slices(examination.pet.files, role="PET")
        suv = suv_of(pet.headers)
        row.pet_mm, row.suv_factor, row.suv_reference = _millimeters(pet.spacing), f"{suv.factor:.6g}", suv.reference
        images["__PT"] = (pet.data * np.float32(suv.factor), to_ras(pet.affine))
    else:
        row.why = "no PET"
    if examination.left_out:
        row.why = _joined(row.why, f"{examination.left_out} RTSTRUCT of another CT left out")
    if examination.structures is not None:
        drawn = draw(examination.structures.files[0], ct, names=names)
        milliliters = np.bincount(drawn.label.ravel(), minlength=3) * np.prod(ct.spacing) / 1000
        row.gtvp_ml, row.gtvn_ml = f"{milliliters[1]:.2f}", f"{milliliters[2]:.2f}"
        row.regions = "; ".join(f"{s}: {', '.join(r)}" for s, r in sorted(drawn.used.items()))
        row.regions_left_out = "; ".join(drawn.unused)
        row.why = _joined(row.why, *drawn.notes)
        if drawn.used:
            images[""] = (drawn.label, to_ras(ct.affine))
        else:
            row.why = _joined(row.why, "no region has a name of GTVp or GTVn: no label was made")
    return images


def write_nifti(path: Path, data: np.ndarray, affine: np.ndarray) -> None:
    """A NIfTI file whose header holds its grid and nothing else; the same voxels give the same bytes."""
    import nibabel as nib

    from common.files import write_bytes

    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    write_bytes(path, gzip.compress(image.to_bytes(), compresslevel=6, mtime=0))


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Merge rows into prepared.csv: a kept case keeps the line of the run that prepared it."""
    from common.files import write_bytes

    before = {}
    if path.exists():
        with path.open(newline="") as file:
            before = {line[CASE]: line for line in csv.DictReader(file)}
    lines = before | {row.case: asdict(row) for row in rows if row.status != "kept" or row.case not in before}
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(Row)], extrasaction="ignore")
    writer.writeheader()
    writer.writerows(lines[case] for case in sorted(lines))
    write_bytes(path, text.getvalue().encode())


def copy_table(path: Path, codes: Mapping[str, str], out: Path) -> str:
    """Copy a clinical table with codes in place of hospital numbers; a sentence about it.

    Raises:
        DataError: the table cannot be read or has no column PatientID.
    """
    import pandas as pd

    from common.errors import DataError
    from common.files import write_bytes

    try:
        frame = pd.read_csv(path, dtype=str, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(
            f"The table '{path}' cannot be read as comma-separated UTF-8 ({type(error).__name__})."
        ) from error
    if "PatientID" not in frame.columns:
        raise DataError(
            f"The table '{path}' has no column 'PatientID' with the hospital's numbers; its columns are "
            f"{', '.join(map(str, frame.columns))}."
        )
    known = frame["PatientID"].str.strip().map(codes)
    kept = frame[known.notna()].assign(PatientID=known.dropna()).sort_values("PatientID")
    write_bytes(out / path.name, kept.to_csv(index=False).encode())
    return f"{out / path.name}: {len(kept)} rows with codes; {len(frame) - len(kept)} of patients without one left out"


def _codes(vault: Path, center: str, patients: Mapping[str, list[Series]]) -> dict[str, str]:
    from client.commands.codes import codes_for
    from common.errors import DataError

    nameless = len(patients.get("", []))
    if nameless:
        raise DataError(f"{nameless} series have no PatientID; export them with a number that tells patients apart.")
    return codes_for(vault, center, patients)


def _names(path: Path | None) -> Mapping[str, Sequence[str]]:
    from client.dicom.structures import LABELS, NAMES
    from common.errors import ConfigError

    if path is None:
        return NAMES
    import yaml

    try:
        names = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"The names in {path} cannot be read: {error}") from error
    fits = isinstance(names, dict) and set(names) <= set(LABELS)
    if not fits or not all(isinstance(v, list) and all(isinstance(n, str) for n in v) for v in names.values()):
        raise ConfigError(
            f"{path} must say which names mean what, as in GTVp: ['gtv p*', 'primary'] and GTVn: ['gtv n*']."
        )
    return names


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _millimeters(spacing: tuple[float, ...]) -> str:
    return " x ".join(f"{mm:.3g}" for mm in spacing)


def _print(rows: Sequence[Row], other_files: int, other_modalities: Mapping[str, int]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(Console().width, 120))
    table = Table(title="prepared.csv", title_justify="left")
    shown = ("case", "status", "ct_mm", "pet_mm", "suv_factor", "gtvp_ml", "gtvn_ml", "why")
    for name in shown:
        table.add_column(name)
    for row in rows:
        table.add_row(*(str(getattr(row, name)) for name in shown))
    console.print(table)
    counts = {status: sum(row.status == status for row in rows) for status in ("prepared", "kept", "refused")}
    console.print(", ".join(f"{count} {status}" for status, count in counts.items()))
    left_out = [f"{count} of modality {name or 'unnamed'}" for name, count in sorted(other_modalities.items())]
    if other_files or left_out:
        console.print(f"not read: {', '.join([*left_out, *([f'{other_files} other files'] if other_files else [])])}")
