"""make_cohort: the synthetic HECKTOR and chest cohorts on disk, in the layouts that the real readers read, with a card.

The card says what is synthetic and gives the ceiling. Parameters are fixed before any model is judged on the cohort.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common.data.findings import FINDINGS
from common.errors import DataError
from simulations.phantom import anatomy, centers, hecktor, lesions, records, reports
from simulations.phantom import chest as chest_module
from simulations.phantom.centers import CENTERS, CenterSpec, center_sizes
from simulations.phantom.chest import CHEST_GRID, NOT_DRAWN, VISIBLE, ChestCase, chest_case
from simulations.phantom.hecktor import HeadNeckCase, draw_case
from simulations.phantom.records import Patient, clinical_table, draw_patients, endpoint_table, harrell, truth_table
from simulations.phantom.reports import split_report
from simulations.phantom.shapes import Grid

CHEST_STREAM = 100  # stands where a center's number stands in the seed, so chests never share a center's numbers
CHESTS_AT_FULL_SCALE = 200
PATIENTS_PER_WORKER = 30  # a process that draws costs two seconds to start
CEILING_COPIES = 10  # the expected ceiling is taken over this many full-size cohorts of records, from other seeds
NOT_PARAMETERS = (
    "FINDINGS",
    "DRAW",
    "PHRASES",
    "NODE",
    "PRIMARY",
    "BRAIN_LABEL",
    "NODE_LABEL",
    "PAROTID_LABEL",
    "THYROID_LABEL",
)  # names and tables, not choices
Progress = Callable[[int, int], None]
LAYOUT = f"""# The phantom's masks with organs: six structures.
image: {{CT: "imagesTr/{{case}}__CT.nii.gz", PET: "imagesTr/{{case}}__PT.nii.gz"}}
label: "labelsTr/{{case}}.nii.gz"
structures:
  {{GTVp: {lesions.PRIMARY}, GTVn: {lesions.NODE}, brain: {anatomy.BRAIN_LABEL}, benign_node: {anatomy.NODE_LABEL},
   parotid: {anatomy.PAROTID_LABEL}, thyroid: {anatomy.THYROID_LABEL}}}
center: {{pattern: "([A-Z]+)-.*"}}
"""


@dataclass(frozen=True)
class CohortCard:
    """What a cohort on disk is.

    Args:
        generator: digest of the phantom's source files; another generator makes another cohort.
        scale, seed, chest: the parameters.
        patients, relapses, with_rfs: per center, and relapses and endpoint rows in all.
        ceiling: Harrell's C of the true log hazard in this cohort; `ceiling_image`, `ceiling_record` of its components.
        ceiling_expected: the same over many full-size cohorts, as a small cohort's own figure is noisy.
        visible_findings, invisible_findings: chest findings that are drawn, and those only named in the report.
        constants: "file.NAME" -> value of every constant of the generator.
        organs: whether masks also hold the brain, benign nodes, the parotid glands and the thyroid.
    """

    generator: str
    scale: float
    seed: int
    chest: int
    patients: dict[str, int]
    with_rfs: int
    relapses: int
    ceiling: float
    ceiling_image: float
    ceiling_record: float
    ceiling_expected: float
    visible_findings: tuple[str, ...]
    invisible_findings: tuple[str, ...]
    constants: dict[str, Any]
    organs: bool = False

    @classmethod
    def read(cls, path: Path) -> CohortCard:
        """The card in that file, equal to the one that was written."""
        fields = json.loads(path.read_text())
        for name in ("visible_findings", "invisible_findings"):
            fields[name] = tuple(fields[name])
        return cls(**fields)

    def write(self, path: Path) -> None:
        """As JSON, one field a line."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")


