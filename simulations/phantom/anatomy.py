"""The atlas: head, neck and a shortened torso as ellipsoids in mm, with the values CT and PET give them.

Origin at the middle of the skull base; x to the right, y to the front, z to the head. The primary tumor arises at the
pharynx (z about -55), nodes lie in the lateral neck. The torso is compressed so that the bladder still lies inside a
500 mm field.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from simulations.phantom.shapes import Axes, Blob, Volume, Waves, radii_of

# ---- CT values in HU; tumor and node are 25-35 HU over muscle, against 12-20 HU of noise: visible, but only in bulk
AIR, FAT, MUSCLE, GLAND, BRAIN, SOFT_BONE, BONE, TUMOR_HU, NECROSIS_HU = -1000, -95, 52, 25, 36, 350, 850, 84, 22
BRAIN_LABEL, NODE_LABEL, PAROTID_LABEL, THYROID_LABEL = 3, 4, 5, 6  # in masks that hold organs, too
# ---- PET values in SUV
MUSCLE_SUV, FAT_SUV, BLOOD_SUV, NECROSIS_SUV = 0.75, 0.25, 1.4, 1.2
BRAIN_SUV = (6.0, 11.0)  # between patients; the hot organ that the official head-and-neck box looks for
FALSE_UPTAKE_PER_CASE = 2.0  # inflammation with a tumor's uptake and muscle's HU: PET alone must not solve the task
BENIGN_NODES_PER_CASE = 5.0  # nodes with a tumor's HU and blood's uptake: CT alone must not solve it either
HYPERPLASIA_ML = (1.5, 0.5)  # median and sd of the log of the benign bulk at tonsils and tongue base

PROFILE = np.array(
    [  # z, half width, half depth, middle of y: the skin
        (118, 6, 6, 0), (112, 36, 44, 0), (95, 62, 76, 0), (60, 75, 95, 0), (20, 76, 98, 0), (0, 74, 95, 4),
        (-30, 68, 86, 12), (-60, 63, 74, 14), (-80, 59, 62, 8), (-110, 58, 57, 2), (-130, 66, 58, 0),
        (-150, 98, 64, -4), (-165, 150, 74, -6), (-185, 188, 86, -8), (-220, 192, 98, -5), (-280, 178, 104, 0),
        (-340, 165, 104, 0), (-420, 172, 108, 0),
    ],
    dtype=np.float32,
)[::-1]  # fmt: skip
SKIN_FAT_MM = 9.0  # thickness of the fat under the skin


@dataclass(frozen=True)
class Body:
    """The skin's shape on a grid: `depth` in mm below the skin (negative outside), and the fat/muscle pattern."""

    depth: Volume
    streaks: Volume


def body_on(axes: Axes, streaks: Waves) -> Body:
    """Depth below the skin and the field that decides between muscle and fat planes."""
    x, y, z = axes
    heights, widths, depths, middles = PROFILE.T
    half_width, half_depth, middle = (np.interp(z, heights, v).astype("f4") for v in (widths, depths, middles))
    across = (x[:, None] / half_width) ** 2  # (nx, nz)
    along = ((y[:, None] - middle) / half_depth) ** 2  # (ny, nz)
    radius = np.sqrt(across[:, None, :] + along[None, :, :])
    depth = (1 - radius) * np.minimum(half_width, half_depth)
    depth[:, :, z > heights[-1]] = -50.0
    return Body(depth, streaks.on(axes))


def base_volume(body: Body, *, modality: str) -> Volume:
    """Air, skin fat, and muscle with fat planes."""
    air, fat, muscle = (AIR, FAT, MUSCLE) if modality == "CT" else (0.0, FAT_SUV, MUSCLE_SUV)
    fat_share = np.clip(0.5 + (body.streaks - 0.7) * 2.5, 0, 1)  # about a quarter of the inside, with soft borders
    fat_share = np.maximum(fat_share, np.clip((SKIN_FAT_MM - body.depth) / 3 + 0.5, 0, 1))
    inside = np.float32(muscle) + fat_share * np.float32(fat - muscle)
    return np.where(body.depth > 0, inside, np.float32(air)).astype(np.float32)


