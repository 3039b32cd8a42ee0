"""From columns over the samples to groups of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SMALLEST = 3  # samples of a group
PAPER = 50  # samples that KODA reads off a direction


@dataclass(frozen=True)
class Group:
    """Samples that a column has its weight on, heaviest first.

    Attributes:
        rows: (m,) of the samples.
        weights: (m,) the column's entries there, falling.
        fit: cosine of the column with the indicator of the group: 1 is a clean group, .64 a Gaussian column.
    """

    rows: NDArray[np.int64]
    weights: NDArray[np.float64]
    fit: float


def members(columns: NDArray[np.float64], smallest: int = SMALLEST) -> list[Group | None]:
    """The group of each column (n, T): the set whose indicator has the largest cosine with it (ours).

    Entries are sorted; the m largest are the set for m = argmax (x_1 + ... + x_m) / sqrt(m), and the ``smallest``
    largest where that is less. There is no threshold and no cap. None where fewer entries are positive. (KODA, ICML
    2026, arXiv 2606.04180, sec 6 takes the 50 heaviest samples of a direction: ``heaviest``.)

    >>> (group,) = members(np.array([[0.5], [0.5], [0.1], [0.5], [-0.2], [0.5]]))
    >>> group.rows.tolist(), round(group.fit, 3)
    ([0, 1, 3, 5], 0.976)
    """
    order = np.argsort(-columns, axis=0, kind="stable")
    falling = np.take_along_axis(columns, order, axis=0)
    counts = np.arange(1, len(columns) + 1)[:, None]
    cosines = falling.cumsum(axis=0) / np.sqrt(counts) / np.linalg.norm(columns, axis=0).clip(min=1e-300)
    sizes = np.maximum(cosines.argmax(axis=0) + 1, smallest)
    enough = (columns > 0).sum(axis=0) >= smallest
    return [
        Group(order[:m, place], falling[:m, place], float(cosines[m - 1, place])) if enough[place] else None
        for place, m in enumerate(sizes)
    ]


def heaviest(directions: NDArray[np.float64], count: int = PAPER) -> list[Group]:
    """The ``count`` samples of largest magnitude of each direction (n, T), as KODA reads them off (sec 6).

    >>> heaviest(np.array([[0.6], [-0.8], [0.0]]), 2)[0].rows.tolist()
    [1, 0]
    """
    found = []
    for x in directions.T:
        rows = np.argsort(-np.abs(x), kind="stable")[:count]
        weights = np.abs(x[rows])
        found.append(Group(rows, weights, float(weights.sum() / np.sqrt(len(rows)))))
    return found


def indicators(groups: list[Group | None], n: int) -> NDArray[np.float32]:
    """(n, T): 1 for the samples of each group."""
    marks = np.zeros((n, len(groups)), dtype=np.float32)
    for place, group in enumerate(groups):
        if group is not None:
            marks[group.rows, place] = 1
    return marks


def jaccard(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Samples in common over samples in either, (a, b), of indicators (n, a) and (n, b); 0 where there are none.

    >>> jaccard(np.array([[1], [1], [0]], np.float32), np.array([[1, 0], [0, 0], [1, 0]], np.float32)).round(3).tolist()
    [[0.3330000042915344, 0.0]]
    """
    common = first.T @ second
    either = first.sum(axis=0)[:, None] + second.sum(axis=0) - common
    shares: NDArray[np.float32] = common / np.maximum(either, 1)
    return shares