def make_cohort(
    out: Path,
    *,
    scale: float = 0.2,
    seed: int = 11,
    chest: int | None = None,
    organs: bool = False,
    progress: Progress | None = None,
) -> CohortCard:
    """Write a cohort, unless the same one is already there.

    Args:
        out: gets hecktor/, chest/, truth.csv, card.json and README.md. An older phantom there is replaced.
        scale: share of HECKTOR's 524 patients; every center keeps at least three.
        chest: number of chest cases; None is 200 times the scale.
        organs: masks also hold brain (3), benign nodes (4), parotids (5) and thyroid (6), all in a layout.yaml;
            same images.
        progress: called with (cases done, cases in all).

    Raises:
        DataError: `out` holds something that is not a phantom cohort.
    """
    if seed < 0 or (chest is not None and chest < 0):
        raise DataError(f"Seed {seed} and {chest} chest cases cannot be used: both must be whole numbers from 0 up.")
    if scale <= 0:
        raise DataError(f"A cohort of scale {scale} has no patients. Give a scale above 0; 0.2 makes about 105.")
    chest = max(1, round(CHESTS_AT_FULL_SCALE * scale)) if chest is None else chest
    card_path = out / "card.json"
    if is_drawn(out, scale=scale, seed=seed, chest=chest, organs=organs):
        return CohortCard.read(card_path)
    if not card_path.exists() and out.exists() and any(out.iterdir()):
        raise DataError(f"The folder '{out}' is not empty and holds no phantom (no card.json). Name another folder.")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        card = _write(
            work, scale=scale, seed=seed, chest=chest, organs=organs, progress=progress or (lambda done, total: None)
        )
        _replace(out, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return card


def is_drawn(out: Path, *, scale: float, seed: int, chest: int | None = None, organs: bool = False) -> bool:
    """Whether `make_cohort` with these arguments would find its cohort there and write nothing."""
    chest = max(1, round(CHESTS_AT_FULL_SCALE * scale)) if chest is None else chest
    wanted = {"generator": generator_digest(), "scale": scale, "seed": seed, "chest": chest}
    card = out / "card.json"
    if not card.exists():
        return False
    found = json.loads(card.read_text())
    return all(found.get(name) == value for name, value in wanted.items()) and found.get("organs", False) == organs


def _replace(out: Path, work: Path) -> None:
    """Put the finished folder in place; at no time is a half-written cohort under the final name."""
    work.chmod(0o755)
    if out.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{out.name}-old-", dir=out.parent))
        out.replace(old)
        work.replace(out)
        shutil.rmtree(old)
    else:
        work.replace(out)


def generator_digest() -> str:
    """Twelve hex digits over the phantom's source files."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _write(folder: Path, *, scale: float, seed: int, chest: int, organs: bool, progress: Progress) -> CohortCard:
    patients = draw_patients(scale=scale, seed=seed)
    total = len(patients) + chest
    write_records(folder, patients)
    if organs:
        (folder / "hecktor" / "layout.yaml").write_text(LAYOUT)
    for done, _ in enumerate(_drawn(folder / "hecktor", patients, organs=organs), start=1):
        progress(done, total)
    write_chests(folder / "chest", count=chest, seed=seed, tick=lambda done: progress(len(patients) + done, total))
    card = replace(_card(patients, scale=scale, seed=seed, chest=chest), organs=organs)
    (folder / "README.md").write_text(_readme(card))
    card.write(folder / "card.json")
    return card


def _drawn(folder: Path, patients: list[Patient], *, organs: bool) -> Iterator[str]:
    """Draw and store every patient, on all cores where there are many; a case depends on its own seed only."""
    workers = min(len(os.sched_getaffinity(0)), len(patients) // PATIENTS_PER_WORKER)
    if workers < 2:
        yield from (_draw_patient(folder, patient, organs) for patient in patients)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_draw_patient, repeat(folder), patients, repeat(organs), chunksize=4)


def _draw_patient(folder: Path, patient: Patient, organs: bool) -> str:
    write_case(folder, patient.name, draw_case(patient, organs_too=True) if organs else draw_case(patient))
    return patient.name


def write_records(folder: Path, patients: list[Patient]) -> None:
    """The two clinical tables in hecktor/, and the truth beside it where no reader looks."""
    tables = folder / "hecktor"
    tables.mkdir(parents=True, exist_ok=True)
    clinical_table(patients).to_csv(tables / "hecktor2022_clinical_info_training.csv", index=False)
    endpoint_table(patients).to_csv(tables / "hecktor2022_endpoint_training.csv", index=False)
    truth_table(patients).to_csv(folder / "truth.csv", index=False)


def write_case(folder: Path, name: str, case: HeadNeckCase) -> None:
    """CT, PET and mask of one case in the 2022 layout."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    save_nifti(folder / "imagesTr" / f"{name}__CT.nii.gz", case.ct, case.ct_grid)
    save_nifti(folder / "imagesTr" / f"{name}__PT.nii.gz", case.pet, case.pet_grid)
    save_nifti(folder / "labelsTr" / f"{name}.nii.gz", case.mask, case.ct_grid)


def save_nifti(path: Path, volume: NDArray, grid: Grid) -> None:
    """Store (x, y, z) RAS data the way DICOM converters do: x and y reversed, which the affine says."""
    affine = np.diag((-grid.spacing_mm[0], -grid.spacing_mm[1], grid.spacing_mm[2], 1.0))
    last = [o + s * (n - 1) for o, s, n in zip(grid.origin_mm, grid.spacing_mm, grid.size, strict=True)]
    affine[:3, 3] = last[0], last[1], grid.origin_mm[2]
    image = nib.Nifti1Image(np.ascontiguousarray(volume[::-1, ::-1]), affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


# ------------------------------------------------------------------------------------------------------------ chest


def draw_chest(seed: int, number: int) -> ChestCase:
    """The cohort's chest case with this number (1, 2, ...)."""
    return chest_case(np.random.default_rng(np.random.SeedSequence((seed, CHEST_STREAM, number))))


def write_chests(folder: Path, *, count: int, seed: int, tick: Callable[[int], None]) -> None:
    """Chest volumes 1 to `count`, their labels and reports; `tick` is called with the number done."""
    (folder / "imagesTr").mkdir(parents=True)
    labels, texts = [], []
    for number in range(1, count + 1):
        case, volume_name = draw_chest(seed, number), f"CHEST-{number:04d}__CT.nii.gz"
        save_nifti(folder / "imagesTr" / volume_name, np.rint(case.hu).astype(np.int16).transpose(2, 1, 0), CHEST_GRID)
        labels.append((volume_name, *case.findings.tolist()))
        texts.append((volume_name, *split_report(case.report)))
        tick(number)
    pd.DataFrame(labels, columns=["VolumeName", *FINDINGS]).to_csv(folder / "chest_labels.csv", index=False)
    columns = ["VolumeName", "Findings_EN", "Impressions_EN"]
    pd.DataFrame(texts, columns=columns).to_csv(folder / "chest_reports.csv", index=False)


# ------------------------------------------------------------------------------------------------------------- card


def _card(patients: list[Patient], *, scale: float, seed: int, chest: int) -> CohortCard:
    many = [p for copy in range(CEILING_COPIES) for p in draw_patients(scale=1.0, seed=1_000_000 + copy)]
    known = [p for p in patients if p.has_rfs]
    return CohortCard(
        generator=generator_digest(),
        scale=scale,
        seed=seed,
        chest=chest,
        patients=center_sizes(scale),
        with_rfs=len(known),
        relapses=sum(p.relapse for p in known),
        ceiling=round(harrell(patients), 4),
        ceiling_image=round(harrell(patients, "image_hazard"), 4),
        ceiling_record=round(harrell(patients, "record_hazard"), 4),
        ceiling_expected=round(harrell(many), 4),
        visible_findings=VISIBLE,
        invisible_findings=NOT_DRAWN,
        constants=_constants(),
    )


def _constants() -> dict[str, Any]:
    """The generator's constants as JSON gives them back, so that a card read equals the card written."""
    found = {}
    for module in (centers, records, anatomy, lesions, hecktor, chest_module, reports):
        for name, value in vars(module).items():
            if name.isupper() and name not in NOT_PARAMETERS:
                found[f"{module.__name__.rsplit('.', 1)[-1]}.{name}"] = value
    as_json: dict[str, Any] = json.loads(json.dumps(found, default=_plain))
    return as_json


def _plain(value: Any) -> Any:
    return asdict(value) if isinstance(value, CenterSpec | Grid) else np.asarray(value).tolist()


def _readme(card: CohortCard) -> str:
    sizes = "\n".join(f"| {spec.code} | {card.patients[spec.code]} |" for spec in CENTERS)
    return f"""# A synthetic cohort: nothing here comes from a patient

Generator {card.generator}, scale {card.scale}, seed {card.seed}, {card.chest} chest cases. Images are ellipsoids, waves
and noise; records and outcomes are drawn from the published marginals of HECKTOR 2022. Use it to check software and to
compare methods with each other, never to say anything about patients.

| center | patients |
|---|--:|
{sizes}

- `hecktor/`: 2022 layout. CT (HU), PET (SUV) on their own grids, masks (1 GTVp, 2 GTVn) on the CT grid, two tables with
  each center's own missing columns. {card.relapses} of {card.with_rfs} patients with an endpoint relapse.
- `chest/`: volumes with CT-CLIP's 18 findings and a report each. Drawn: {", ".join(card.visible_findings)}. Named in
  labels and report but never drawn, as a control: {", ".join(card.invisible_findings)}.
- `truth.csv`: the true log hazard, its image, record and center components, and the outcome of every patient. Not for
  readers or models.

Ceiling (Harrell's C of the true log hazard): {card.ceiling:.3f} in this cohort, {card.ceiling_expected:.3f} expected;
image component alone {card.ceiling_image:.3f}, record component alone {card.ceiling_record:.3f}.

What is unlike real data: volumes are coarsened, whole-body fields shortened to 500 mm, the largest tumors left out, and
the hazard is stronger than in real patients so that about a hundred patients can show it.
"""
