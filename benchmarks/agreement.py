"""How far two runs agree: their subsets, their spans, and the planted groups that they return."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
HEAVIEST = 50  # samples a lobe
PURE, LEAST = 0.9, 8  # share of a lobe that must lie in one group, and the samples that such a lobe must have


def ends(directions: Floats) -> list[set[int]]:
    """The 50 heaviest samples at both ends of each column of ``directions`` (n, T)."""
    return [set(np.argsort(-sign * x, kind="stable")[:HEAVIEST].tolist()) for x in directions.T for sign in (1, -1)]


def best_jaccard(wanted: Sequence[set[int]], offered: Sequence[set[int]]) -> float:
    """Mean over ``wanted`` of the Jaccard index with the most similar of ``offered``."""
    return float(np.mean([max(len(a & b) / len(a | b) for b in offered) for a in wanted]))


def jaccard(a: Floats, b: Floats) -> float:
    """Of the ends of two sets of directions, each matched with the best of the other set, both ways."""
    first, second = ends(a), ends(b)
    return (best_jaccard(first, second) + best_jaccard(second, first)) / 2


def principal_cosines(a: Floats, b: Floats) -> Floats:
    """Cosines of the angles between the spans of orthonormal columns, largest first."""
    cosines: Floats = np.linalg.svd(a.T @ b, compute_uv=False).clip(0, 1)
    return cosines


def share_found(lobes: Iterable[Rows], groups: Sequence[Rows]) -> float:
    """Of the planted groups, the share of which some lobe of at least 8 samples consists to 90 %."""
    large = [lobe for lobe in lobes if len(lobe) >= LEAST]
    return float(np.mean([any(np.isin(lobe, group).mean() >= PURE for lobe in large) for group in groups]))
