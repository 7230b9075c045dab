"""Chest reports: a person, one sentence per finding in varied words, negations, and an impression. Small vocabulary."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

NEGATIONS = (2, 6)  # how many absent findings a report rules out: at least, below
HISTORY_SHARE = 0.35  # share of reports with an oncological history, so that the words of HECKTOR's records are known

# Per finding: how it is said when present, and the noun used to rule it out.
PHRASES: dict[str, tuple[tuple[str, ...], str]] = {
    "Medical material": (("Medical material is seen.", "A catheter or pacemaker is present."), "medical material"),
    "Arterial wall calcification": (
        ("Arterial wall calcification is present.", "Calcification of the aortic wall is seen."),
        "arterial wall calcification",
    ),
    "Cardiomegaly": (("Cardiomegaly is present.", "The heart is enlarged, cardiomegaly."), "cardiomegaly"),
    "Pericardial effusion": (
        ("Pericardial effusion is present.", "There is fluid around the heart, pericardial effusion."),
        "pericardial effusion",
    ),
    "Coronary artery wall calcification": (
        ("Coronary artery wall calcification is present.", "Calcification of the coronary artery wall is seen."),
        "coronary artery wall calcification",
    ),
    "Hiatal hernia": (("Hiatal hernia is present.", "A hiatal hernia is seen."), "hiatal hernia"),
    "Lymphadenopathy": (
        ("Lymphadenopathy is present.", "Enlarged mediastinal lymph nodes are seen, lymphadenopathy."),
        "lymphadenopathy",
    ),
    "Emphysema": (("Emphysema is present.", "Emphysema is seen in both lungs."), "emphysema"),
    "Atelectasis": (("Atelectasis is present.", "A band of atelectasis is seen."), "atelectasis"),
    "Lung nodule": (("Lung nodule is present.", "A nodule is seen in the lung."), "lung nodule"),
    "Lung opacity": (("Lung opacity is present.", "Ground glass opacity is seen in the lung."), "lung opacity"),
    "Pulmonary fibrotic sequela": (
        ("Pulmonary fibrotic sequela is present.", "Fibrotic bands are seen, pulmonary fibrotic sequela."),
        "pulmonary fibrotic sequela",
    ),
    "Pleural effusion": (("Pleural effusion is present.", "There is fluid, pleural effusion."), "pleural effusion"),
    "Mosaic attenuation pattern": (
        ("Mosaic attenuation pattern is present.", "A mosaic attenuation pattern is seen in the lungs."),
        "mosaic attenuation pattern",
    ),
    "Peribronchial thickening": (
        ("Peribronchial thickening is present.", "Peribronchial thickening is seen."),
        "peribronchial thickening",
    ),
    "Consolidation": (("Consolidation is present.", "An area of consolidation is seen in the lung."), "consolidation"),
    "Bronchiectasis": (("Bronchiectasis is present.", "Bronchiectasis is seen."), "bronchiectasis"),
    "Interlobular septal thickening": (
        ("Interlobular septal thickening is present.", "Interlobular septal thickening is seen."),
        "interlobular septal thickening",
    ),
}
NEGATED = ("No {}.", "{} is not present.", "There is no {}.")
NORMAL = ("The chest is normal.", "No finding.")
# The same words as `client.data.hecktor.reports` writes for a clinical record; one of each pair.
HISTORY = (
    ("No tobacco use.", "Tobacco use."),
    ("No alcohol use.", "Alcohol use."),
    ("HPV negative.", "HPV positive."),
    ("No chemotherapy.", "With chemotherapy."),
    ("No surgery.", "With surgery."),
    tuple(f"Performance status {grade}." for grade in range(5)),
    ("Head and neck cancer.",),
)
DECADES = {30: "thirties", 40: "forties", 50: "fifties", 60: "sixties", 70: "seventies", 80: "eighties", 90: "nineties"}
BUILDS = ((60, "light"), (90, "medium"), (1000, "heavy"))  # below so many kg
AGES, WEIGHTS = (32, 90), (34, 195)


@dataclass(frozen=True)
class Person:
    """Who is examined: age in years, sex, weight in kg, smoking."""

    age: int
    male: bool
    weight: int
    smoker: bool


def draw_person(rng: np.random.Generator) -> Person:
    """A person of the same age and weight distribution as the head-and-neck cohort."""
    return Person(
        age=int(np.clip(round(rng.normal(61, 11)), *AGES)),
        male=bool(rng.random() < 0.6),
        weight=int(np.clip(round(78 * np.exp(0.2 * rng.standard_normal())), *WEIGHTS)),
        smoker=bool(rng.random() < 0.5),
    )


def write_report(rng: np.random.Generator, person: Person, present: list[str]) -> str:
    """Clinical information, findings (present ones, some absent ones negated, shuffled) and impression."""
    sentences = [str(rng.choice(PHRASES[name][0])) for name in present]
    absent = [name for name in PHRASES if name not in present]
    ruled_out = rng.choice(absent, size=min(len(absent), int(rng.integers(*NEGATIONS))), replace=False)
    sentences += [_negated(rng, PHRASES[str(name)][1]) for name in ruled_out]
    rng.shuffle(sentences)
    impression = (
        ", ".join(PHRASES[name][1] for name in present).capitalize() + "." if present else str(rng.choice(NORMAL))
    )
    return f"Clinical information: {_clinical(rng, person)} Findings: {' '.join(sentences)} Impression: {impression}"


def _negated(rng: np.random.Generator, noun: str) -> str:
    sentence = str(rng.choice(NEGATED)).format(noun)
    return sentence[0].upper() + sentence[1:]


def _clinical(rng: np.random.Generator, person: Person) -> str:
    who = f"{person.age}-year-old {'man' if person.male else 'woman'} in the {DECADES[person.age // 10 * 10]}"
    kilograms = 5 * round(person.weight / 5)
    build = next(word for limit, word in BUILDS if kilograms < limit)
    smoking = "smoker" if person.smoker else "non-smoker"
    text = f"{who}, {build} build, weight {kilograms} kg, {smoking}."
    if rng.random() < HISTORY_SHARE:
        chosen = rng.choice(len(HISTORY), size=3, replace=False)
        text += " " + " ".join(str(rng.choice(HISTORY[index])) for index in chosen)
    return text


def split_report(report: str) -> tuple[str, str]:
    """(Findings_EN, Impressions_EN) of a report; joined by a space they are the report again."""
    findings, impression = report.split(" Impression: ")
    return findings, f"Impression: {impression}"


def chest_vocabulary() -> set[str]:
    """Every lower-case word and number a report can hold."""
    texts = [s for said, noun in PHRASES.values() for s in (*said, noun)]
    texts += [
        *NEGATED,
        *NORMAL,
        *(line for lines in HISTORY for line in lines),
        "Clinical information Findings Impression",
    ]
    texts += ["year old man woman in the build weight kg smoker non", *DECADES.values(), *(b for _, b in BUILDS)]
    weights = range(5 * round(WEIGHTS[0] / 5), WEIGHTS[1] + 1, 5)
    numbers = {str(n) for n in (*range(5), *range(AGES[0], AGES[1] + 1), *weights)}
    return set(re.findall(r"[a-z]+", " ".join(texts).lower())) | numbers
