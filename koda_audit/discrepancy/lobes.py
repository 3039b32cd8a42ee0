"""From a direction to the samples at its two ends, and what the two kernels say about them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from koda_audit._kernels.blocks import Blocks

SIGNS = {"positive": 1.0, "negative": -1.0}
LARGEST = 50  # samples a lobe; KODA shows and scores 50
SMALLEST = 3


@dataclass(frozen=True)
class Lobe:
    """The samples at one end of a direction, heaviest first.

    Attributes:
        name: "positive" or "negative".
        rows: (m,) rows of the samples.
        weights: (m,) |x_i|, falling.
        coherence_target: w'Aw of the unit vector w that has the lobe's part of x and nothing else; A = K/n, exact.
        coherence_reference: w'Bw of the same w.
        similarity_target: mean of k(i, j) over the pairs i < j of the lobe in the target, 1 where all are equal.
        similarity_reference: the same in the reference.
    """

    name: str
    rows: NDArray[np.int64]
    weights: NDArray[np.float64]
    coherence_target: float
    coherence_reference: float
    similarity_target: float
    similarity_reference: float


def oriented(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns (n, T) with signs such that the entry of largest magnitude is positive; on ties the first one.

    The sign of a direction means nothing; this makes it the same in every run.

    >>> oriented(np.array([[0.6], [-0.8]])).tolist()
    [[-0.6], [0.8]]
    """
    heaviest = np.argmax(np.abs(directions), axis=0)
    signs: NDArray[np.float64] = np.where(directions[heaviest, np.arange(directions.shape[1])] < 0, -1.0, 1.0)
    return directions * signs


def lobes(x: NDArray[np.float64], target: Blocks, reference: Blocks) -> list[Lobe]:
    """The lobes of one direction: both, or one where no entry has the other sign.

    Both ends are candidates: a direction is often one cluster minus another, and no sign rule tells them apart. A lobe
    keeps the samples with s x_i >= 2 / sqrt(n), twice what equal weights would be, at most 50 and at least the 3
    heaviest of that sign. (KODA, ICML 2026, arXiv 2606.04180, sec 6 takes the 50 heaviest; the rule is ours.)

    Args:
        x: (n,) unit vector.
        target: the exact kernel of the target model on the n samples.
        reference: that of the reference model.

    >>> from koda_audit._kernels.blocks import kernel_blocks
    >>> mine, other = (
    ...     kernel_blocks("cosine", {"image": torch.tensor(rows)}, {})
    ...     for rows in ([[2.0, 0, 0], [1, 3**0.5, 0], [0, 0, 1]], [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    ... )
    >>> pair, single = lobes(np.array([0.64, 0.48, -0.6]), mine, other)
    >>> pair.rows.tolist(), round(pair.coherence_target, 6), round(pair.similarity_target, 6)
    ([0, 1], 0.493333, 0.5)
    >>> single.rows.tolist(), math.isnan(single.similarity_target)
    ([2], True)
    """
    found = []
    for name, sign in SIGNS.items():
        rows = np.argsort(-sign * x, kind="stable")[:LARGEST]
        weights = sign * x[rows]
        kept = max(int((weights >= 2 / math.sqrt(len(x))).sum()), min(SMALLEST, int((weights > 0).sum())))
        if kept == 0:
            continue
        rows, weights = rows[:kept], weights[:kept]
        parts = [blocks.part(torch.from_numpy(rows)) for blocks in (target, reference)]
        coherences = [coherence(part, weights) for part in parts]
        found.append(Lobe(name, rows, weights, *coherences, *(_similarity(part, len(x)) for part in parts)))
    return found


def coherence(gram: Tensor, weights: NDArray[np.float64]) -> float:
    """w'Gw of the unit vector w along ``weights`` (m,), with ``gram`` (m, m), a part of K/n."""
    w = torch.from_numpy(weights / np.linalg.norm(weights))
    return (w @ gram @ w).item()


def _similarity(gram: Tensor, n: int) -> float:
    """Mean of k(i, j) over pairs i < j of ``gram`` (m, m), a part of K/n; nan for one sample, which has no pairs."""
    m = len(gram)
    return n * (gram.sum() - gram.diagonal().sum()).item() / (m * (m - 1)) if m > 1 else math.nan
