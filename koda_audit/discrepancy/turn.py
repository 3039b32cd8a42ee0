"""A subspace of directions turned so that each column has its weight on few samples, all of one sign."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STARTS = 2  # at random, beside the turn of the next smaller subspace
ALONE = 6  # at random, where there is none
TRIAL = 20  # steps after which the best start of each subspace goes on alone
STEPS = 200
TOLERANCE = 1e-5  # of the criterion, relative, from one step to the next


def oriented(columns: Floats) -> Floats:
    """Columns (n, k) with signs such that no third moment is negative: those of eigenvectors are a library's choice.

    >>> oriented(np.array([[-0.8], [0.6]])).tolist()
    [[0.8], [-0.6]]
    """
    signs: Floats = np.where((columns**3).sum(axis=0) < 0, -1.0, 1.0)
    return columns * signs


def third_moments(columns: Floats) -> Floats:
    """sum over the samples of x_a x_b x_c, (k, k, k), of columns (n, k).

    All that the turn depends on: its cost does not grow with the samples, and the moments of the first T columns are a
    corner of those of all.

    >>> third_moments(np.array([[1.0, 2.0], [0.0, 1.0]]))[0, 1].tolist()
    [2.0, 4.0]
    """
    n, k = columns.shape
    products = (columns[:, :, None] * columns[:, None, :]).reshape(n, k * k)
    moments: Floats = (products.T @ columns).reshape(k, k, k)
    return moments


def turns(moments: Floats, numbers: Sequence[int], seed: int = 0) -> Iterator[tuple[int, Floats]]:
    """For each number T of directions the rotations R (b, T, T) that maximise the sum of the third moments of X R.

    The indicator of a group that holds less than half of the samples is the extreme: one-sided and sparse. The fixed
    point R <- polar(X'(XR)^2) is symmetric FastICA with skewness as its contrast (Hyvarinen 1999, IEEE Trans. Neural
    Networks 10, 626), on directions of a contrast instead of whitened data (ours). From the turn of the next smaller
    number with the new directions left as they are, and from two random ones (six, and no turn, for the first); the
    largest sum after 20 steps counts and goes on. Signs are such
    that every column has a third moment that is not negative.

    Args:
        moments: (b, k, k, k) ``third_moments`` of b subspaces, whose leading columns are nested.
        numbers: rising, the last at most k.
        seed: of the random starts, which all subspaces share.

    >>> group = np.array([[1.0, 1.0], [1.0, -1.0], [0.0, 0.0]]) / 2**0.5  # two samples, mixed
    >>> for number, turn in turns(third_moments(group)[None], [1, 2]):
    ...     pass
    >>> (group @ turn[0]).max(axis=0).round(6).tolist()
    [1.0, 1.0]
    """
    b, before = len(moments), np.ones((len(moments), 0, 0))
    for number in numbers:
        corner = moments[:, :number, :number, :number]
        known = before.shape[1]
        grown = np.tile(np.eye(number), (b, 1, 1))
        grown[:, :known, :known] = before
        random = np.random.default_rng([seed, number]).standard_normal((STARTS if known else ALONE, number, number))
        starts = [grown, *(np.broadcast_to(np.linalg.qr(start)[0], grown.shape) for start in random)]
        tried = [_ascend(corner, start.copy(), TRIAL) for start in starts]
        best = np.argmax([reached for _, reached in tried], axis=0)
        before, _ = _ascend(corner, np.stack([tried[start][0][place] for place, start in enumerate(best)]), STEPS)
        yield number, before


def _ascend(moments: Floats, turn: Floats, steps: int) -> tuple[Floats, Floats]:
    """The rotations (b, T, T) at the end of the iteration, and the sums (b,) that they reach."""
    b, t = turn.shape[:2]
    flat = np.ascontiguousarray(moments).reshape(b, t * t, t)
    reached, active = np.full(b, -np.inf), np.arange(b)
    for _ in range(steps):
        left, values, right = np.linalg.svd(_pull(flat[active], turn[active]))
        turn[active] = left @ right
        now = values.sum(axis=1)
        rising = now > reached[active] * (1 + TOLERANCE)
        reached[active] = now
        active = active[rising]
        if not len(active):
            break
    third = (_pull(flat, turn) * turn).sum(axis=1)
    return turn * np.where(third < 0, -1.0, 1.0)[:, None, :], np.abs(third).sum(axis=1)


def _pull(flat: Floats, turn: Floats) -> Floats:
    """X'(XR)^2, (b, T, T), from the moments (b, T * T, T)."""
    b, t = turn.shape[:2]
    once = (flat @ turn).reshape(b, t, t, t)
    pull: Floats = np.einsum("sabj,sbj->saj", once, turn)
    return pull
