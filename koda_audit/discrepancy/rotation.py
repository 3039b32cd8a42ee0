"""Directions turned within their span so that each has its weight on few samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROTATIONS = ("none", "varimax")
STEPS = 1_000
TOLERANCE = 1e-10  # of the criterion, relative, from one step to the next


def varimax(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orthonormal columns (n, T) of the same span whose squared entries vary most (Kaiser 1958, without row weights).

    Groups of equal strength come mixed out of an eigenproblem, since any rotation of their directions is as good.
    What KODA (ICML 2026, arXiv 2606.04180) does about it is not said; varimax is ours to offer. A direction that is
    turned no longer solves the contrast problem: it may exceed epsilon in the reference, though together they cannot
    exceed what they had together.

    Returns:
        The columns, those with the weight on the fewest samples first.

    >>> mixed = np.array([[1.0, 1.0], [1.0, -1.0], [0.0, 0.0]]) / 2**0.5
    >>> np.abs(varimax(mixed)).max(axis=0).round(6).tolist()
    [1.0, 1.0]
    """
    # from a turn at random: columns that are mixed half and half are a point where nothing pulls
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=2 * directions.shape[1:]))[0]
    reached = 0.0
    for _ in range(STEPS):
        now = directions @ turn
        pull = now**3 - now * (now**2).mean(axis=0)
        left, values, right = np.linalg.svd(directions.T @ pull)
        turn = left @ right
        before, reached = reached, float(values.sum())
        if reached <= before * (1 + TOLERANCE):
            break
    columns: NDArray[np.float64] = directions @ turn
    return columns[:, np.argsort(-(columns**4).sum(axis=0), kind="stable")]


def turned(directions: NDArray[np.float64], rotation: str) -> NDArray[np.float64]:
    """``directions`` (n, T) as a name of ``ROTATIONS`` asks."""
    return varimax(directions) if rotation == "varimax" else directions
