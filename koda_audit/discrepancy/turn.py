"""A subspace of directions turned so that each column has its weight on few samples, all of one sign."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CHUNK = 4096  # samples whose products are held at a time
STARTS = 2  # at random, beside the turn of the next smaller subspace
ALONE = 6  # at random, where there is none
TRIAL = 10  # steps after which the best start of each subspace goes on alone
STEPS = 200
SINGULAR = 1e-6  # smallest singular value in parts of the largest, below which squares of them have no digits
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
    moments = np.zeros((k * k, k))
    for start in range(0, n, CHUNK):
        part = columns[start : start + CHUNK]
        moments += (part[:, :, None] * part[:, None, :]).reshape(len(part), k * k).T @ part
    return moments.reshape(k, k, k)


def turns(moments: Floats, numbers: Sequence[int], seed: int = 0) -> Iterator[tuple[int, Floats]]:
    """For each number T of directions the rotations R (b, T, T) that maximise the sum of the third moments of X R.

    The indicator of a group that holds less than half of the samples is the extreme: one-sided and sparse. The fixed
    point R <- polar(X'(XR)^2) is symmetric FastICA with skewness as its contrast (Hyvarinen 1999, IEEE Trans. Neural
    Networks 10, 626), on directions of a contrast instead of whitened data (ours). From the turn of the next smaller
    number with the new directions left as they are, and from two random ones (six, and no turn, for the first); the
    largest sum after ten steps counts and goes on. Signs are such that no column has a negative third moment.

    Args:
        moments: (b, k, k, k) ``third_moments`` of b subspaces, whose leading columns are nested.
        numbers: rising, the last at most k.
        seed: of the random starts, others for each subspace.

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
        random = np.random.default_rng([seed, number]).standard_normal((STARTS if known else ALONE, *grown.shape))
        tried = [_ascend(corner, start, TRIAL) for start in (grown, *np.linalg.qr(random)[0])]
        best = np.argmax([reached for _, reached in tried], axis=0)
        before, _ = _ascend(corner, np.stack([tried[start][0][place] for place, start in enumerate(best)]), STEPS)
        yield number, before


def _ascend(moments: Floats, turn: Floats, steps: int) -> tuple[Floats, Floats]:
    """The rotations (b, T, T) at the end of the iteration, and the sums (b,) that they reach, which never fall."""
    b, t = turn.shape[:2]
    flat = np.ascontiguousarray(moments).reshape(b, t * t, t)
    pull = _pull(flat, turn)
    reached, shift, active = _sum(pull, turn), np.zeros(b), np.arange(b)
    for _ in range(steps):
        new, values = _polar(pull[active] + shift[active, None, None] * turn[active])
        pulled = _pull(flat[active], new)
        now = _sum(pulled, new)
        gain = now - reached[active]
        # the sum is not convex, so a step can be too long: towards where it stands it becomes shorter
        shift[active[gain < 0]] += values[gain < 0]
        better = active[gain >= 0]
        turn[better], pull[better], reached[better] = new[gain >= 0], pulled[gain >= 0], now[gain >= 0]
        active = active[(gain < 0) | (gain > TOLERANCE * np.abs(now))]
        if not len(active):
            break
    third = (pull * turn).sum(axis=1)
    return turn * np.where(third < 0, -1.0, 1.0)[:, None, :], np.abs(third).sum(axis=1)


def _polar(matrices: Floats) -> tuple[Floats, Floats]:
    """The nearest rotation of each (b, T, T), and the mean of its singular values (b,)."""
    values, vectors = np.linalg.eigh(matrices.transpose(0, 2, 1) @ matrices)
    values = np.sqrt(values.clip(min=0))
    singular = values[:, 0] <= SINGULAR * values[:, -1]
    values[singular] = 1
    near = matrices @ (vectors / values[:, None, :]) @ vectors.transpose(0, 2, 1)
    # half the time of singular values and half of their digits, which one step of Newton and Schulz brings back
    rotation: Floats = 1.5 * near - 0.5 * near @ (near.transpose(0, 2, 1) @ near)
    if singular.any():
        left, values[singular], right = np.linalg.svd(matrices[singular])
        rotation[singular] = left @ right
    return rotation, values.mean(axis=1)


def _sum(pull: Floats, turn: Floats) -> Floats:
    """Sum of the third moments, (b,)."""
    total: Floats = np.einsum("bij,bij->b", pull, turn)
    return total


def _pull(flat: Floats, turn: Floats) -> Floats:
    """X'(XR)^2, (b, T, T), from the moments (b, T * T, T)."""
    b, t = turn.shape[:2]
    once = (flat @ turn).reshape(b, t, t, t)
    pull: Floats = np.einsum("sabj,sbj->saj", once, turn)
    return pull
