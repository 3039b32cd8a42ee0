"""Groups of random halves of the samples."""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.sparse.linalg import eigsh

from koda_audit.discrepancy.groups import indicators, members
from koda_audit.discrepancy.pool import Pool
from koda_audit.discrepancy.turn import oriented, third_moments, turns

Floats = NDArray[np.float64]
Marks = NDArray[np.float32]
WHOLE = 400  # samples of a half up to which everything is decomposed
SMALLEST = 2  # samples of a group in a half
GROWTH = 1.4  # from one number of directions of a half to the next


class Halves:
    """Random halves of the pool, with the groups of each at the multiplier of all samples.

    How many directions tell a group from the others differs from half to half, so the groups of several numbers count.
    ``past`` of the halves are left out: those of an earlier draw with that seed.
    """

    def __init__(self, pool: Pool, multiplier: float, most: int, seed: int, past: int = 0) -> None:
        self._n, self._seed = len(pool.rows), seed
        self._columns = min(most, self._n // 2 - 1)
        self._difference = pool.target - multiplier * pool.reference
        self._random = np.random.default_rng([seed, 1])
        for _ in range(past):
            self._places()

    def groups(self, count: int) -> list[tuple[NDArray[np.int64], Marks]]:
        """Of the next ``count``: the places in the pool (m,), and the groups (m, G)."""
        drawn = self.draw(count) if self._columns else []  # of three samples there are no halves
        if not drawn:
            return []
        columns: list[list[Floats]] = [[] for _ in drawn]
        moments = np.stack([third_moments(half) for _, half in drawn])
        for number, turned in turns(moments, rising_numbers(self._columns), self._seed):
            for each, (_, half), turn in zip(columns, drawn, turned, strict=True):
                each.append(half[:, :number] @ turn)
        return [
            (places, indicators(members(np.concatenate(each, axis=1), SMALLEST), len(places)))
            for each, (places, _) in zip(columns, drawn, strict=True)
        ]

    def draw(self, count: int) -> list[tuple[NDArray[np.int64], Floats]]:
        """The next ``count``: the places in the pool (m,), and their directions (m, k)."""
        return [self._directions() for _ in range(count)]

    def _places(self) -> NDArray[np.int64]:
        return np.sort(self._random.choice(self._n, self._n // 2, replace=False))

    def _directions(self) -> tuple[NDArray[np.int64], Floats]:
        places = self._places()
        part = self._difference[np.ix_(places, places)]
        m, k = len(places), self._columns
        if m <= WHOLE:
            columns = scipy.linalg.eigh(part, subset_by_index=[m - k, m - 1], check_finite=False)[1]
            return places, oriented(columns[:, ::-1])
        start = np.random.default_rng(0).standard_normal(m)
        values, columns = eigsh(part, k=k, which="LA", v0=start, ncv=min(m, 2 * k + 20), tol=1e-5)
        return places, oriented(columns[:, np.argsort(-values)])


def rising_numbers(most: int) -> list[int]:
    """Numbers of directions up to ``most``, each about 1.4 times the one before.

    >>> rising_numbers(20)
    [1, 2, 3, 4, 6, 8, 11, 15, 20]
    """
    numbers = [1]
    while numbers[-1] < most:
        numbers.append(min(most, max(numbers[-1] + 1, round(GROWTH * numbers[-1]))))
    return numbers
