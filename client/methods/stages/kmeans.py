"""Which units of a stage are kept for rehearsal: those nearest to the centers of k-means, with floors for small sites.

The published rule takes int(0.01 N) clusters and int(0.05 N) // clusters of each, which is a division by zero below 100
units. Here there is at least one cluster and at least one unit of each; with fewer than `FEWEST` units the only center
is the site's mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FEWEST = 20  # units; with fewer the K nearest to their mean are kept
PASSES = 100  # of Lloyd's algorithm, at most


@dataclass(frozen=True)
class Clusters:
    """Centers (C, F), and the cluster (N,) and the distance (N,) of each unit."""

    centers: np.ndarray
    labels: np.ndarray
    distances: np.ndarray


def sizes(units: int, *, clusters: float, kept: float) -> tuple[int, int]:
    """How many clusters there are of so many units, and how many units are kept of each.

    Args:
        clusters, kept: shares of the units, the paper's are 0.01 and 0.05.
    """
    number = 1 if units < FEWEST else max(1, round(clusters * units))
    return number, max(1, round(kept * units / number))


def nearest(clusters: Clusters, number: int) -> dict[int, list[int]]:
    """By cluster, places of the ``number`` units nearest to its center, nearest first; of equals the earlier unit."""
    order = np.argsort(clusters.distances, kind="stable")
    return {c: [int(i) for i in order if clusters.labels[i] == c][:number] for c in range(len(clusters.centers))}


def kmeans(units: np.ndarray, start: np.ndarray) -> Clusters:
    """Lloyd's algorithm from given centers, float64; a center that nobody is nearest to stays where it is."""
    units, centers = np.asarray(units, np.float64), np.asarray(start, np.float64).copy()
    labels = np.full(len(units), -1)
    for _ in range(PASSES):
        distances = _distances(units, centers)
        found = distances.argmin(axis=1)
        if np.array_equal(found, labels):
            break
        labels = found
        for cluster in np.unique(labels):
            centers[cluster] = units[labels == cluster].mean(axis=0)
    distances = _distances(units, centers)
    labels = distances.argmin(axis=1)
    return Clusters(centers, labels, distances[np.arange(len(units)), labels])


def farthest_first(units: np.ndarray, number: int) -> np.ndarray:
    """Centers to begin with: the unit nearest to the mean, then always the one farthest from all before it. The same
    for any generator of random numbers, since it asks none."""
    mean = units.mean(axis=0, keepdims=True)
    places = [int(_distances(units, mean)[:, 0].argmin())]
    while len(places) < min(number, len(units)):
        places.append(int(_distances(units, units[places]).min(axis=1).argmax()))
    return units[places]


def selected(units: np.ndarray, *, clusters: float, kept: float) -> list[int]:
    """Places of the units (N, F) to keep, rising; at least one where there is any."""
    if len(units) == 0:
        return []
    units = np.asarray(units, np.float64)
    number, each = sizes(len(units), clusters=clusters, kept=kept)
    start = units.mean(axis=0, keepdims=True) if number == 1 else farthest_first(units, number)
    return sorted(place for places in nearest(kmeans(units, start), each).values() for place in places)


def _distances(units: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Euclidean, (N, C)."""
    return np.sqrt(np.square(units[:, None] - centers[None]).sum(axis=2))
