"""Patients without their images: tumor traits, clinical record and survival. Separate from drawing, so that a whole
cohort's records take milliseconds.

Every constant below was fixed before any model was judged on the cohort.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from common.metrics import concordance_index, harrell_counts
from simulations.phantom.centers import CENTERS, CenterSpec, center_sizes

# ---- tumors (real medians and rates; upper ends cut so that a lesion fits the drawn neck)
GTVP_ABSENT, GTVN_ABSENT = 0.03, 0.115  # real: 508 and 464 of 524 present
GTVP_ML = (8.2, 0.85, 1.5, 50.0)  # median, sd of the log, smallest, largest; 1.5 ml is 14 mm wide, 4-5 voxels of 3 mm
GTVN_ML = (13.4, 0.95, 1.5, 60.0)
NECROSIS = (0.12, 0.18, 0.5)  # mean, sd, largest share of the volume: about a quarter of the tumors have none
SUV_PEAK = (9.0, 0.35, 3.5, 22.0)  # median, sd of the log, smallest, largest

# ---- records (real marginals of the 524 patients)
MALE = 0.82
AGE = (61.0, 10.0, 32.0, 90.0)  # mean, sd, youngest, oldest
WEIGHT_KG = (80.0, 0.21, 34.0, 195.0)  # median, sd of the log, range
TOBACCO, ALCOHOL, SURGERY, CHEMOTHERAPY = 0.49, 0.615, 0.167, 0.872
PERFORMANCE = (0.374, 0.564, 0.045, 0.012, 0.005)  # Zubrod 0-4: 91, 137, 15 of those known

# ---- hazard: image and record weigh about the same, and more than in real patients, so that 100 patients can show it
PER_SD_LOG_VOLUME, PER_SD_NECROSIS = 0.80, 0.60
PER_DECADE, HPV_POSITIVE, PER_PERFORMANCE, SMOKER = 0.70, -0.90, 0.35, 0.40
LOG_VOLUME = (3.05, 0.78)  # mean and sd of log(total ml), so that the image component is centered
NECROSIS_MOMENTS = (0.15, 0.14)
RECORD_CENTER = -0.27  # mean of the uncentered record component
# ---- time
WEIBULL_SHAPE = 0.9  # relapses come early
WEIBULL_SCALE_DAYS = 10000.0  # sets about 21 % relapses under the follow-up below
FOLLOW_UP_DAYS = (200.0, 2200.0)  # administrative censoring, uniform

CLINICAL_COLUMNS = (
    "PatientID", "Task 1", "Task 2", "CenterID", "Gender", "Age", "Weight", "Tobacco", "Alcohol",
    "Performance status", "HPV status (0=-, 1=+)", "Surgery", "Chemotherapy",
)  # fmt: skip
ENDPOINT_COLUMNS = ("PatientID", "Relapse", "RFS")
HPV_COLUMN = "HPV status (0=-, 1=+)"


@dataclass(frozen=True)
class Tumor:
    """What the images show and the hazard depends on. Volumes in ml; 0 is an absent structure."""

    gtvp_ml: float
    gtvn_ml: float
    necrosis: float
    suv_peak: float


@dataclass(frozen=True)
class Patient:
    """One synthetic patient: truth first, then what the tables will say.

    Args:
        seed: entropy of this patient's image generator.
        record: column -> true value, also where the center never writes it down.
        missing: columns that the center leaves empty.
        image_hazard, record_hazard, center_hazard: the log hazard's components.
        days, relapse: follow-up and event. has_rfs: whether the endpoint table has a row.
    """

    name: str
    center: CenterSpec
    seed: tuple[int, ...]
    tumor: Tumor
    record: dict[str, int | str]
    missing: frozenset[str]
    image_hazard: float
    record_hazard: float
    center_hazard: float
    days: int
    relapse: int
    has_rfs: bool

    @property
    def log_hazard(self) -> float:
        return self.image_hazard + self.record_hazard + self.center_hazard


def draw_patients(*, scale: float, seed: int) -> list[Patient]:
    """All patients of a cohort, center by center; a patient depends on (seed, center, number) alone."""
    patients = []
    for spec in CENTERS:
        count = center_sizes(scale)[spec.code]
        missing = _missing_columns(spec, count, seed)
        with_rfs = _subset(spec, count, spec.with_rfs, rng=_center_rng(spec, seed, 1))
        for number in range(1, count + 1):
            patients.append(
                _draw_patient(spec, number, seed, missing=missing[number - 1], has_rfs=number - 1 in with_rfs)
            )
    return patients


def _center_rng(spec: CenterSpec, seed: int, stream: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence((seed, spec.number, 0, stream)))  # patient numbers start at 1


def _subset(spec: CenterSpec, count: int, real: int, *, rng: np.random.Generator) -> set[int]:
    """Which of `count` patients have something that `real` of the center's real patients have."""
    return set(rng.permutation(count)[: round(count * real / spec.patients)].tolist())


