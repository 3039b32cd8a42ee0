"""Does a group come back on random halves of the samples, and how many directions show most that do?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from koda_audit.discrepancy.groups import indicators, jaccard, members
from koda_audit.discrepancy.halves import Halves, Marks, rising_numbers
from koda_audit.discrepancy.pool import Pool, is_lost
from koda_audit.discrepancy.turn import third_moments, turns

Floats = NDArray[np.float64]
HALVES = 25
MORE = 150  # halves at most, where a group lies near the bound
NEAR = 2.0  # standard errors of its stability
BY_CHANCE, SURE = 0.6, 0.85  # stability at which a group begins to count, and counts as one, for a number of directions
FIRST = 20  # directions that are tried before more are
SPARE = 2  # directions that must be left over, else there may be more groups
MOST = 60
STEP = 4  # from one number to the next above that
TURNS = 12  # of all samples, of each number of directions


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
    of .85 (ours). That is steadier than counting findings, as nothing jumps where a stability passes the bound. Twelve
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
    part, drawn = columns[pool.rows], Halves(pool, multiplier, k, seed).groups(halves)
    best, most = None, -1.0
    for last, found in turns(np.tile(third_moments(columns), (TURNS, 1, 1, 1)), numbers, seed):
        for turn in found if last == number or number is None else ():
            marks = _marks(part[:, :last] @ turn)
            tested = Tested(last, turn, _overlaps(marks, drawn))
            if (score := _score(marks, tested.stability, pool)) > most:
                best, most = tested, score
    assert best is not None
    return best


def with_more_halves(
    tested: Tested, columns: Floats, pool: Pool, multiplier: float, bound: float, seed: int = 0
) -> Tested:
    """With halves drawn until no lost group lies within two standard errors of the bound, or there are 150.

    The halves that are there stay the first ones.
    """
    halves = Halves(pool, multiplier, columns.shape[1], seed, past=len(tested.overlaps))
    mine = _groups(tested, columns, pool)
    lost = _lost(mine, tested.stability, pool)
    while len(tested.overlaps) + HALVES <= MORE:
        near = np.abs(tested.stability - bound) < NEAR * tested.error
        if not (near & lost).any():
            break
        more = _overlaps(mine, halves.groups(HALVES))
        tested = replace(tested, overlaps=np.concatenate([tested.overlaps, more]))
    return tested


def _groups(tested: Tested, columns: Floats, pool: Pool) -> Marks:
    return _marks(columns[pool.rows, : tested.number] @ tested.turn)


def _marks(turned: Floats) -> Marks:
    """(p, T) the groups of the pool's samples: those of the turned columns' part there."""
    return indicators(members(turned), len(turned))


def _overlaps(mine: Marks, drawn: Sequence[tuple[NDArray[np.int64], Marks]]) -> Floats:
    """(H, T) Jaccard index of each group with the most similar one of each half."""
    overlaps = [jaccard(mine[places], again).max(axis=1) for places, again in drawn]
    return np.array(overlaps, dtype=np.float64).reshape(len(drawn), mine.shape[1])


def repeats(tested: Tested, columns: Floats, pool: Pool) -> NDArray[np.bool_]:
    """(T,) whether the target does not tell the group of a column from that of a more stable one."""
    return _repeats(_groups(tested, columns, pool), tested.stability, pool)


def _repeats(marks: Marks, stability: Floats, pool: Pool) -> NDArray[np.bool_]:
    same = pool.same(marks)
    order = np.argsort(-np.nan_to_num(stability), kind="stable")
    found = np.zeros(len(order), dtype=np.bool_)
    for rank, place in enumerate(order):
        first = [other for other in order[:rank] if not found[other]]
        found[place] = same[place, first].any()
    return found


def _lost(marks: Marks, stability: Floats, pool: Pool) -> NDArray[np.bool_]:
    return is_lost(*pool.apart(marks)) & ~_repeats(marks, stability, pool)


def may_hold_more(tested: Tested, columns: Floats, pool: Pool, bound: float, seed: int = 0) -> bool:
    """Whether there may be more groups than the directions that were sought (n, k) tell apart.

    Nearly all of these hold a lost group, and what was chosen does not settle it: it takes nearly all of them, or most
    of its groups do not come back. Where it does settle it, finer groups may come back as well, such as all pairs of
    the levels of two factors: the coarser ones stand.
    """
    k = columns.shape[1]
    if tested.number <= k - SPARE and 2 * stable_groups(tested, columns, pool, bound) >= tested.number:
        return False
    *_, (_, (turn,)) = turns(third_moments(columns)[None], rising_numbers(k), seed)
    return bool(_lost(_marks(columns[pool.rows] @ turn), np.zeros(k), pool).sum() > k - SPARE)


def stable_groups(tested: Tested, columns: Floats, pool: Pool, bound: float) -> int:
    """How many groups are lost and come back as often as the bound asks."""
    lost = _lost(_groups(tested, columns, pool), tested.stability, pool)
    return int((lost & (tested.stability >= bound)).sum())


def _score(marks: Marks, stability: Floats, pool: Pool) -> float:
    counted = np.flatnonzero(stability > BY_CHANCE)  # what is less stable counts for nothing, and is no group's first
    if not len(counted):
        return 0.0
    counts = np.clip((stability[counted] - BY_CHANCE) / (SURE - BY_CHANCE), 0, 1)
    return float(counts[_lost(marks[:, counted], stability[counted], pool)].sum())
