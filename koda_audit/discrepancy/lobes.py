"""From a direction to the groups of samples at its two ends, and what the two kernels say about them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SIGNS = {"positive": 1.0, "negative": -1.0}
SMALLEST, LARGEST = 3, 1_000  # samples of a lobe
APART = 0.7  # similarity between two parts of a lobe, in that within the looser one, below which it is two groups


@dataclass(frozen=True)
class Lobe:
    """The samples at one end of a direction, or one of the groups among them, heaviest first.

    Attributes:
        direction: counts from 0.
        name: "positive" or "negative", with -a, -b, ... where that end holds several groups.
        rows: (m,) rows of the samples.
        weights: (m,) |x_i|, falling.
    """

    direction: int
    name: str
    rows: NDArray[np.int64]
    weights: NDArray[np.float64]


def oriented(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns (n, T) with signs such that the entry of largest magnitude is positive; on ties the first one.

    The sign of a direction means nothing; this makes it the same in every run.

    >>> oriented(np.array([[0.6], [-0.8]])).tolist()
    [[-0.6], [0.8]]
    """
    heaviest = np.argmax(np.abs(directions), axis=0)
    signs: NDArray[np.float64] = np.where(directions[heaviest, np.arange(directions.shape[1])] < 0, -1.0, 1.0)
    return directions * signs


def lobes(directions: NDArray[np.float64], part: Callable[[Tensor], Tensor]) -> list[Lobe]:
    """The lobes of all directions (n, T): both ends of each, or one where no entry has the other sign.

    Both ends are candidates: a direction is often one cluster minus another, and no sign rule tells them apart. An end
    holds the samples with s x_i >= 2 / sqrt(n), twice what equal weights would be, at most 1,000 and at least the 3
    heaviest of that sign. An end that holds two groups is split. (KODA, ICML 2026, arXiv 2606.04180, sec 6 takes the 50
    heaviest; both rules are ours.)

    Args:
        directions: unit columns over the n samples.
        part: rows (m,) -> (m, m), the target's exact kernel among them, in any scale: ``Blocks.part``.

    >>> from koda_audit._kernels.blocks import kernel_blocks
    >>> vectors = torch.tensor([[1.0, 0, 0]] * 3 + [[0, 1.0, 0]] * 3 + [[0, 0, 1.0]] * 34)
    >>> x = np.r_[0.5, 0.4, 0.4, 0.4, 0.35, 0.35, -0.3, np.zeros(33)]
    >>> found = lobes(x[:, None], kernel_blocks("cosine", {"image": vectors}, {}).part)
    >>> [(lobe.name, lobe.rows.tolist()) for lobe in found]
    [('positive-a', [0, 1, 2]), ('positive-b', [3, 4, 5]), ('negative', [6])]
    """
    found = []
    for number, x in enumerate(directions.T):
        for name, sign in SIGNS.items():
            rows = np.argsort(-sign * x, kind="stable")[:LARGEST]
            weights = sign * x[rows]
            kept = max(int((weights >= 2 / math.sqrt(len(x))).sum()), min(SMALLEST, int((weights > 0).sum())))
            if kept == 0:
                continue
            groups = list(_groups(part(torch.from_numpy(rows[:kept])).numpy()))
            for place, group in enumerate(groups):
                ending = f"-{_letters(place)}" if len(groups) > 1 else ""
                found.append(Lobe(number, name + ending, rows[group], weights[group]))
    return found


def _groups(gram: NDArray[np.float64]) -> Iterator[NDArray[np.int64]]:
    """Groups of a lobe by their kernel (m, m): the two sides of its leading centred eigenvector, if they are apart."""
    everything = np.arange(len(gram))
    if len(gram) >= 2 * SMALLEST:
        centred = gram - gram.mean(axis=0) - gram.mean(axis=1)[:, None] + gram.mean()
        side = np.linalg.eigh(centred)[1][:, -1] > 0
        side ^= not side[0]  # the group of the heaviest sample comes first
        halves = np.flatnonzero(side), np.flatnonzero(~side)
        if min(map(len, halves)) >= SMALLEST:
            within = min(_mean_of_pairs(gram[np.ix_(half, half)]) for half in halves)
            if gram[np.ix_(*halves)].mean() < APART * within:
                for half in halves:
                    yield from (half[group] for group in _groups(gram[np.ix_(half, half)]))
                return
    yield everything


def _letters(number: int) -> str:
    """a to z, then aa, ab, ...: also distinct in names of files."""
    before, last = divmod(number, 26)
    return (_letters(before - 1) if before else "") + chr(ord("a") + last)


def coherence(gram: Tensor, weights: NDArray[np.float64]) -> float:
    """w'Gw of the unit vector w along ``weights`` (m,), with ``gram`` (m, m), a part of K/n."""
    w = torch.from_numpy(weights / np.linalg.norm(weights))
    return (w @ gram @ w).item()


def similarity(gram: Tensor, n: int) -> float:
    """Mean of k(i, j) over pairs i < j of ``gram`` (m, m), a part of K/n; nan for one sample, which has no pairs."""
    return n * _mean_of_pairs(gram.numpy())


def _mean_of_pairs(gram: NDArray[np.float64]) -> float:
    m = len(gram)
    return float((gram.sum() - np.trace(gram)) / (m * (m - 1))) if m > 1 else math.nan
