"""Finding cases: every HECKTOR edition, sts7 and the chest cohort, as one list of `Case`.

Layouts read (FACTS A3): 2021 ``hecktor_nii/CHUV001_ct.nii.gz``; 2022 ``imagesTr/CHUM-001__CT.nii.gz`` with
``labelsTr/CHUM-001.nii.gz`` (or CHUM_001); 2025 ``Task N/CHUM-001/CHUM-001__CT.nii.gz``; 2026
``CHUM-001/CHUM-001__CT.nii.gz``. Only file names and tables are read here; `client.data.images.volumes` opens the
images. Exceptions name cases by count; their IDs go to the logger ``fedgraft.center``, which stays on site.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Mapping
from pathlib import Path

from client.data.case import LABEL, Case
from client.data.folders import files_below
from client.data.hecktor.tables import CENTER_ALIASES, Rows, is_few, patient_id, read_chest, read_tables
from client.data.layouts.layout import Options
from common.data.batch import CT, PET

log = logging.getLogger("fedgraft.center")

OUTCOME = "rfs"  # of the outcomes that a mapping declares
ROLES = {"__CT": CT, "_ct": CT, "__PT": PET, "_pt": PET, "": LABEL, "_gtvt": LABEL}
FOLDERS = ("imagesTr", "imagesTs", "labelsTr", "labelsTs", "hecktor_nii")  # beside folders named after the patient
_NAME = re.compile(r"^([A-Za-z]+[-_]?\d{2,5})(" + "|".join(ROLES) + r")\.nii(?:\.gz)?$")
_TASK = re.compile(r"^Task \d+$")


def read_hecktor(root: Path, center: str | None, options: Options) -> list[Case]:
    """All cases below ``root`` (of one center, if named), sorted by patient; what is wrong goes to the options."""
    wanted = None if center is None else CENTER_ALIASES.get(center, center)
    files = _scan(root)
    rows = read_tables(root, center=wanted, mapping=options.mapping)
    findings, reports, chest = read_chest(root)
    _leave_doubles_out(files, wanted, options)
    options.problems += rows.stopping + chest.problems
    options.odd += chest.odd
    options.notes += chest.notes
    everyone = _patients(files, rows)
    own = sorted(patient for patient, where in everyone.items() if wanted in (None, where))
    if not own:
        options.problems.append(_nobody(root, center, sorted(set(everyone.values()))))
    return [_case(p, everyone[p], files.get(p, {}), rows, findings.get(p), reports.get(p)) for p in own]


Files = dict[str, dict[str, list[Path]]]  # patient -> role -> paths


def _scan(root: Path) -> Files:
    """Every image and label whose name and folder fit a known layout."""
    files: Files = {}
    for path in files_below(root):
        match = _NAME.match(path.name)
        known = match and patient_id(match[1])
        if match and known and _fits(path, root, known[0]):
            files.setdefault(known[0], {}).setdefault(ROLES[match[2]], []).append(path)
    return files


def _fits(path: Path, root: Path, patient: str) -> bool:
    folder = path.parent
    return folder == root or folder.name in FOLDERS or (patient_id(folder.name) or ("",))[0] == patient


def _leave_doubles_out(files: Files, center: str | None, options: Options) -> None:
    """A patient with two files of one kind; the tasks of 2025 may repeat a patient, anything else may not. A few are
    left out; where they are many the folder is no cohort as it stands."""
    double = set()
    for patient, roles in files.items():
        for paths in roles.values():
            tasks = [next((part for part in path.parts if _TASK.match(part)), "") for path in paths]
            if len(set(tasks)) < len(paths) and center in (None, patient.split("-")[0]):
                double.add(patient)
    if not double:
        return
    log.warning("patients with several files of one kind: %s", sorted(double))
    of = sum(center in (None, patient.split("-")[0]) for patient in files)
    few = is_few(len(double), of) and len(double) < of
    left = " and are left out" if few else ""
    (options.odd if few else options.problems).append(
        f"{len(double)} patients have several files of one kind (for instance under two spellings of the ID or in two "
        f"folders){left}; keep one of each."
    )
    for patient in double if few else ():
        del files[patient]


def _patients(files: Files, rows: Rows) -> dict[str, str]:
    """Center by patient: whoever has a CT; in a folder without any CT, whoever stands in a table."""
    imaged = {patient: patient.split("-")[0] for patient, roles in files.items() if CT in roles}
    orphans = len(files) - len(imaged)
    if orphans:
        log.warning("%d patients have a PET or a label but no CT and are left out", orphans)
    return imaged or dict(rows.centers)


def _nobody(root: Path, center: str | None, others: list[str]) -> str:
    if center is None or not others:
        return (
            f"No case was found under '{root}': no file is named as in imagesTr/CHUM-001__CT.nii.gz, "
            "hecktor_nii/CHUV001_ct.nii.gz or CHUM-001/CHUM-001__CT.nii.gz, and there is no dataset.json (nnU-Net), no "
            "CASE/CASE_t1.nii.gz (BraTS) and no layout.yaml either; check data.root."
        )
    close = difflib.get_close_matches(center, others, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"Center '{center}' has no case under '{root}'; centers there: {', '.join(others)}.{hint}"


def _case(
    patient: str,
    center: str,
    files: Mapping[str, list[Path]],
    rows: Rows,
    findings: tuple[int, ...] | None,
    report: str | None,
) -> Case:
    days, event = rows.outcome(patient, OUTCOME) or (None, None)
    return Case(
        patient=patient,
        center=center,
        images={role: files[role][0] for role in (CT, PET) if role in files},
        label=files[LABEL][0] if LABEL in files else None,
        record=dict(rows.fields.get(patient, {})),
        days=days,
        event=event,
        findings=findings,
        report=report,
        untold=tuple(rows.untold.get(OUTCOME, ())),
    )
