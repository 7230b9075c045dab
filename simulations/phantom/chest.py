"""Chest cases: a thorax on the mini backbone's native grid with some of CT-CLIP's 18 findings, and a short report.

Two findings, peribronchial and interlobular septal thickening, are finer than 6 mm: they are named in the report but
never drawn, as a control. Whoever scores above chance on them has found a leak.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.data.findings import FINDINGS
from simulations.phantom.reports import Person, draw_person, write_report
from simulations.phantom.shapes import Axes, Blob, Grid, Volume, Waves, box_of, cut, occupancy, paint, radii_of

SPACING_MM, VOXELS = 6.0, 48  # the native view of the mini backbone
CHEST_GRID = Grid((VOXELS,) * 3, (SPACING_MM,) * 3, (-SPACING_MM * (VOXELS - 1) / 2,) * 3)
NOISE_HU = 22.0
LUNG_HU, TISSUE_HU, FAT_HU, WATER_HU, BONE_HU = -840.0, 45.0, -95.0, 8.0, 380.0
CALCIUM_HU, METAL_HU = 900.0, 2600.0
NOT_DRAWN = ("Peribronchial thickening", "Interlobular septal thickening")
VISIBLE = tuple(name for name in FINDINGS if name not in NOT_DRAWN)

# Shares of CT-RATE's training volumes, rounded; those under 12 % are raised to it so that few cases suffice.
PREVALENCE = {
    "Medical material": 0.12, "Arterial wall calcification": 0.28, "Cardiomegaly": 0.12, "Pericardial effusion": 0.12,
    "Coronary artery wall calcification": 0.25, "Hiatal hernia": 0.14, "Lymphadenopathy": 0.26, "Emphysema": 0.20,
    "Atelectasis": 0.26, "Lung nodule": 0.45, "Lung opacity": 0.36, "Pulmonary fibrotic sequela": 0.26,
    "Pleural effusion": 0.14, "Mosaic attenuation pattern": 0.12, "Peribronchial thickening": 0.12,
    "Consolidation": 0.18, "Bronchiectasis": 0.12, "Interlobular septal thickening": 0.12,
}  # fmt: skip
CALCIFIED_PER_DECADE = 0.10  # calcification grows with age, so that the report's age says something about the image
EMPHYSEMA_SMOKER = 1.8  # and emphysema with smoking


@dataclass(frozen=True)
class ChestCase:
    """One chest: HU float32 (48, 48, 48) ordered (z, y, x) in RAS at 6 mm, findings int8 (18,), report text."""

    hu: Volume
    findings: NDArray[np.int8]
    report: str


@dataclass
class Thorax:
    """What drawing a finding needs: the volume so far, its axes, the lungs, and this patient's measures."""

    volume: Volume
    axes: Axes
    lungs: NDArray[np.bool_]
    heart: Blob
    rng: np.random.Generator

    def add(self, blob: Blob, *, within: NDArray[np.bool_] | None = None) -> None:
        """Paint a blob, if asked only inside a mask."""
        if within is None:
            paint(self.volume, blob, self.axes, modality="CT", softness_mm=SPACING_MM)
            return
        box = box_of(blob, self.axes)
        if any(part.start >= part.stop for part in box) or blob.hu is None:
            return
        filled, _ = occupancy(blob, cut(self.axes, box), softness_mm=SPACING_MM)
        self.volume[box] += filled * within[box] * (np.float32(blob.hu) - self.volume[box])

    def in_lung(self) -> tuple[float, float, float]:
        """A random place well inside a lung."""
        side = self.rng.choice((-1, 1))
        unit = self.rng.uniform(-0.65, 0.65, 3)
        return float(side * 62 + 26 * unit[0]), float(-2 + 58 * unit[1]), float(12 + 85 * unit[2])


def chest_case(rng: np.random.Generator) -> ChestCase:
    """Draw one chest; some milliseconds."""
    person = draw_person(rng)
    findings = draw_findings(rng, person)
    thorax = _normal_thorax(rng, person, enlarged=bool(findings[FINDINGS.index("Cardiomegaly")]))
    for name, present in zip(FINDINGS, findings, strict=True):
        if present and name in DRAW:
            DRAW[name](thorax)
    noise = np.float32(NOISE_HU) * rng.standard_normal(thorax.volume.shape, dtype=np.float32)
    hu = np.clip(thorax.volume + noise, -1024, 3071).transpose(2, 1, 0)
    present_names = [name for name, present in zip(FINDINGS, findings, strict=True) if present]
    report = write_report(rng, person, present_names)
    return ChestCase(np.ascontiguousarray(hu, dtype=np.float32), findings, report)


