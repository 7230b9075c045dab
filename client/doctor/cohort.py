"""What only all cases together show: layout, tables, duplicates, counts, and records that know the outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from client.center.config import CenterConfig
from client.data.case import Case
from client.data.folders import files_below
from client.data.hecktor.reading import TEXT, read_rows
from client.data.layouts import layout_kind, summary, survey
from client.doctor.finding import ERROR, NOTE, WARNING, Finding, from_sentence
from client.doctor.images import Examined
from client.privacy.record import waiting_at
from client.vault.vault import VaultError
from common.data.batch import PET, volumes_of
from common.errors import DataError

EDITIONS = {
    "2021": ("hecktor_nii", lambda path: path.parent.name == "hecktor_nii"),
    "2022": (
        "imagesTr and labelsTr",
        lambda path: path.parent.name in ("imagesTr", "imagesTs", "labelsTr", "labelsTs"),
    ),
    "2025": ("Task N/<patient>", lambda path: path.parent.parent.name.startswith("Task ")),
    "2026": ("<patient>", lambda path: path.name.startswith(path.parent.name)),
}
OUTCOME_WORDS = ("relapse", "recurrence", "progression", "rfs", "pfs")
FEW = 5  # events and others, below which nothing is said about leakage
SEPARATES = 0.95  # AUROC
MONTHS_BELOW, POUNDS_ABOVE = 150.0, 130.0  # days of the longest follow-up; median weight


def check_layout(config: CenterConfig, cases: Sequence[Case]) -> Iterator[Finding]:
    """Files that no case uses, and files outside the stated edition's folders; of other layouts what was found."""
    root = Path(config.root)
    if layout_kind(root, config.layout) != "hecktor":
        yield Finding(NOTE, "folder", summary(layout_kind(root, config.layout), cases).said + ".")
        yield from _unmatched(config, root)
        return
    used = {path for case in cases for path in (*case.images.values(), case.label) if path is not None}
    own = [path for path in _images(root) if path.name.upper().startswith(config.code)]
    yield from _strays(
        [path for path in own if path not in used],
        root,
        "of this center belong to no case: no CT beside them, or an unknown name.",
        "Name them as in CHUM-001__CT.nii.gz, CHUM-001__PT.nii.gz and CHUM-001.nii.gz.",
    )
    if config.layout in EDITIONS:
        where, fits = EDITIONS[config.layout]
        elsewhere = [path for path in own if path in used and not fits(path)]
        if elsewhere:
            yield Finding(
                WARNING,
                "folder",
                f"{len(elsewhere)} files lie elsewhere than HECKTOR {config.layout} puts them ({where}).",
                "Move them, or set layout: auto.",
            )


def _unmatched(config: CenterConfig, root: Path) -> Iterator[Finding]:
    """Images that no pattern of a layout takes up, of any center; nnU-Net's test images are none of its cases."""
    cases = survey(root, mapping=config.mapping or None, layout=config.layout).cases
    used = {path for case in cases for path in (*case.images.values(), case.label)}
    stray = [path for path in _images(root) if path not in used and path.parent.name not in ("imagesTs", "labelsTs")]
    yield from _strays(
        stray, root, "belong to no case of the layout.", "Name them as its patterns do, or move them out of the folder."
    )


def _images(root: Path) -> list[Path]:
    return [path for path in files_below(root) if path.name.endswith((".nii", ".nii.gz"))]


def _strays(stray: Sequence[Path], root: Path, what: str, remedy: str) -> Iterator[Finding]:
    if stray:
        names = tuple(str(path.relative_to(root)) for path in stray)
        yield Finding(WARNING, "folder", f"{len(stray)} image files {what}", remedy, names)


