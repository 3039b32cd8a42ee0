"""Which groups are findings: those that come back, that the target holds apart and the reference does not keep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from koda_audit._arrays import chosen
from koda_audit._kernels.blocks import Blocks
from koda_audit.discrepancy.groups import Group, indicators
from koda_audit.discrepancy.pool import KEPT, MARGIN, Pool
from koda_audit.discrepancy.stability import NEAR, Tested

MIN_STABILITY = 0.7  # `python benchmarks findings` prints what it gives on planted and on null data
ROUNDING = 1e-6  # of the coherence: vectors kept in float32 leave as much where there is no difference
PAIRS_OF = 1_000  # members that all pairs are made of


@dataclass(frozen=True)
class Rule:
    """When a group is a finding. ``floor`` is an excess; nan where no self-comparison was made, and counts as 0."""

    min_stability: float = MIN_STABILITY
    floor: float = math.nan


def measures(
    rows: NDArray[np.int64], weights: NDArray[np.float64], target: Blocks, reference: Blocks
) -> dict[str, float]:
    """What the two exact kernels say about a group.

    Of more than 1,000 samples every k-th stands for all, by weight.

    Args:
        rows: (m,) of its samples, heaviest first.
        weights: (m,) of them, not all 0.

    Returns:
        ``coherence_target`` and ``coherence_reference``: w'(K/n)w of the unit vector w that has the weights on the
        group and nothing else; ``excess``, their difference; ``loss``, the excess in parts of the first: 0 where the
        reference holds the group as well, 1 where it holds nothing of it, nan where the target holds nothing either
        (ours); ``similarity_target`` and ``similarity_reference``: mean of k(i, j) over the pairs i < j of the group.

    >>> from koda_audit._kernels.table import kernel_blocks
    >>> mine, other = (
    ...     kernel_blocks("cosine", {"image": torch.tensor(rows)}, {})
    ...     for rows in ([[2.0, 0, 0], [1, 3**0.5, 0], [0, 0, 1]], [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    ... )
    >>> measured = measures(np.array([0, 1]), np.array([0.8, 0.6]), mine, other)
    >>> round(measured["excess"], 6), round(measured["loss"], 6), round(measured["similarity_target"], 6)
    (0.16, 0.324324, 0.5)
    """
    step = evenly(len(rows))
    parts = [blocks.part(torch.from_numpy(rows[step].copy())) for blocks in (target, reference)]
    (held, kept), (alike, other) = zip(*(_within(part, weights, step, target.n) for part in parts), strict=True)
    return {
        "coherence_target": held,
        "coherence_reference": kept,
        "excess": held - kept,
        # next to nothing is held where weights cancel: then there is nothing to lose
        "loss": 1 - kept / held if held * target.n > ROUNDING else math.nan,
        "similarity_target": alike,
        "similarity_reference": other,
    }


def evenly(m: int) -> slice:
    """At most 1,000 of m samples."""
    return slice(None, None, max(1, -(-m // PAIRS_OF)))


def _within(part: Tensor, weights: NDArray[np.float64], step: slice, n: int) -> tuple[float, float]:
    """Coherence of the group and mean kernel of its pairs, from K/n among the samples that stand for it."""
    w = weights / np.linalg.norm(weights)
    some, off = w[step], part.numpy() - np.diag(part.diagonal().numpy())
    m, pairs = len(some), float(some.sum() ** 2 - (some**2).sum())
    whole = float(w.sum() ** 2 - 1)
    coherence = (1 + (n * float(some @ off @ some) / pairs * whole if pairs else 0.0)) / n
    return coherence, n * float(off.sum()) / (m * (m - 1)) if m > 1 else math.nan


def held_apart(groups: Sequence[Group], pool: Pool, target: Blocks, reference: Blocks) -> list[dict[str, float]]:
    """``separation`` and ``retention`` of each group, see ``Pool.apart``.

    Exact where the pool is all samples; else on at most 1,000 of a group's samples and those of the pool beside them.
    """
    n = target.n
    if len(pool.rows) == n:
        place = np.empty(n, dtype=np.int64)
        place[pool.rows] = np.arange(n)
        found = pool.apart(indicators([Group(place[g.rows], g.weights, g.fit) for g in groups], n))
        return [{"separation": float(s), "retention": float(r)} for s, r in zip(*found, strict=True)]
    return [_apart(group, pool, target, reference) for group in groups]


def _apart(group: Group, pool: Pool, target: Blocks, reference: Blocks) -> dict[str, float]:
    mine = torch.from_numpy(group.rows[evenly(len(group.rows))].copy())
    others = torch.from_numpy(np.setdiff1d(pool.rows, group.rows))
    margins = []
    for blocks in (target, reference):
        p, q = (blocks.points(chosen(blocks.vectors, rows)) for rows in (mine, others))
        m = len(mine)
        within = (blocks.between(p, p).sum().item() - m) / (m * (m - 1))
        across = blocks.between(p, q).mean().item()
        margins.append((within, across))
    (within, across), (kept, beyond) = margins
    return {"separation": 1 - across / within, "retention": (kept - beyond) / (within - across)}


def verdicts(
    measured: Sequence[Mapping[str, float]],
    tested: Tested,
    again: NDArray[np.bool_],
    places: Sequence[int],
    rule: Rule,
) -> list[dict[str, Any]]:
    """For each group ``stability``, ``stability_error``, ``floor``, ``verdict``, ``near`` and ``finding``.

    The verdict is the first that applies: "within floor" (no more excess than the same model shows of itself, or than
    rounding makes), "not apart" (separation below .3: the target does not hold it apart from the others either), "kept"
    (retention above .5: the reference keeps more than half of it), "repeat" (the target does not tell it from a more
    stable one), "not tested" (no halves), "unstable", or "finding".
    ``near``: the stability lies within two standard errors of the bound. The rule is ours; `benchmarks findings` shows
    what its bounds give.

    Args:
        measured: ``measures`` and ``held_apart`` of each group.
        tested: the stability of the columns.
        again: of the columns, see ``stability.repeats``.
        places: the column of each group.

    >>> tested = Tested(2, np.eye(2), np.array([[0.9, 0.6], [0.9, 0.7]]))
    >>> both = [{"excess": 0.2, "coherence_target": 0.3, "separation": 0.5, "retention": 0.1}] * 2
    >>> [(row["verdict"], row["near"]) for row in verdicts(both, tested, np.zeros(2, bool), [0, 1], Rule())]
    [('finding', False), ('unstable', True)]
    """
    rows = []
    for values, place in zip(measured, places, strict=True):
        stability, error = float(tested.stability[place]), float(tested.error[place])
        verdict = _verdict(values, stability, bool(again[place]), rule)
        rows.append(
            {
                "stability": stability,
                "stability_error": error,
                "floor": rule.floor,
                "verdict": verdict,
                "near": verdict in ("finding", "unstable") and abs(stability - rule.min_stability) < NEAR * error,
                "finding": verdict == "finding",
            }
        )
    return rows


def _verdict(measured: Mapping[str, float], stability: float, again: bool, rule: Rule) -> str:
    noise = ROUNDING * abs(measured["coherence_target"])
    if measured["excess"] <= max(np.nan_to_num(rule.floor), noise):
        return "within floor"
    if not measured["separation"] >= MARGIN:
        return "not apart"
    if not measured["retention"] <= KEPT:
        return "kept"
    if again:
        return "repeat"
    if math.isnan(stability):
        return "not tested"
    return "finding" if stability >= rule.min_stability else "unstable"
