"""Which lobes are findings: they come back on other samples, and they exceed what the same model shows of itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from koda_audit._kernels.blocks import Blocks
from koda_audit.discrepancy.lobes import Lobe, coherence, similarity

# Hennig's bound of a stable cluster; `python benchmarks findings` shows what it gives on planted and on null data
MIN_STABILITY = 0.75
ROUNDING = 1e-6  # of the coherence: vectors kept in float32 leave as much where there is no difference
REPEAT = 0.5  # share of a lobe's samples that more stable lobes hold, from which it is theirs again


@dataclass(frozen=True)
class Rule:
    """When a lobe is a finding. ``floor`` is an excess; nan where no self-comparison was made, and counts as 0."""

    min_stability: float = MIN_STABILITY
    floor: float = math.nan


def measures(lobe: Lobe, target: Blocks, reference: Blocks) -> dict[str, float]:
    """What the two exact kernels say about a lobe.

    Returns:
        ``lobe_coherence_target`` and ``lobe_coherence_reference``: w'(K/n)w of the unit vector w that has the lobe's
        part of the direction and nothing else; ``excess``, their difference; ``loss``, the excess in parts of the
        first: 0 where the reference holds the lobe as well, 1 where it holds nothing of it, nan where the target holds
        nothing either (ours);
        ``similarity_target`` and ``similarity_reference``: mean of k(i, j) over the pairs i < j of the lobe.

    >>> from koda_audit._kernels.blocks import kernel_blocks
    >>> mine, other = (
    ...     kernel_blocks("cosine", {"image": torch.tensor(rows)}, {})
    ...     for rows in ([[2.0, 0, 0], [1, 3**0.5, 0], [0, 0, 1]], [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    ... )
    >>> measured = measures(Lobe(0, "positive", np.array([0, 1]), np.array([0.8, 0.6])), mine, other)
    >>> round(measured["excess"], 6), round(measured["loss"], 6), round(measured["similarity_target"], 6)
    (0.16, 0.324324, 0.5)
    """
    parts = [blocks.part(torch.from_numpy(lobe.rows)) for blocks in (target, reference)]
    held, kept = (coherence(part, lobe.weights) for part in parts)
    return {
        "lobe_coherence_target": held,
        "lobe_coherence_reference": kept,
        "excess": held - kept,
        # next to nothing is held where weights cancel: then there is nothing to lose
        "loss": 1 - kept / held if held * target.n > ROUNDING else math.nan,
        "similarity_target": similarity(parts[0], target.n),
        "similarity_reference": similarity(parts[1], reference.n),
    }


def owned(
    found: Sequence[Lobe], measured: Sequence[Mapping[str, float]], stable: NDArray[np.float64]
) -> list[NDArray[np.bool_]]:
    """Which samples of each lobe are its own: (m,) each, so that lobes that overlap share no sample.

    A sample belongs to the most stable of the lobes that hold it, of equal ones to that with the larger excess. (KODA,
    ICML 2026, arXiv 2606.04180, does not say what becomes of such samples; the rule is ours.)

    >>> lobes = [Lobe(0, "positive", np.arange(4), np.ones(4)), Lobe(1, "positive", np.array([3, 7]), np.ones(2))]
    >>> [mine.tolist() for mine in owned(lobes, [{"excess": 0.2}] * 2, np.array([0.8, 0.9]))]
    [[True, True, True, False], [True, True]]
    """
    taken: NDArray[np.int64] = np.empty(0, dtype=np.int64)
    own = [np.empty(0, dtype=np.bool_)] * len(found)
    for number in sorted(range(len(found)), key=lambda i: (-np.nan_to_num(stable[i]), -measured[i]["excess"])):
        own[number] = ~np.isin(found[number].rows, taken)
        taken = np.union1d(taken, found[number].rows)
    return own


def verdicts(
    measured: Sequence[Mapping[str, float]], stable: NDArray[np.float64], own: Sequence[NDArray[np.bool_]], rule: Rule
) -> list[dict[str, Any]]:
    """For each lobe ``stability``, ``floor``, ``own`` (how many samples are), ``verdict`` and ``finding``.

    The verdict is the first that applies: "within floor" (no more excess than the same model shows of itself, or
    than rounding makes), "not tested" (no stability), "unstable", "repeat" (half of its samples are not its own), or
    "finding". The rule is ours.

    >>> both = [{"excess": 0.2, "lobe_coherence_target": 0.3}] * 2
    >>> own = [np.array([True] * 4), np.array([True, False, False])]
    >>> [row["verdict"] for row in verdicts(both, np.array([0.9, 0.8]), own, Rule())]
    ['finding', 'repeat']
    """
    rows = []
    for values, stability, mine in zip(measured, stable.tolist(), own, strict=True):
        verdict = _verdict(values, stability, float(mine.mean()), rule)
        rows.append(
            {
                "stability": stability,
                "floor": rule.floor,
                "own": int(mine.sum()),
                "verdict": verdict,
                "finding": verdict == "finding",
            }
        )
    return rows


def _verdict(measured: Mapping[str, float], stability: float, own: float, rule: Rule) -> str:
    noise = ROUNDING * abs(measured["lobe_coherence_target"])
    if measured["excess"] <= max(np.nan_to_num(rule.floor), noise):
        return "within floor"
    if math.isnan(stability):
        return "not tested"
    if stability < rule.min_stability:
        return "unstable"
    return "finding" if own > REPEAT else "repeat"