def organs(rng: np.random.Generator) -> list[Blob]:
    """Everything normal, in painter's order, with this patient's uptake."""
    return [*_head(rng), *_neck(rng), *_torso(rng)]


def _head(rng: np.random.Generator) -> list[Blob]:
    brain = rng.uniform(*BRAIN_SUV)
    fine = Waves.draw(rng, wavelength_mm=(25, 60))
    return [
        Blob((0, 0, 48), (73, 93, 62), BONE, 0.5),  # skull
        Blob((0, 0, 48), (67, 87, 56), BRAIN, brain, texture_suv=0.08, waves=fine, label=BRAIN_LABEL),  # gray matter
        Blob((0, 0, 52), (46, 62, 34), BRAIN - 6, 0.6 * brain),  # white matter
        Blob((10, 5, 50), (6, 26, 11), 8, 0.3 * brain),  # ventricles
        Blob((-10, 5, 50), (6, 26, 11), 8, 0.3 * brain),
        Blob((0, -52, -4), (42, 30, 20), BRAIN, 0.75 * brain),  # cerebellum
        Blob((0, -8, -12), (12, 12, 22), BRAIN, 0.5 * brain),  # brain stem
        Blob((0, 84, -5), (17, 14, 16), AIR, 0.1),  # nasal cavity
        Blob((30, 76, 12), (11, 11, 11), 15, 1.0),  # eyes
        Blob((-30, 76, 12), (11, 11, 11), 15, 1.0),
        Blob((25, 70, -16), (12, 15, 12), AIR, 0.3),  # maxillary sinuses
        Blob((-25, 70, -16), (12, 15, 12), AIR, 0.3),
        Blob((0, 74, -34), (28, 22, 4), BONE, 0.6),  # hard palate
    ]


def _neck(rng: np.random.Generator) -> list[Blob]:
    mandible = [
        Blob((side * (52 - 0.055 * t**2), 15 + 8.6 * t, -44 - 2.2 * t), (5, 7, 10), BONE, 0.6)
        for side in (-1, 1)
        for t in range(9)
    ]
    spine = [Blob((0, -12, z), (13, 11, 8), SOFT_BONE, 1.1) for z in range(-32, -180, -19)]
    cord = [Blob((0, -30, -100), (7, 6, 95), 30, 1.5), Blob((0, -48, -100), (6, 12, 90), SOFT_BONE, 0.9)]
    parotid, submandibular, tonsil, larynx, tongue = rng.uniform((1.2, 1.4, 2.0, 1.2, 1.0), (2.8, 3.2, 4.5, 4.5, 2.2))
    contrast = 60 if rng.random() < 0.4 else 0  # some CTs are contrast-enhanced
    paired = [
        blob
        for side in (-1, 1)
        for blob in (
            Blob((side * 56, 2, -34), (10, 15, 19), GLAND - 10, parotid, label=PAROTID_LABEL),
            Blob((side * 33, 44, -72), (9, 13, 10), GLAND + 10, submandibular),
            Blob((side * 45, 8, -95), (7, 12, 46), MUSCLE + 6, MUSCLE_SUV),  # sternocleidomastoid
            Blob((side * 30, 14, -110), (8, 11, 70), FAT, FAT_SUV),  # the vessels' fat
            Blob((side * 27, 12, -110), (4, 4, 75), 45 + contrast, BLOOD_SUV),  # carotid
            Blob((side * 35, 10, -110), (5, 5, 75), 45 + contrast, BLOOD_SUV),  # jugular vein
            Blob((side * 24, 34, -42), (6, 12, 16), FAT, FAT_SUV),  # parapharyngeal fat
            Blob((side * 16, 34, -48), (7, 8, 12), MUSCLE + 12, tonsil * rng.uniform(0.8, 1.2)),
        )
    ]
    return [
        *spine, *cord, *mandible, *paired,
        Blob((0, 56, -58), (24, 28, 17), MUSCLE + 4, tongue),
        Blob((0, 76, -38), (22, 12, 3), AIR, 0.2),  # mouth
        Blob((0, 32, -40), (9, 6, 30), AIR, 0.1),  # pharynx
        Blob((0, 36, -106), (17, 14, 16), 90, larynx),  # larynx: cartilage and muscle
        Blob((0, 33, -130), (8, 8, 75), AIR, 0.1),  # lower airway
        Blob((0, 24, -138), (15, 6, 22), 95, rng.uniform(1.0, 2.2), label=THYROID_LABEL),
    ]  # fmt: skip


