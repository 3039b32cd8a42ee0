"""Does a lobe come back on other samples? Directions of random halves, and the lobe that is most like it in each."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from koda_audit._contrast.operators import DensePair
from koda_audit._contrast.solve import FewerDirections, solve_operators
from koda_audit._kernels.blocks import Blocks
from koda_audit.discrepancy.lobes import Lobe, lobes
from koda_audit.discrepancy.paths import Goal
from koda_audit.discrepancy.rotation import turned

HALVES = 25
POOL = 2_000  # samples from which halves are drawn
TINY = np.finfo(np.float64).tiny
TOLERANCE = 1e-2  # of the residual: lobes no longer change below it


def stability(
    found: Sequence[Lobe],
    directions: NDArray[np.float64],
    target: Blocks,
    reference: Blocks,
    goal: Goal,
    halves: int = HALVES,
) -> NDArray[np.float64]:
    """Clusterwise stability of each lobe, 0 to 1 (Hennig 2007, here for contrast directions).

    Directions and lobes are found again on random halves of the samples, with the same exact kernels and at an epsilon
    of at least twice a random direction's coherence there. A lobe is compared with every lobe of a half by Jaccard on
    the half's samples; the best of these, averaged over the halves, is its stability. Above 2,000 samples the halves
    are those of 2,000 drawn ones, and a lobe stands for the lobe of the same end there that has most of its samples in
    common with it: the lobe itself may have been cut at its heaviest.

    Args:
        found: lobes of all samples.
        directions: (n, T), whose lobes they are.
        target: exact kernel of the target.
        reference: that of the reference.
        goal: epsilon, number of directions, multiplier and seed, as for all samples.
        halves: how many.

    Returns:
        (len(found),), nan with fewer than 6 samples.
    """
    n = target.n
    if min(n, POOL) // 2 < 3:
        return np.full(len(found), np.nan)  # halves of so few samples have no direction
    random = np.random.default_rng([goal.seed, 1])
    pool = np.sort(random.choice(n, POOL, replace=False)) if n > POOL else np.arange(n)
    kernels = [n * blocks.part(torch.from_numpy(pool)) for blocks in (target, reference)]
    drawn = _drawn(found, directions, pool, kernels[0])
    best = np.zeros((halves, len(found)))
    for number in range(halves):
        half = np.sort(random.choice(len(pool), len(pool) // 2, replace=False))
        again = [frozenset(half[lobe.rows].tolist()) for lobe in _lobes(kernels, half, goal)]
        for place, members in enumerate(drawn):
            mine = members.intersection(half.tolist())
            best[number, place] = max((len(mine & other) / len(mine | other) for other in again), default=0.0)
    mean: NDArray[np.float64] = best.mean(axis=0)
    return mean


def _drawn(
    found: Sequence[Lobe], directions: NDArray[np.float64], pool: NDArray[np.int64], kernel: Tensor
) -> list[frozenset[int]]:
    """The places in the pool that stand for each lobe."""
    place = {row: number for number, row in enumerate(pool.tolist())}
    members = [frozenset(place[row] for row in lobe.rows.tolist() if row in place) for lobe in found]
    if len(pool) == len(directions):
        return members
    part = directions[pool]
    there = lobes(part / np.linalg.norm(part, axis=0).clip(min=TINY), lambda rows: kernel[rows][:, rows])
    whole = [(lobe.direction, lobe.name.partition("-")[0], frozenset(lobe.rows.tolist())) for lobe in there]
    stand_ins = []
    for lobe, mine in zip(found, members, strict=True):
        end = lobe.direction, lobe.name.partition("-")[0]
        same = [rows for *other, rows in whole if tuple(other) == end and rows & mine]
        stand_ins.append(max(same, key=lambda rows: len(rows & mine) / len(rows | mine), default=mine))
    return stand_ins


def _lobes(kernels: Sequence[Tensor], half: NDArray[np.int64], goal: Goal) -> list[Lobe]:
    rows, m = torch.from_numpy(half), len(half)
    target, reference = (kernel[rows][:, rows] / m for kernel in kernels)
    again = replace(goal, epsilon=None if goal.epsilon is None else max(goal.epsilon, 2 / m))
    count = min(goal.n_directions, m - 2)
    pair = DensePair(target, reference)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewerDirections)  # a half then offers fewer lobes, and that is counted
        contrast = solve_operators(
            pair, again.epsilon, count, goal.multiplier, TOLERANCE, goal.seed, goal.mixed, whole_up_to=0
        )
    return lobes(turned(contrast.directions, goal.rotation), lambda rows: target[rows][:, rows])
