"""Intervals of what is no mean over samples: the statistic again without each group of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

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


def left_out_intervals(
    statistics: Callable[[NDArray[np.int64]], Mapping[str, float]], n: int, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Intervals of several numbers of n samples: ``jackknife_interval`` over ``random_groups``.

    Args:
        statistics: (m,) rows that stay -> the numbers of these samples alone.
        n: samples; fewer than ``GROUPS`` are left out one at a time.
        seed: of the groups.

    Returns:
        Of the numbers that are finite with all samples and without any group; none of fewer than two samples.

    >>> x = np.array([1.0, 2.0, 3.0])
    >>> low, high = left_out_intervals(lambda rows: {"mean": x[rows].mean()}, 3)["mean"]
    >>> round(low, 3), round(high, 3)  # the interval of Student's t
    (-0.484, 4.484)
    """
    groups = min(GROUPS, n)
    if groups < 2:
        return {}
    group = random_groups(n, groups, seed)
    rest = [statistics(np.flatnonzero(group != number)) for number in range(groups)]
    found = {}
    for name, value in statistics(np.arange(n)).items():
        without = np.array([numbers.get(name, np.nan) for numbers in rest])
        if np.isfinite([value, *without]).all():
            found[name] = jackknife_interval(float(value), without)
    return found
