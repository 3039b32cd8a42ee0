"""Means over queries, several of which may belong to one image: an image is drawn again with all of its queries."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

DRAWS = 9_999
LEVEL = 0.95
_ENTRIES = 1_000_000  # numbers in memory at a time


def per_image(values: ArrayLike, image: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n,) sum of the values and (n,) number of queries of each of the n images that occur.

    Args:
        values: (q,) of each query.
        image: (q,) the image it belongs to, as whole numbers or text.

    >>> [part.tolist() for part in per_image([1, 0, 1], [7, 7, 3])]
    [[1.0, 1.0], [1.0, 2.0]]
    """
    _, owner = np.unique(np.asarray(image), return_inverse=True)
    sums = np.bincount(owner, weights=np.asarray(values, dtype=np.float64))
    return sums.astype(np.float64), np.bincount(owner).astype(np.float64)


def resampled_means(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], draws: int = DRAWS, seed: int = 0
) -> NDArray[np.float64]:
    """(draws,) sum of the sums over sum of the sizes, of n of the n images drawn with replacement.

    Images with the same sum and size are drawn as one kind, by how often the kind occurs: the same distribution, and
    hits and misses have few kinds (cluster bootstrap; Davison and Hinkley, Bootstrap Methods and their Application,
    1997, section 3.8).

    >>> resampled_means(np.array([1.0, 1.0]), np.array([1.0, 1.0]), draws=3).tolist()
    [1.0, 1.0, 1.0]
    """
    kinds, counts = np.unique(np.stack([sums, sizes], axis=1), axis=0, return_counts=True)
    random, block = np.random.default_rng([seed, 7]), max(1, _ENTRIES // len(kinds))
    found = []
    for first in range(0, draws, block):
        drawn = random.multinomial(counts.sum(), counts / counts.sum(), size=min(block, draws - first)) @ kinds
        found.append(drawn[:, 0] / drawn[:, 1])
    return np.concatenate(found)


def mean_interval(
    values: ArrayLike, image: ArrayLike, seed: int = 0, draws: int = DRAWS, level: float = LEVEL
) -> tuple[float, float]:
    """Low and high end of the percentile interval of the mean over queries.

    Args:
        values: (q,) the outcome of each query.
        image: (q,) the image it belongs to.

    >>> mean_interval([1.0, 1.0, 1.0], [0, 1, 1])
    (1.0, 1.0)
    """
    means = resampled_means(*per_image(values, image), draws, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def standard_error(sums: NDArray[np.float64], sizes: NDArray[np.float64]) -> float:
    """Of the mean over queries, from the spread between images (ratio estimator; Cochran, Sampling Techniques, 1977,
    section 6.4). nan for a single image.

    >>> round(standard_error(np.array([1.0, 0.0, 1.0, 0.0]), np.ones(4)), 4)  # s / sqrt(n)
    0.2887
    """
    n = len(sums)
    residuals = sums - sizes * (sums.sum() / sizes.sum())
    return float(np.sqrt(n / (n - 1) * (residuals**2).sum()) / sizes.sum()) if n > 1 else float("nan")
