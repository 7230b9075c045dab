"""Turn a folder of DICOM CT, PET and RTSTRUCT series into the HECKTOR layout, without identifiers.

PET becomes SUV by body weight; structures become labels (1 GTVp, 2 GTVn) by their names; geometry is checked slice by
slice. Patients get codes (CHUM-001); the table of codes stays in the vault. Whatever cannot be done right is not done:
the patient is left out, prepared.csv says why, and the others go on. Started again, only new patients are added.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from client.commands.files import add_center, center_of, vault_of

if TYPE_CHECKING:
    import numpy as np

    from client.dicom.series import Examination, Series
    from client.dicom.volume import DicomVolume

EXAMPLE = "python -m client prepare /export/pacs --center center.yaml --table clinical.csv"
TABLE = "prepared.csv"
CASE = "case"
SUFFIX = {"CT": "__CT", "PET": "__PT"}  # of a modality's file

log = logging.getLogger("fedgraft.center")


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
    parser.add_argument(
        "--edge-voxels",
        choices=("half", "inside", "outside"),
        default="half",
        help="voxels whose center lies on a contour: on its left and upper edges only (half), all or none",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prepare every patient, write the table, and print it; exit code 1 where something was refused."""
    from client.dicom.series import find_series

    config = center_of(arguments)
    out = arguments.out or Path(config.root)
    _check_targets(arguments.table)
    how = How(_names(arguments.names), arguments.examination, arguments.edge_voxels)
    found = find_series(arguments.folder)
    nameless = len(found.patients.pop("", []))
    codes = _codes(vault_of(config), config.code, found.patients)
    rows: list[Row] = []
    try:
        for patient, code in sorted(codes.items(), key=lambda item: item[1]):
            rows.append(prepare_patient(found.patients[patient], code, out=out, how=how))
    finally:  # also when the disk is full: what was done is told
        if rows:
            write_table(out / TABLE, rows)
            _print(rows, found.other_files, found.other_modalities)
    if erased := len(found.patients) - len(codes):
        print(f"left out: {erased} patients in this folder were erased here (python -m client erase).")
    if nameless:
        print(f"refused: {nameless} series have no PatientID; export them with a number that tells patients apart.")
    known = _known_codes(vault_of(config)) if arguments.table else {}
    copied = [_copy_or_say(table, known, out) for table in arguments.table]
    return 1 if nameless or not all(copied) or any(row.status == "refused" for row in rows) else 0


@dataclass(frozen=True)
class How:
    """What a person chose: names of structures, which of several examinations, which voxels on a contour count."""

    names: Mapping[str, Sequence[str]]
    which: str = "only"
    edges: str = "half"


def prepare_patient(series: Sequence[Series], code: str, *, out: Path, how: How) -> Row:
    """Write one patient's images and label; the row says what was done, or why nothing was.

    Raises:
        DataError: the folder cannot be written: no patient can be prepared then.
    """
    from client.dicom.series import examination_of
    from client.dicom.values import ODD
    from common.errors import DataError

    if (out / "imagesTr" / f"{code}__CT.nii.gz").exists():
        return Row(code, status="kept")
    row = Row(code)
    try:
        images = _convert(examination_of(series, which=how.which), row, how)
    except DataError as error:
        return Row(code, status="refused", why=" ".join(error.problems))
    except (*ODD, MemoryError) as error:  # an oddity that nobody has met yet costs this patient, not the others
        log.warning("case=%s cannot be converted", code, exc_info=error)
        return Row(code, status="refused", why=f"Its files cannot be understood ({type(error).__name__}: {error}).")
    # The CT last: it is what says that a patient is prepared, so a run that stops half-way starts this one again.
    try:
        for name in sorted(set(images) - {"__CT"}):
            write_nifti(out / ("imagesTr" if name else "labelsTr") / f"{code}{name}.nii.gz", *images[name])
        write_nifti(out / "imagesTr" / f"{code}__CT.nii.gz", *images["__CT"])
    except OSError as error:
        raise DataError(
            f"{out} cannot be written ({error.strerror}); free space or name another folder with --out, then start "
            "again: patients that are done are kept."
        ) from error
    return row