def check_duplicates(examined: Sequence[Examined]) -> Iterator[Finding]:
    """The same image under two codes: one patient would train and test; or a label or another image copied so."""
    reference = examined[0].reference if examined else ""
    by_digest: dict[str, list[str]] = {}
    for one in examined:
        if one.digest:
            by_digest.setdefault(one.digest, []).append(one.patient)
    for patients in by_digest.values():
        if len(patients) > 1:
            yield Finding(
                ERROR,
                "cohort",
                f"{len(patients)} patients have the same {reference}, voxel for voxel.",
                "Keep one of them: the others could train what the first one tests.",
                tuple(patients),
            )
    for role in dict.fromkeys(role for one in examined for role in one.others):
        copies: dict[str, list[str]] = {}
        for one in examined:
            if role in one.others:
                copies.setdefault(one.others[role], []).append(one.patient)
        for patients in copies.values():
            if len(patients) > 1 and len({one.digest for one in examined if one.patient in patients}) > 1:
                yield Finding(
                    WARNING,
                    "cohort",
                    f"{len(patients)} patients have the same {role}, voxel for voxel, but different {reference}s.",
                    "One of the files was copied to the wrong patient: export it again.",
                    tuple(patients),
                )


def check_records(config: CenterConfig, cases: Sequence[Case]) -> Iterator[Finding]:
    """Outcomes that were not read, units that do not fit, fields that know the outcome, what is missing."""
    outcomes = [case for case in cases if case.event is not None]
    columns = outcome_columns(Path(config.root))
    if columns and not outcomes:
        yield Finding(
            WARNING,
            "records",
            f"A table has the column '{columns[0]}', but no outcome was read.",
            "Name the table's columns as one HECKTOR edition does: no two editions in one table.",
        )
    longest = max((case.days for case in outcomes if case.days is not None), default=None)
    if longest is not None and len(outcomes) >= FEW and longest < MONTHS_BELOW:
        yield Finding(
            WARNING,
            "records",
            f"The longest follow-up is {longest:g} days.",
            "If these are months, enter days (times 30.4).",
        )
    weights = [float(case.record["weight_kg"]) for case in cases if "weight_kg" in case.record]
    if weights and float(np.median(weights)) > POUNDS_ABOVE:
        yield Finding(
            WARNING,
            "records",
            f"The median body weight is {np.median(weights):g} kg.",
            "If these are pounds, enter kilograms (times 0.4536).",
        )
    yield from _leakage(outcomes)
    yield from _missing(cases)


def outcome_columns(root: Path) -> list[str]:
    """Columns of the tables below ``root`` that are named like an outcome."""
    found = []
    for path in files_below(root):
        try:
            names = read_rows(path).header if path.suffix.lower() in TEXT else []
        except DataError:
            continue  # an unreadable table is a finding of its own
        if any(str(name).strip().lower() == "patientid" for name in names):
            found += [str(name) for name in names if str(name).strip().lower() in OUTCOME_WORDS]
    return found


def _leakage(outcomes: Sequence[Case]) -> Iterator[Finding]:
    """Fields whose value, or whose being recorded, tells who relapses."""
    event = np.array([case.event for case in outcomes], dtype=float)
    if min(event.sum(), (1 - event).sum()) < FEW:
        return
    for name in sorted({name for case in outcomes for name in case.record}):
        known = np.array([name in case.record for case in outcomes])
        columns = {"being recorded": (known.astype(float), np.ones(len(known), dtype=bool))}
        columns |= {"value": (_as_numbers(name, outcomes, event), known)}
        for what, (values, there) in columns.items():
            if min(event[there].sum(), (1 - event[there]).sum()) < FEW:
                continue
            area = auroc(values[there], event[there])
            if max(area, 1 - area) >= SEPARATES:
                yield Finding(
                    WARNING,
                    "records",
                    f"The {what if what == 'value' else 'mere presence'} of '{name}' tells who relapses (AUROC "
                    f"{max(area, 1 - area):.2f}).",
                    "Check that it was recorded before treatment and not because of the outcome; else leave it empty.",
                )