def draw_findings(rng: np.random.Generator, person: Person) -> NDArray[np.int8]:
    """Independent draws, except that calcification follows age and emphysema smoking."""
    shares = dict(PREVALENCE)
    for name in ("Arterial wall calcification", "Coronary artery wall calcification"):
        shares[name] = float(np.clip(shares[name] + CALCIFIED_PER_DECADE * (person.age - 61) / 10, 0.02, 0.95))
    shares["Emphysema"] *= EMPHYSEMA_SMOKER if person.smoker else 2 - EMPHYSEMA_SMOKER
    return (rng.random(len(FINDINGS)) < [shares[name] for name in FINDINGS]).astype(np.int8)


# ----------------------------------------------------------------------------------------------------------- normal


def _normal_thorax(rng: np.random.Generator, person: Person, *, enlarged: bool) -> Thorax:
    size = rng.uniform(0.93, 1.05) * (1.0 if person.male else 0.95)
    axes = CHEST_GRID.axes(shrink=float(size))
    x, y, z = axes
    fat_mm = float(np.clip(8 + 0.35 * (person.weight - 75), 3, 30))
    radius = np.sqrt((x[:, None] / (118 + fat_mm)) ** 2 + (y[None, :] / (92 + fat_mm)) ** 2)  # (nx, ny)
    skin = np.broadcast_to(radius[:, :, None], (VOXELS,) * 3)
    chest_wall = np.sqrt((x[:, None] / 118) ** 2 + (y[None, :] / 92) ** 2)[:, :, None]
    volume = np.where(skin > 1, np.float32(-1000), np.where(chest_wall > 1, np.float32(FAT_HU), np.float32(TISSUE_HU)))
    rib = (np.abs(chest_wall - 0.93) < 0.045) & (np.cos(2 * np.pi * (z + 0.35 * y[:, None]) / 26)[None] > 0.45)
    volume = np.where(rib, np.float32(BONE_HU), volume).astype(np.float32)
    heart_scale = rng.uniform(1.28, 1.45) if enlarged else rng.uniform(0.9, 1.08)
    radii = (46 * heart_scale, 38 * heart_scale, 44 * heart_scale)
    heart = Blob((-16, 20, -38), radii, TISSUE_HU, rough=0.0)
    thorax = Thorax(volume, axes, np.zeros(volume.shape, bool), heart, rng)
    _add_lungs(thorax)
    for blob in _mediastinum(rng, heart):
        thorax.add(blob)
    thorax.lungs &= volume < -400
    _add_vessels(thorax)
    return thorax


def _add_lungs(thorax: Thorax) -> None:
    level = LUNG_HU + thorax.rng.normal(0, 25)
    body = thorax.volume > -500
    for side in (-1, 1):
        thorax.add(Blob((side * 62, -2, 12), (46, 78, 118), level))
    thorax.lungs = body & (thorax.volume < -400)
    for side, height in ((1, -112), (-1, -122)):  # liver and spleen under the diaphragm
        thorax.add(Blob((side * 60, 8, height), (58, 78, 50), 55 if side == 1 else 48))


def _add_vessels(thorax: Thorax) -> None:
    vessels = Waves.draw(thorax.rng, wavelength_mm=(20, 45)).on(thorax.axes)
    x, _, z = thorax.axes
    central = np.exp(-((np.abs(x)[:, None] - 25) ** 2 + z[None, :] ** 2) / 70**2)[:, None, :]
    branches = np.clip((vessels - 1.5) * 1.5, 0, 1) * central * thorax.lungs
    thorax.volume += (branches * 500).astype(np.float32)