def _torso(rng: np.random.Generator) -> list[Blob]:
    heart, kidney, liver, bladder = rng.uniform((1.5, 3.0, 1.6, 15.0), (9.0, 9.0, 2.6, 70.0))
    spine = [Blob((0, -45, z), (17, 14, 9), SOFT_BONE, 1.2) for z in range(-185, -400, -21)]
    sides = [
        blob
        for side in (-1, 1)
        for blob in (
            Blob((side * 65, 5, -222), (52, 68, 48), -830, 0.35),  # lungs
            Blob((side * 52, -45, -315), (20, 18, 28), 35, kidney),
            Blob((side * 95, -8, -178), (70, 9, 6), SOFT_BONE, 0.7),  # clavicle and scapula
            Blob((side * 75, -10, -395), (30, 30, 28), SOFT_BONE, 0.9),  # pelvis
        )
    ]
    return [
        *sides, *spine,
        Blob((-12, 30, -238), (40, 34, 34), 42, heart),
        Blob((-12, 30, -238), (24, 20, 22), 42, BLOOD_SUV),
        Blob((52, 15, -288), (75, 68, 34), 58, liver),
        Blob((0, 45, -372), (32, 26, 20), 8, bladder),
    ]  # fmt: skip


def benign_nodes(rng: np.random.Generator) -> list[Blob]:
    """Nodes, tonsils and tongue base as dense as tumor but with little uptake: CT's look-alikes."""
    blobs = []
    for _ in range(rng.poisson(BENIGN_NODES_PER_CASE)):
        side = rng.choice((-1, 1))
        center = (side * rng.uniform(28, 42), rng.uniform(0, 28), rng.uniform(-105, -45))
        radii = radii_of(float(np.clip(1.2 * np.exp(0.7 * rng.standard_normal()), 0.3, 7)), ratios=(0.85, 0.9, 1.3))
        suv = rng.uniform(2.5, 4.0) if rng.random() < 0.2 else rng.uniform(0.9, 1.8)  # one in five is reactive
        blobs.append(Blob(center, radii, rng.normal(TUMOR_HU - 4, 6), suv, label=NODE_LABEL))
    for x, y, z in ((17.0, 36.0, -50.0), (-17.0, 36.0, -50.0), (0.0, 44.0, -64.0)):
        volume = HYPERPLASIA_ML[0] * np.exp(HYPERPLASIA_ML[1] * rng.standard_normal())
        center = (x + rng.normal(0, 2), y + rng.normal(0, 2), z + rng.normal(0, 2))
        radii = radii_of(float(volume), ratios=(0.8, 1, 1.2))
        blobs.append(Blob(center, radii, rng.normal(TUMOR_HU - 8, 6), rng.uniform(1.5, 3.5)))
    return blobs


def false_uptake(rng: np.random.Generator, lesions: list[Blob]) -> list[Blob]:
    """Inflammation, brown fat and muscle strain: hot on PET, nothing on CT, never touching a lesion."""
    blobs: list[Blob] = []
    wanted = rng.poisson(FALSE_UPTAKE_PER_CASE)
    for _ in range(4 * wanted):  # places too near a lesion are drawn again
        center = (rng.choice((-1, 1)) * rng.uniform(10, 44), rng.uniform(-35, 55), rng.uniform(-105, -40))
        radii = radii_of(rng.uniform(1.0, 8.0), ratios=(rng.uniform(0.7, 1.2), 1.0, rng.uniform(0.8, 1.4)))
        uptake = rng.uniform(4.0, 10.0)
        far = all(math.dist(center, b.center) > max(radii) + max(b.radii) + 4 for b in [*lesions, *blobs])
        if far and len(blobs) < wanted:
            blobs.append(Blob(center, radii, None, uptake))
    return blobs
