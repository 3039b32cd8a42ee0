"""Intervals of what is made of means over samples: the same means of samples drawn again."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

DRAWS = 1_000
LEVEL = 0.95


def resampled_counts(n: int, draws: int = DRAWS, seed: int | list[int] = 0) -> NDArray[np.int16]:
    """(draws, n): how often each sample is among n drawn with replacement; two bytes an entry.

    >>> resampled_counts(5, 3).sum(axis=1).tolist()
    [5, 5, 5]
    """
    random = np.random.default_rng(seed)
    counts = np.empty((draws, n), dtype=np.int16)  # a sample is never drawn 32,768 times
    for row in counts:
        row[:] = np.bincount(random.integers(0, n, n), minlength=n)
    return counts


def basic_interval(value: float, resampled: ArrayLike, level: float = LEVEL) -> tuple[float, float]:
    """Low and high end, 2 value - q, of the quantiles q of ``resampled`` (the basic, or reverse percentile, bootstrap;
    Davison and Hinkley, Bootstrap Methods and their Application, 1997, chapter 5).

    The squared length of a mean is too large by its variance, and that of a resampled mean by as much again.
    Percentiles add the two errors; this interval takes the first one off, and may therefore lie beside ``value``.

    Args:
        value: of all samples, by the formula that ``resampled`` was made with.
        resampled: (draws,) of samples drawn again.
        level: of confidence.

    Returns:
        nan twice where a resampled value is not finite, as 0/0 of one sample drawn n times.

    >>> basic_interval(1.0, [0.5, 1.0, 2.0], level=1.0)
    (0.0, 1.5)
    """
    drawn = np.asarray(resampled, dtype=np.float64)
    if not np.isfinite(drawn).all():
        return np.nan, np.nan
    tail = (1 - level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(2 * value - high), float(2 * value - low)