def _mediastinum(rng: np.random.Generator, heart: Blob) -> list[Blob]:
    return [
        Blob((0, 5, 30), (26, 40, 110), FAT_HU + 40),
        *(Blob((0, -66, z), (16, 14, 10), BONE_HU - 80) for z in range(-140, 145, 22)),
        heart,
        Blob((-20, -44, -20), (12, 12, 130), TISSUE_HU),  # descending aorta
        Blob((10, 18, 25), (15, 15, 36), TISSUE_HU),  # ascending aorta
        Blob((-6, -12, 58), (22, 34, 11), TISSUE_HU),  # arch
        Blob((0, -2, 100), (9, 9, 68), -1000),  # trachea
        Blob((24, -8, 26), (20, 7, 9), -950),  # main bronchi
        Blob((-24, -8, 22), (20, 7, 9), -950),
        Blob((-3, -28, 0), (7, 6, 110), 30),  # oesophagus
        Blob((0, 84, 10), (14, 7, 70), BONE_HU - 150),  # sternum
    ]


# --------------------------------------------------------------------------------------------------------- findings


def _medical_material(t: Thorax) -> None:
    if t.rng.random() < 0.5:  # a pacemaker with its lead
        t.add(Blob((-72, 84, t.rng.uniform(70, 100)), (17, 8, 17), METAL_HU))
        t.add(Blob((-20, 40, 40), (5, 5, 60), METAL_HU / 2))
    else:  # a catheter or a drain
        side = t.rng.choice((-1, 1))
        t.add(Blob((side * t.rng.uniform(12, 30), t.rng.uniform(5, 30), 60), (5, 5, t.rng.uniform(50, 80)), METAL_HU))


def _arterial_calcification(t: Thorax) -> None:
    for _ in range(t.rng.integers(3, 8)):
        angle, z = t.rng.uniform(0, 2 * np.pi), t.rng.uniform(-90, 60)
        center = (-20 + 11 * np.cos(angle), -44 + 11 * np.sin(angle), z)
        t.add(Blob(center, (5, 5, t.rng.uniform(5, 12)), CALCIUM_HU))


def _coronary_calcification(t: Thorax) -> None:
    for _ in range(t.rng.integers(3, 7)):
        angle, height = t.rng.uniform(0, np.pi), t.rng.uniform(0.2, 0.7)
        ring = np.sqrt(1 - height**2) * 0.85
        (hx, hy, hz), (rx, ry, rz) = t.heart.center, t.heart.radii
        center = (hx + rx * ring * np.cos(angle), hy + ry * ring * np.sin(angle), hz + rz * height)
        t.add(Blob(center, (5, 5, 5), CALCIUM_HU))


def _pericardial_effusion(t: Thorax) -> None:
    thick = t.rng.uniform(9, 18)
    rx, ry, rz = t.heart.radii
    t.add(Blob(t.heart.center, (rx + thick, ry + thick, rz + 0.6 * thick), WATER_HU))
    t.add(Blob(t.heart.center, (rx, ry, rz), TISSUE_HU + 15))


def _hiatal_hernia(t: Thorax) -> None:
    r = t.rng.uniform(17, 28)
    center = (float(t.rng.normal(-4, 4)), -36.0, float(t.rng.uniform(-72, -55)))
    t.add(Blob(center, (r, r * 0.8, r), 35))
    t.add(Blob((center[0], center[1] + 3, center[2] + r / 3), (r * 0.6, r * 0.45, r * 0.45), -900))


def _lymphadenopathy(t: Thorax) -> None:
    for _ in range(t.rng.integers(3, 7)):
        r = t.rng.uniform(9, 16)  # the larger ones push the mediastinum's outline into the lung
        center = (t.rng.uniform(-36, 36), t.rng.uniform(-15, 40), t.rng.uniform(25, 105))
        t.add(Blob(center, (r, r, r * 1.2), TISSUE_HU + 20))


def _emphysema(t: Thorax) -> None:
    severity = t.rng.uniform(0.35, 1.0)
    t.volume -= np.float32(85 * severity) * t.lungs
    for _ in range(t.rng.integers(4, 12)):
        x, y, _ = t.in_lung()
        r = t.rng.uniform(8, 16)
        t.add(Blob((x, y, t.rng.uniform(20, 105)), (r, r, r), -1000), within=t.lungs)


def _atelectasis(t: Thorax) -> None:
    side = t.rng.choice((-1, 1))
    thick = t.rng.uniform(8, 14)
    center = (side * 62.0, float(t.rng.uniform(-50, -10)), float(t.rng.uniform(-62, -25)))
    t.add(Blob(center, (t.rng.uniform(28, 45), t.rng.uniform(25, 45), thick), -20), within=t.lungs)