def _missing_columns(spec: CenterSpec, count: int, seed: int) -> list[frozenset[str]]:
    rng = _center_rng(spec, seed, 2)
    lacking = {column: _subset(spec, count, real, rng=rng) for column, real in sorted(spec.missing.items())}
    return [frozenset(column for column, who in lacking.items() if patient in who) for patient in range(count)]


def _draw_patient(spec: CenterSpec, number: int, seed: int, *, missing: frozenset[str], has_rfs: bool) -> Patient:
    rng = np.random.default_rng(np.random.SeedSequence((seed, spec.number, number, 0)))
    tumor = draw_tumor(rng)
    record = _draw_record(rng, spec)
    image, from_record = image_hazard(tumor), record_hazard(record)
    days, relapse = draw_survival(rng, image + from_record + spec.hazard)
    return Patient(
        name=f"{spec.code}-{number:03d}",
        center=spec,
        seed=(seed, spec.number, number, 1),
        tumor=tumor,
        record=record,
        missing=missing,
        image_hazard=image,
        record_hazard=from_record,
        center_hazard=spec.hazard,
        days=days,
        relapse=relapse,
        has_rfs=has_rfs,
    )


def _lognormal(rng: np.random.Generator, spec: tuple[float, float, float, float]) -> float:
    median, sd, low, high = spec
    return float(np.clip(median * np.exp(sd * rng.standard_normal()), low, high))


def draw_tumor(rng: np.random.Generator) -> Tumor:
    """Volumes, necrosis and uptake; never both structures absent."""
    gtvp, gtvn = _lognormal(rng, GTVP_ML), _lognormal(rng, GTVN_ML)
    which, mean_necrosis = rng.random(), rng.normal(NECROSIS[0], NECROSIS[1])
    if which < GTVP_ABSENT:
        gtvp = 0.0
    elif which < GTVP_ABSENT + GTVN_ABSENT:
        gtvn = 0.0
    return Tumor(gtvp, gtvn, float(np.clip(mean_necrosis, 0.0, NECROSIS[2])), _lognormal(rng, SUV_PEAK))


def _draw_record(rng: np.random.Generator, spec: CenterSpec) -> dict[str, int | str]:
    male = bool(rng.random() < MALE)
    weight = _lognormal(rng, WEIGHT_KG) * (1.03 if male else 0.87)
    yes = rng.random(5)
    return {
        "Gender": "M" if male else "F",
        "Age": int(np.clip(round(rng.normal(AGE[0], AGE[1])), AGE[2], AGE[3])),
        "Weight": int(np.clip(round(weight), WEIGHT_KG[2], WEIGHT_KG[3])),
        "Tobacco": int(yes[0] < TOBACCO),
        "Alcohol": int(yes[1] < ALCOHOL),
        "Performance status": int(rng.choice(len(PERFORMANCE), p=PERFORMANCE)),
        "HPV status": int(yes[2] < spec.hpv_positive),
        "Surgery": int(yes[3] < SURGERY),
        "Chemotherapy": int(yes[4] < CHEMOTHERAPY),
    }