def _as_numbers(name: str, cases: Sequence[Case], event: np.ndarray) -> np.ndarray:
    """A field as numbers; words as the event rate among those who have the same word."""
    values = [case.record.get(name) for case in cases]
    if all(value is None or isinstance(value, (int, float)) for value in values):
        return np.array([0.0 if value is None else float(value) for value in values])
    rate = {value: float(event[[v == value for v in values]].mean()) for value in set(values)}
    return np.array([rate[value] for value in values])


def auroc(values: np.ndarray, event: np.ndarray) -> float:
    """Area under the ROC curve from ranks, ties halved; both classes are present."""
    positives = event.sum()
    ranks = rankdata(values)[event > 0].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * (len(event) - positives)))


def _missing(cases: Sequence[Case]) -> Iterator[Finding]:
    known = Counter(name for case in cases for name in case.record)
    if known:
        shares = ", ".join(f"{name} {count}" for name, count in sorted(known.items()))
        yield Finding(NOTE, "records", f"Recorded clinical fields, of {len(cases)} patients: {shares}.")


def check_counts(config: CenterConfig, cases: Sequence[Case], examined: Sequence[Examined]) -> Iterator[Finding]:
    """How many cases, classes and events there are, and whether they are enough."""
    measured = [one.milliliters for one in examined if one.milliliters is not None]
    seen = volumes_of((PET, *(name for case in cases for name in case.images)))
    others = [name for name in seen if cases and name != cases[0].reference]
    structures = dict.fromkeys(["GTVp", "GTVn"] if not measured else [name for one in measured for name in one])
    counts = {
        "patients": len(cases),
        **{f"with {name}": sum(name in case.images for case in cases) for name in others},
        "with a label": sum(case.label is not None for case in cases),
        **{f"with {name}": sum(one.get(name, 0) > 0 for one in measured) for name in structures},
        "with an outcome": sum(case.event is not None for case in cases),
        "with a relapse": sum(case.event == 1 for case in cases),
        "HPV positive": sum(case.record.get("hpv") == 1 for case in cases),
        "HPV negative": sum(case.record.get("hpv") == 0 for case in cases),
    }
    yield Finding(NOTE, "cohort", ", ".join(f"{count} {name}" for name, count in counts.items()) + ".")
    broken = sum(any(f.severity == ERROR for f in one.findings) for one in examined)
    usable = len(cases) - broken
    if usable < config.policy.minimum_cases:
        yield Finding(
            ERROR,
            "cohort",
            f"{usable} cases can be used, fewer than policy.minimum_cases ({config.policy.minimum_cases}).",
            "Mend the cases above, add patients, or take part in evaluation only.",
        )
    if 0 < counts["with a relapse"] < FEW:
        yield Finding(
            WARNING,
            "cohort",
            f"So few relapses ({counts['with a relapse']}) say nothing about this center's own concordance.",
            "Nothing; its patients still help the federation.",
        )
    lacking = len(measured) >= FEW and not any(one.get("GTVp", 1) for one in measured)
    if lacking and any(one.get("GTVn") for one in measured):
        yield Finding(
            WARNING,
            "labels",
            "No label holds a GTVp (value 1), all hold GTVn.",
            "Check that 1 and 2 are not exchanged.",
        )
    if any(not case.has_grid for case in cases):
        yield Finding(
            NOTE, "cohort", "Some patients stand in a table but have no images; steps on records can use them."
        )


def check_waiting(config: CenterConfig, cases: Sequence[Case], vault: Path) -> Iterator[Finding]:
    """How many newcomers no exact answer was over yet."""
    minimum = config.policy.minimum_cell
    try:
        waiting = waiting_at(vault, cases, minimum=minimum)
    except VaultError as error:
        yield from_sentence(str(error), "privacy")
        return
    if waiting:
        yield Finding(
            NOTE,
            "privacy",
            f"{waiting} new patients train, but wait to be counted in exact sums and scores until {minimum} have come: "
            "two answers must not differ by so few.",
        )
