"""Tumors: where the primary and the nodes of a patient lie, and how they look. CT contrast and PET agree here."""

from __future__ import annotations

import math

import numpy as np

from simulations.phantom.anatomy import NECROSIS_HU, NECROSIS_SUV, TUMOR_HU
from simulations.phantom.records import Tumor
from simulations.phantom.shapes import Blob, Waves, radii_of

PRIMARY, NODE = 1, 2
SITES = ((19.0, 36.0, -50.0), (9.0, 46.0, -60.0), (13.0, 30.0, -80.0))  # tonsil, tongue base, hypopharynx
SITE_SHARES = (0.5, 0.35, 0.15)
NODE_LEVELS = ((37.0, 18.0, -58.0), (37.0, 9.0, -86.0))  # levels II and III on either side
LARGEST_NODE_ML = 22.0  # a larger one would leave the neck; the volume is then shared by several
ROUGH = 0.10  # surface bumps, relative to the radius
NODE_UPTAKE = (0.6, 1.1)  # node uptake against the primary's


def draw_lesions(rng: np.random.Generator, tumor: Tumor, *, size: float) -> list[Blob]:
    """Lesions in atlas coordinates, nodes first, each followed by its necrotic core.

    Args:
        size: the patient's size against the atlas; atlas volumes are divided by its cube.
    """
    side = float(rng.choice((-1, 1)))
    nodes = [
        blob
        for center, volume in _node_places(rng, tumor.gtvn_ml, side=side)
        for blob in _lesion(rng, center, volume / size**3, (0.82, 0.95, 1.28), tumor, label=NODE)
    ]
    if not tumor.gtvp_ml:
        return nodes
    x, y, z = SITES[rng.choice(len(SITES), p=SITE_SHARES)]
    center = (side * x + rng.normal(0, 2), y + rng.normal(0, 3), z + rng.normal(0, 4))
    ratios = (rng.uniform(0.8, 1.0), rng.uniform(0.85, 1.1), rng.uniform(1.0, 1.25))
    return [*nodes, *_lesion(rng, center, tumor.gtvp_ml / size**3, ratios, tumor, label=PRIMARY)]


def _node_places(
    rng: np.random.Generator, milliliters: float, *, side: float
) -> list[tuple[tuple[float, float, float], float]]:
    """Centers and volumes of the nodes: mostly on the primary's side, never two at one level."""
    if not milliliters:
        return []
    fewest = math.ceil(milliliters / LARGEST_NODE_ML)
    count = max(fewest, int(rng.choice((1, 2, 3), p=(0.55, 0.3, 0.15))) if milliliters > 5 else 1)
    shares = np.full(count, 1 / count) * rng.uniform(0.8, 1.2, count)
    levels = [(s, level) for s in (side, -side) for level in NODE_LEVELS]
    weights = np.array([0.4, 0.3, 0.2, 0.1])
    chosen = rng.choice(len(levels), size=count, replace=False, p=weights)
    places = []
    for index, share in zip(chosen, shares / shares.sum(), strict=True):
        its_side, (x, y, z) = levels[index]
        jitter = rng.normal(0, (1.5, 4, 4))
        places.append(((its_side * x + jitter[0], y + jitter[1], z + jitter[2]), milliliters * float(share)))
    return places


def _lesion(
    rng: np.random.Generator,
    center: tuple[float, float, float],
    milliliters: float,
    ratios: tuple[float, float, float],
    tumor: Tumor,
    *,
    label: int,
) -> list[Blob]:
    waves = Waves.draw(rng, wavelength_mm=(18, 45))
    suv = tumor.suv_peak * (rng.uniform(*NODE_UPTAKE) if label == NODE else 1.0)
    radii = radii_of(milliliters, ratios=ratios)
    hu = rng.normal(TUMOR_HU, 6)
    whole = Blob(center, radii, hu, suv, label=label, rough=ROUGH, texture_hu=6.0, texture_suv=0.12, waves=waves)
    if not tumor.necrosis:
        return [whole]
    shrink = tumor.necrosis ** (1 / 3)
    core = Blob(center, (radii[0] * shrink, radii[1] * shrink, radii[2] * shrink), NECROSIS_HU, NECROSIS_SUV)
    return [whole, core]