def _nodule(t: Thorax) -> None:
    for _ in range(t.rng.integers(1, 4)):
        r = t.rng.uniform(6, 13)
        t.add(Blob(t.in_lung(), (r, r, r), t.rng.uniform(0, 80)), within=t.lungs)


def _opacity(t: Thorax) -> None:
    for _ in range(t.rng.integers(1, 4)):
        waves = Waves.draw(t.rng, wavelength_mm=(25, 50))
        radii = radii_of(t.rng.uniform(40, 160), ratios=(1, 1.2, 1.1))
        t.add(Blob(t.in_lung(), radii, t.rng.uniform(-620, -420), rough=0.12, waves=waves), within=t.lungs)


def _fibrotic_sequela(t: Thorax) -> None:
    for _ in range(t.rng.integers(3, 7)):  # bands towards the apex
        center = (t.rng.choice((-1, 1)) * t.rng.uniform(45, 80), t.rng.uniform(-45, 45), t.rng.uniform(55, 112))
        radii = (t.rng.uniform(4, 6), t.rng.uniform(14, 30), t.rng.uniform(4, 7))
        t.add(Blob(center, radii, t.rng.uniform(-150, 0)), within=t.lungs)


def _pleural_effusion(t: Thorax) -> None:
    level = t.rng.uniform(-62, -35)  # height of the fluid towards the back
    sides = (-1, 1) if t.rng.random() < 0.4 else (int(t.rng.choice((-1, 1))),)
    x, y, _ = t.axes
    wall = np.sqrt(((np.abs(x) - 62)[:, None] / 46) ** 2 + ((y + 2)[None, :] / 78) ** 2)
    behind = (wall > 0.62) & (y[None, :] < level + 30)
    for side in sides:
        its_side = behind & (np.sign(x)[:, None] == side)
        fluid = its_side[:, :, None] & t.lungs & (t.axes[2][None, None, :] < t.rng.uniform(10, 60))
        t.volume[fluid] = WATER_HU


def _mosaic(t: Thorax) -> None:
    patches = Waves.draw(t.rng, wavelength_mm=(40, 75)).on(t.axes)
    t.volume += np.float32(t.rng.uniform(70, 110)) * np.tanh(3 * patches) * t.lungs


def _consolidation(t: Thorax) -> None:
    waves = Waves.draw(t.rng, wavelength_mm=(20, 45))
    radii = radii_of(t.rng.uniform(35, 140), ratios=(1, 1.1, 1))
    center = t.in_lung()
    t.add(Blob(center, radii, t.rng.uniform(0, 50), rough=0.14, waves=waves), within=t.lungs)
    t.add(Blob(center, (4, 4, max(radii)), -700), within=t.lungs)  # an air bronchogram


def _bronchiectasis(t: Thorax) -> None:
    side = t.rng.choice((-1, 1))
    for _ in range(t.rng.integers(4, 8)):
        center = (side * t.rng.uniform(35, 65), t.rng.uniform(-45, 10), t.rng.uniform(-50, 10))
        r, length = t.rng.uniform(9, 12), t.rng.uniform(12, 24)
        t.add(Blob(center, (r, r, length), -350), within=t.lungs)
        t.add(Blob(center, (r * 0.55, r * 0.55, length), -1000), within=t.lungs)


DRAW: dict[str, Callable[[Thorax], None]] = {
    "Emphysema": _emphysema,
    "Mosaic attenuation pattern": _mosaic,
    "Medical material": _medical_material,
    "Arterial wall calcification": _arterial_calcification,
    "Pericardial effusion": _pericardial_effusion,
    "Coronary artery wall calcification": _coronary_calcification,
    "Hiatal hernia": _hiatal_hernia,
    "Lymphadenopathy": _lymphadenopathy,
    "Atelectasis": _atelectasis,
    "Lung nodule": _nodule,
    "Lung opacity": _opacity,
    "Pulmonary fibrotic sequela": _fibrotic_sequela,
    "Pleural effusion": _pleural_effusion,
    "Consolidation": _consolidation,
    "Bronchiectasis": _bronchiectasis,
}