def image_hazard(tumor: Tumor) -> float:
    """Log hazard that only the images tell: total tumor volume and its necrotic share."""
    volume = (math.log(tumor.gtvp_ml + tumor.gtvn_ml) - LOG_VOLUME[0]) / LOG_VOLUME[1]
    necrosis = (tumor.necrosis - NECROSIS_MOMENTS[0]) / NECROSIS_MOMENTS[1]
    return PER_SD_LOG_VOLUME * volume + PER_SD_NECROSIS * necrosis


def record_hazard(record: dict[str, int | str]) -> float:
    """Log hazard that only the record tells, from true values, recorded or not."""
    return (
        PER_DECADE * (int(record["Age"]) - AGE[0]) / 10
        + HPV_POSITIVE * int(record["HPV status"])
        + PER_PERFORMANCE * int(record["Performance status"])
        + SMOKER * int(record["Tobacco"])
        - RECORD_CENTER
    )


def draw_survival(rng: np.random.Generator, log_hazard: float) -> tuple[int, int]:
    """(days, relapse): Weibull proportional hazards cut at a uniform follow-up."""
    days = WEIBULL_SCALE_DAYS * (rng.exponential() * math.exp(-log_hazard)) ** (1 / WEIBULL_SHAPE)
    follow_up = rng.uniform(*FOLLOW_UP_DAYS)
    return max(1, round(min(days, follow_up))), int(days <= follow_up)


# ------------------------------------------------------------------------------------------------------------ tables


def clinical_table(patients: list[Patient]) -> pd.DataFrame:
    """hecktor2022_clinical_info_training.csv: whole numbers, empty where missing."""
    rows = []
    for patient in patients:
        known = {k: v for k, v in patient.record.items() if k not in patient.missing}
        rows.append(
            {
                "PatientID": patient.name,
                "Task 1": 1,
                "Task 2": int(patient.has_rfs),
                "CenterID": patient.center.number,
                **{(HPV_COLUMN if k == "HPV status" else k): v for k, v in known.items()},
            }
        )
    table = pd.DataFrame(rows, columns=list(CLINICAL_COLUMNS))
    return table.astype({c: "Int64" for c in CLINICAL_COLUMNS if c not in ("PatientID", "Gender")})


def endpoint_table(patients: list[Patient]) -> pd.DataFrame:
    """hecktor2022_endpoint_training.csv: only patients with a relapse endpoint."""
    rows = [(p.name, p.relapse, p.days) for p in patients if p.has_rfs]
    return pd.DataFrame(rows, columns=list(ENDPOINT_COLUMNS))


def truth_table(patients: list[Patient]) -> pd.DataFrame:
    """truth.csv: what no reader may see."""
    return pd.DataFrame(
        {
            "PatientID": [p.name for p in patients],
            "log_hazard": [round(p.log_hazard, 6) for p in patients],
            "image": [round(p.image_hazard, 6) for p in patients],
            "record": [round(p.record_hazard, 6) for p in patients],
            "center": [p.center_hazard for p in patients],
            "gtvp_ml": [round(p.tumor.gtvp_ml, 3) for p in patients],
            "gtvn_ml": [round(p.tumor.gtvn_ml, 3) for p in patients],
            "necrosis": [round(p.tumor.necrosis, 3) for p in patients],
            "relapse": [p.relapse for p in patients],
            "days": [p.days for p in patients],
        }
    )


def harrell(patients: list[Patient], component: str = "log_hazard") -> float:
    """Harrell's C of a true hazard component against the generated outcome, among patients with an endpoint."""
    known = [p for p in patients if p.has_rfs]
    time, event, risk = (np.array(column, np.float64) for column in zip(
        *((p.days, p.relapse, getattr(p, component)) for p in known), strict=True))  # fmt: skip
    found = concordance_index(*harrell_counts(time, event, risk))
    return float("nan") if found is None else found
