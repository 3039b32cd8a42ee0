"""Intervals of what is no mean over samples: the statistic again without each group of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

GROUPS = 20
LEVEL = 0.95


def random_groups(n: int, groups: int = GROUPS, seed: int = 0) -> NDArray[np.int64]:
    """(n,) the group of each sample, drawn with ``seed``; sizes differ by at most one.

    >>> np.bincount(random_groups(7, 3)).tolist()
    [3, 2, 2]
    """
    return np.random.default_rng(seed).permutation(np.arange(n) % groups)


def jackknife_interval(value: float, without: ArrayLike, level: float = LEVEL) -> tuple[float, float]:
    """Low and high end of an interval around ``value`` (delete-a-group jackknife; Kott 2001, Journal of Official
    Statistics 17).

    Student's t with G - 1 degrees of freedom, times the standard error sqrt((G - 1) / G * sum (v_g - mean v)^2).

    Args:
        value: of all samples.
        without: (G,) of all samples but those of one group, for each group.
        level: of confidence.

    >>> low, high = jackknife_interval(2.0, [1.5, 2.5])  # the mean of 1.5 and 2.5 again
    >>> round(low, 3), round(high, 3)
    (-4.353, 8.353)
    """
    rest = np.asarray(without, dtype=np.float64)
    groups = len(rest)
    error = np.sqrt((groups - 1) / groups * ((rest - rest.mean()) ** 2).sum())
    half = float(stats.t.ppf((1 + level) / 2, groups - 1) * error)
    return value - half, value + half
