"""Does a group come back on other samples? Groups of random halves, and how many directions show most that do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.sparse.linalg import eigsh

from koda_audit.discrepancy.groups import indicators, jaccard, members
from koda_audit.discrepancy.pool import Pool, is_lost
from koda_audit.discrepancy.turn import oriented, third_moments, turns

Floats = NDArray[np.float64]
Marks = NDArray[np.float32]
HALVES = 25
MORE = 200  # halves at most, where a group lies near the bound
NEAR = 2.0  # standard errors of its stability
BY_CHANCE, SURE = 0.6, 0.8  # stability at which a group begins to count, and counts as one, for a number of directions
FIRST = 20  # directions that are tried before more are
SPARE = 2  # directions that must be left over, else there may be more groups
MOST = 60
STEP = 4  # from one number to the next above that
WHOLE = 400  # samples of a half up to which everything is decomposed
SMALLEST = 2  # samples of a group in a half
TURNS = 12  # of all samples, of each number of directions
GROWTH = 1.4  # from one number of directions of a half to the next


@dataclass(frozen=True)
class Tested:
    """A number of directions, the rotation (T, T) of the leading T of them, and how often the groups of the pool came
    back: overlaps (H, T) with the most similar group of each half, 0 where the pool has no group of a column.
    """

    number: int
    turn: Floats
    overlaps: Floats

    @property
    def stability(self) -> Floats:
        """(T,) clusterwise stability, 0 to 1 (Hennig 2007, Comput. Stat. Data Anal. 52, 258, for turned directions)."""
        return self.overlaps.mean(axis=0) if len(self.overlaps) else np.full(self.number, np.nan)

    @property
    def error(self) -> Floats:
        """(T,) its standard error, of which more halves make less."""
        spread = self.overlaps.std(axis=0, ddof=1) if len(self.overlaps) else np.full(self.number, np.nan)
        error: Floats = spread / np.sqrt(len(self.overlaps))
        return error


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
        for number, turned in turns(moments, _numbers(self._columns), self._seed):
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


def _numbers(most: int) -> list[int]:
    """Numbers of directions up to ``most``, each about 1.4 times the one before.

    >>> _numbers(20)
    [1, 2, 3, 4, 6, 8, 11, 15, 20]
    """
    numbers = [1]
    while numbers[-1] < most:
        numbers.append(min(most, max(numbers[-1] + 1, round(GROWTH * numbers[-1]))))
    return numbers


def search_numbers(
    columns: Floats,
    pool: Pool,
    multiplier: float,
    halves: int = HALVES,
    seed: int = 0,
    number: int | None = None,
    least: int = 1,
) -> Tested:
    """The number of directions with the most groups that come back, and the stability of its groups.

    The score of a number counts its groups that are lost (``pool.is_lost``), from 0 for a stability of .6 to 1 for one
    of .8 (ours). That is steadier than counting findings, as nothing jumps where a stability passes the bound. Twelve
    turns of each number are tried, as several are nearly as good by the criterion of ``turns``.

    Args:
        columns: (n, k) leading directions of all samples.
        pool: of those samples.
        multiplier: at which they were found, and those of the halves are.
        halves: how many.
        seed: of the halves, and of the turns.
        number: of directions, where it is given.
        least: number that is tried.
    """
    k = columns.shape[1]
    numbers = [*range(least, k + 1, STEP if k > FIRST else 1)]
    if number is not None:
        numbers = [*(n for n in numbers if n < number), number]
    drawn = Halves(pool, multiplier, k, seed).groups(halves)
    tried: list[Tested] = []
    for last, found in turns(np.tile(third_moments(columns), (TURNS, 1, 1, 1)), numbers, seed):
        if last == number:
            tried = []
        for turn in found:
            tested = Tested(last, turn, np.empty((0, last)))
            tried.append(replace(tested, overlaps=_overlaps(_marks(tested, columns, pool), drawn)))
    return max(tried, key=lambda tested: _score(tested, columns, pool))


def with_more_halves(
    tested: Tested, columns: Floats, pool: Pool, multiplier: float, bound: float, seed: int = 0
) -> Tested:
    """With halves drawn until no lost group lies within two standard errors of the bound, or there are 200.

    The halves that are there stay the first ones.
    """
    halves = Halves(pool, multiplier, columns.shape[1], seed, past=len(tested.overlaps))
    mine, lost = _marks(tested, columns, pool), _lost(tested, columns, pool)
    while len(tested.overlaps) + HALVES <= MORE:
        near = np.abs(tested.stability - bound) < NEAR * tested.error
        if not (near & lost).any():
            break
        more = _overlaps(mine, halves.groups(HALVES))
        tested = replace(tested, overlaps=np.concatenate([tested.overlaps, more]))
    return tested


def _marks(tested: Tested, columns: Floats, pool: Pool) -> Marks:
    """(p, T) the groups of the pool's samples: those of the turned columns' part there."""
    turned = columns[pool.rows][:, : tested.number] @ tested.turn
    return indicators(members(turned), len(pool.rows))


def _overlaps(mine: Marks, drawn: Sequence[tuple[NDArray[np.int64], Marks]]) -> Floats:
    """(H, T) Jaccard index of each group with the most similar one of each half."""
    overlaps = [jaccard(mine[places], again).max(axis=1) for places, again in drawn]
    return np.array(overlaps, dtype=np.float64).reshape(len(drawn), mine.shape[1])


def repeats(tested: Tested, columns: Floats, pool: Pool) -> NDArray[np.bool_]:
    """(T,) whether the target does not tell the group of a column from that of a more stable one."""
    same = pool.same(_marks(tested, columns, pool))
    order = np.argsort(-np.nan_to_num(tested.stability), kind="stable")
    found = np.zeros(tested.number, dtype=np.bool_)
    for rank, place in enumerate(order):
        first = [other for other in order[:rank] if not found[other]]
        found[place] = same[place, first].any()
    return found


def _lost(tested: Tested, columns: Floats, pool: Pool) -> NDArray[np.bool_]:
    return is_lost(*pool.apart(_marks(tested, columns, pool))) & ~repeats(tested, columns, pool)


def may_hold_more(tested: Tested, columns: Floats, pool: Pool, bound: float, seed: int = 0) -> bool:
    """Whether there may be more groups than the directions that were sought (n, k) tell apart.

    Nearly all of these hold a lost group, and what was chosen does not settle it: it takes nearly all of them, or most
    of its groups do not come back. Where it does settle it, finer groups may come back as well, such as all pairs of
    the levels of two factors: the coarser ones stand.
    """
    k = columns.shape[1]
    if tested.number <= k - SPARE and 2 * stable_groups(tested, columns, pool, bound) >= tested.number:
        return False
    *_, (_, (turn,)) = turns(third_moments(columns)[None], _numbers(k), seed)
    return bool(_lost(Tested(k, turn, np.empty((0, k))), columns, pool).sum() > k - SPARE)


def stable_groups(tested: Tested, columns: Floats, pool: Pool, bound: float) -> int:
    """How many groups are lost and come back as often as the bound asks."""
    return int(((tested.stability >= bound) & _lost(tested, columns, pool)).sum())


def _score(tested: Tested, columns: Floats, pool: Pool) -> float:
    if not len(tested.overlaps):
        return 0.0
    counts = np.clip((tested.stability - BY_CHANCE) / (SURE - BY_CHANCE), 0, 1)
    return float(counts[_lost(tested, columns, pool)].sum())