def _convert(examination: Examination, row: Row, how: How) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """File-name suffix -> voxels and affine (RAS) of every image of a case; fills in the row."""
    from client.dicom.results.origin import images_of
    from client.dicom.suv import suv_of
    from client.dicom.volume import read_slices, to_ras

    ct, pet = read_slices(examination.ct.files, role="CT"), None
    row.ct_mm = _millimeters(ct.spacing)
    if examination.pet is not None:
        pet = read_slices(examination.pet.files, role="PET")
        suv = suv_of(pet.headers)
        row.pet_mm, row.suv_factor, row.suv_reference = _millimeters(pet.spacing), f"{suv.factor:.6g}", suv.reference
    else:
        row.why = "no PET"
    images = {SUFFIX[modality]: image for modality, image in images_of(ct, pet).items()}
    row.why = _joined(row.why, *_left_out(examination))
    label = _label(examination, ct, pet, row, how)
    if label is not None:
        images[""] = (label, to_ras(ct.affine))
    return images


def _left_out(examination: Examination) -> list[str]:
    notes = []
    if examination.left_out:
        notes.append(f"{examination.left_out} RTSTRUCT of another CT left out")
    for role, series in (("CT", examination.ct), ("PET", examination.pet)):
        if series is not None and series.left_out:
            notes.append(f"{series.left_out} images of the {role} series are localizers or pages and were left out")
    return notes


def _label(examination: Examination, ct: DicomVolume, pet: DicomVolume | None, row: Row, how: How) -> np.ndarray | None:
    """The label on the CT's grid, and in the row what became of every region; None where there is none to trust."""
    import numpy as np

    from client.dicom.structures import draw, on_grid

    if examination.structures is None:
        return None
    drawn_on = pet if examination.drawn_on_pet and pet is not None else ct
    drawn = draw(examination.structures.files, drawn_on, names=how.names, edges=how.edges)
    label = drawn.label if drawn_on is ct else on_grid(drawn.label, drawn_on, ct)
    milliliters = np.bincount(label.ravel(), minlength=3) * np.prod(ct.spacing) / 1000
    row.regions = "; ".join(f"{s}: {', '.join(r)}" for s, r in sorted(drawn.used.items()))
    row.regions_left_out = "; ".join(drawn.unused)
    row.why = _joined(row.why, *drawn.notes)
    if drawn_on is not ct:
        row.why = _joined(row.why, "the structures were drawn on the PET and brought to the CT by nearest neighbor")
    if drawn.failed:
        row.why = _joined(row.why, f"a region of {' and '.join(drawn.failed)} holds no voxel: no label was made")
        return None
    if not drawn.used:
        row.why = _joined(row.why, "no region has a name of GTVp or GTVn: no label was made")
        return None
    row.gtvp_ml, row.gtvn_ml = f"{milliliters[1]:.2f}", f"{milliliters[2]:.2f}"
    return label


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

    before = _lines_before(path)
    lines = before | {row.case: asdict(row) for row in rows if row.status != "kept" or row.case not in before}
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(Row)], extrasaction="ignore")
    writer.writeheader()
    writer.writerows(lines[case] for case in sorted(lines))
    write_bytes(path, text.getvalue().encode())


def _lines_before(path: Path) -> dict[str, dict[str, str]]:
    """What earlier runs wrote, by case; a spreadsheet may have saved it with other separators since. One that cannot be
    read is put aside under another name, and the table is begun anew."""
    from client.data.hecktor.reading import read_rows
    from common.errors import DataError

    if not path.exists():
        return {}
    try:
        table = read_rows(path)
        if table.ragged:
            raise ValueError("rows with another number of cells")
        place = table.header.index(CASE)
    except (DataError, ValueError):
        aside = path.with_name(f"{path.name}.unreadable")
        path.replace(aside)
        print(f"{path} could not be read; it is kept as {aside.name}, and the table begins anew.")
        return {}
    return {row[place]: dict(zip(table.header, row, strict=True)) for row in table.rows}


