"""How far two runs agree: their subsets, their spans, and the planted groups that they return."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
PURE, LEAST = 0.9, 8  # share of a group that must lie in one lost group, and the samples that such a group must have


def best_jaccard(wanted: Sequence[set[int]], offered: Sequence[set[int]]) -> float:
    """Mean over ``wanted`` of the Jaccard index with the most similar of ``offered``; nan where either is empty."""
    if not (wanted and offered):
        return float("nan")
    return float(np.mean([max(len(a & b) / len(a | b) for b in offered) for a in wanted]))


def jaccard(first: Sequence[set[int]], second: Sequence[set[int]]) -> float:
    """Of two runs' groups, each matched with the best of the other run, both ways."""
    return (best_jaccard(first, second) + best_jaccard(second, first)) / 2


def principal_cosines(a: Floats, b: Floats) -> Floats:
    """Cosines of the angles between the spans of orthonormal columns, largest first."""
    cosines: Floats = np.linalg.svd(a.T @ b, compute_uv=False).clip(0, 1)
    return cosines


def groups_of(subsets: pd.DataFrame) -> list[set[int]]:
    """The samples of each group, whose ids are numbers."""
    return [set(part["id"].astype(int)) for _, part in subsets.groupby("group")]


def share_found(found: Iterable[Rows | set[int]], groups: Sequence[Rows]) -> float:
    """Of the planted groups, the share of which some group of at least 8 samples consists to 90 %."""
    large = [np.fromiter(rows, dtype=np.int64) for rows in found if len(rows) >= LEAST]
    return float(np.mean([any(np.isin(rows, group).mean() >= PURE for rows in large) for group in groups]))
