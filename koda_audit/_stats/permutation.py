"""P-values of 'these samples belong together', from samples that are paired at random."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

TIED = 1e-12  # values that differ by less are equal: that is what rounding makes of equal ones


def random_orders(n: int, count: int, seed: int = 0) -> Iterator[NDArray[np.int64]]:
    """``count`` orders (n,) of n samples, drawn with ``seed``.

    >>> [order.tolist() for order in random_orders(3, 2)]
    [[2, 0, 1], [1, 2, 0]]
    """
    generator = np.random.default_rng([seed, 1])
    return (generator.permutation(n) for _ in range(count))


def permutation_p_value(value: float, null: ArrayLike, higher: bool = True) -> float:
    """One-sided p-value (1 + #{null at least as extreme}) / (1 + #null) (Phipson and Smyth 2010, SAGMB 9, eq 2).

    Never 0, and valid for any number of draws: under the null it is at most p with probability at most p.

    Args:
        value: as observed.
        null: (P,) the same statistic of samples paired at random, P from 1.
        higher: whether large values speak against the null; else small ones do.

    >>> permutation_p_value(0.9, [0.1, 0.2, 0.95])
    0.5
    """
    draws = np.asarray(null, dtype=np.float64)
    beyond = draws >= value - TIED if higher else draws <= value + TIED
    return float((1 + beyond.sum()) / (1 + len(draws)))