def copy_table(path: Path, codes: Mapping[str, str], out: Path) -> str:
    """Copy a clinical table with codes in place of hospital numbers, every cell as it is written; a sentence about it.
    Rows of patients whom only an earlier export's table of this name had stay.

    Args:
        codes: of every patient who has one, not of this export alone.

    Raises:
        DataError: the table cannot be read or has no column PatientID, or has other columns than those rows.
    """
    from client.data.hecktor.reading import read_rows
    from common.errors import DataError
    from common.files import write_bytes

    table = read_rows(path)
    if table.header.count("PatientID") != 1:
        raise DataError(
            f"The table '{path}' has {table.header.count('PatientID')} columns 'PatientID' with the hospital's numbers "
            f"instead of one; its columns are {', '.join(table.header)}."
        )
    at = table.header.index("PatientID")
    coded = [[*row[:at], codes.get(row[at].strip(), ""), *row[at + 1 :]] for row in table.rows]
    target = out / f"{path.stem}.csv"
    kept = [row for row in coded if row[at]]
    earlier = _earlier_rows(target, table.header, at, {*codes.values()} - {row[at] for row in kept})
    text = io.StringIO()
    rows = sorted([*kept, *earlier], key=lambda row: row[at])
    csv.writer(text, lineterminator="\n").writerows([table.header, *rows])
    write_bytes(target, text.getvalue().encode())
    skipped = f", {table.ragged} with another number of cells than the header" if table.ragged else ""
    said = f"{target}: {len(kept)} rows with codes; {len(coded) - len(kept)} of patients without one left out{skipped}"
    return said + (f"; {len(earlier)} of an earlier table kept" if earlier else "")


def _earlier_rows(target: Path, header: Sequence[str], at: int, absent: set[str]) -> list[list[str]]:
    """Rows of an earlier copy of patients whom the new table does not have."""
    from client.data.hecktor.reading import read_rows
    from common.errors import DataError

    if not target.exists():
        return []
    before = read_rows(target)
    if before.ragged:
        raise DataError(
            f"'{target}' has {before.ragged} rows with another number of cells than its header; correct them, or give "
            "the new table another name, so that nobody's row is lost."
        )
    if "PatientID" not in before.header:
        return []
    place = before.header.index("PatientID")
    rows = [row for row in before.rows if row[place] in absent]
    if rows and before.header != list(header):
        raise DataError(
            f"'{target}' holds {len(rows)} patients whom the new table lacks, in other columns; give the new table "
            "another name, or one with all patients, so that nobody's row is lost."
        )
    return rows


def _check_targets(tables: Sequence[Path]) -> None:
    """Raises ConfigError where two tables would be copied to one file: the second would replace the first."""
    from common.errors import ConfigError

    stems = [f"{table.stem}.csv" for table in tables]
    double = sorted({stem for stem in stems if stems.count(stem) > 1} | ({TABLE} & set(stems)))
    if double:
        raise ConfigError(
            f"Two tables would be written as '{double[0]}'; rename one of them, so that none replaces the other."
        )


def _copy_or_say(path: Path, codes: Mapping[str, str], out: Path) -> bool:
    """Copy a table and print what was done, or print why not: the others are copied all the same."""
    from common.errors import DataError

    try:
        print(copy_table(path, codes, out))
    except DataError as error:
        print(f"refused: {error}")
        return False
    return True


def _codes(vault: Path, center: str, patients: Mapping[str, list[Series]]) -> dict[str, str]:
    from client.commands.codes import codes_for

    return codes_for(vault, center, patients)


def _known_codes(vault: Path) -> dict[str, str]:
    from client.commands.codes import known_codes

    return known_codes(vault)


def _names(path: Path | None) -> Mapping[str, Sequence[str]]:
    from client.dicom.names import LABELS, NAMES
    from common.errors import ConfigError

    if path is None:
        return NAMES
    import yaml

    from common.text_yaml import load_text

    try:
        names = load_text(path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
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
