"""Does a group come back on other samples? Groups of random halves, and how many directions show most that do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.sparse.linalg import eigsh

from koda_audit.discrepancy.groups import Group, indicators, jaccard, members
from koda_audit.discrepancy.pool import Pool, is_lost
from koda_audit.discrepancy.turn import oriented, third_moments, turns

Floats = NDArray[np.float64]
HALVES = 25
MORE = 200  # halves at most, where a group lies near the bound
NEAR = 2.0  # standard errors of its stability
BY_CHANCE = (
    0.4  # stability that groups of no structure reach: what lies below does not count for a number of directions
)
FIRST = 20  # directions that are tried before more are
SPARE = 2  # directions that must be left over, else there may be more groups
MOST = 60
STEP = 4  # from one number to the next above that
WHOLE = 400  # samples of a half up to which everything is decomposed
SMALLEST = 2  # samples of a group in a half


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
        spread = self.overlaps.std(axis=0, ddof=1) if len(self.overlaps) > 1 else np.full(self.number, np.nan)
        error: Floats = spread / np.sqrt(len(self.overlaps))
        return error


class Halves:
    """Random halves of the pool, with the leading directions of each at the multiplier of all samples.

    ``past`` of them are left out: those of an earlier draw with that seed.
    """

    def __init__(self, pool: Pool, multiplier: float, most: int, seed: int, past: int = 0) -> None:
        self.most, self._n = most, len(pool.rows)
        self._difference = pool.target - multiplier * pool.reference
        self._random = np.random.default_rng([seed, 1])
        for _ in range(past):
            self._places()

    def draw(self, count: int) -> list[tuple[NDArray[np.int64], Floats]]:
        """The next ``count``: the places in the pool (m,), and columns (m, most)."""
        return [self._directions() for _ in range(count)]

    def _places(self) -> NDArray[np.int64]:
        return np.sort(self._random.choice(self._n, self._n // 2, replace=False))

    def _directions(self) -> tuple[NDArray[np.int64], Floats]:
        places = self._places()
        part = self._difference[np.ix_(places, places)]
        m, k = len(places), min(self.most, len(places) - 1)
        if m <= WHOLE:
            columns = scipy.linalg.eigh(part, subset_by_index=[m - k, m - 1], check_finite=False)[1]
            return places, oriented(columns[:, ::-1])
        start = np.random.default_rng(0).standard_normal(m)
        values, columns = eigsh(part, k=k, which="LA", v0=start, ncv=min(m, 2 * k + 20), tol=1e-5)
        return places, oriented(columns[:, np.argsort(-values)])


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

    The score of a number is the sum over its groups that are lost (``pool.is_lost``) of how far the stability exceeds
    .4 (ours). That is steadier than counting findings, as nothing jumps where a stability passes the bound.

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
    drawn = Halves(pool, multiplier, k, seed).draw(halves)
    found = list(_tested(columns, pool, drawn, numbers, seed))
    return found[-1] if number is not None else max(found, key=lambda tested: _score(tested, columns, pool))


def with_more_halves(
    tested: Tested, columns: Floats, pool: Pool, multiplier: float, bound: float, seed: int = 0
) -> Tested:
    """With halves drawn until no lost group lies within two standard errors of the bound, or there are 200.

    The halves that are there stay the first ones.
    """
    halves = Halves(pool, multiplier, tested.number, seed, past=len(tested.overlaps))
    while len(tested.overlaps) + HALVES <= MORE:
        near = np.abs(tested.stability - bound) < NEAR * tested.error
        if not (near & _lost(tested, columns, pool)).any():
            break
        (more,) = _tested(columns, pool, halves.draw(HALVES), [tested.number], seed, tested.turn)
        tested = replace(tested, overlaps=np.concatenate([tested.overlaps, more.overlaps]))
    return tested


def pool_groups(columns: Floats, pool: Pool, turn: Floats) -> list[Group | None]:
    """The groups of the pool's samples: those of the turned columns' part there."""
    return members(columns[pool.rows][:, : len(turn)] @ turn)


def _tested(
    columns: Floats,
    pool: Pool,
    drawn: Sequence[tuple[NDArray[np.int64], Floats]],
    numbers: Sequence[int],
    seed: int,
    turn: Floats | None = None,
) -> Iterator[Tested]:
    p = len(pool.rows)
    wide = [part for part in drawn if part[1].shape[1] >= numbers[-1]]
    moments = np.stack([third_moments(part[:, : numbers[-1]]) for part in (columns, *(half for _, half in wide))])
    for number, found in turns(moments, numbers, seed):
        ours = found[0] if turn is None else turn
        mine = indicators(pool_groups(columns, pool, ours), p)
        overlaps = np.zeros((len(drawn), number))
        for place, ((places, half), theirs) in enumerate(zip(wide, found[1:], strict=True)):
            again = indicators(members(half[:, :number] @ theirs, SMALLEST), len(places))
            overlaps[place] = jaccard(mine[places], again).max(axis=1)
        yield Tested(number, ours, overlaps)


def repeats(tested: Tested, columns: Floats, pool: Pool) -> NDArray[np.bool_]:
    """(T,) whether the target does not tell the group of a column from that of a more stable one."""
    same = pool.same(indicators(pool_groups(columns, pool, tested.turn), len(pool.rows)))
    order = np.argsort(-np.nan_to_num(tested.stability), kind="stable")
    found = np.zeros(tested.number, dtype=np.bool_)
    for rank, place in enumerate(order):
        first = [other for other in order[:rank] if not found[other]]
        found[place] = same[place, first].any()
    return found


def _lost(tested: Tested, columns: Floats, pool: Pool) -> NDArray[np.bool_]:
    marks = indicators(pool_groups(columns, pool, tested.turn), len(pool.rows))
    return is_lost(*pool.apart(marks)) & ~repeats(tested, columns, pool)


def stable_groups(tested: Tested, columns: Floats, pool: Pool, bound: float) -> int:
    """How many groups are lost and come back as often as the bound asks."""
    return int(((tested.stability >= bound) & _lost(tested, columns, pool)).sum())


def _score(tested: Tested, columns: Floats, pool: Pool) -> float:
    if not len(tested.overlaps):
        return 0.0
    beyond = np.clip(tested.stability - BY_CHANCE, 0, None)
    return float(beyond[_lost(tested, columns, pool)].sum())
