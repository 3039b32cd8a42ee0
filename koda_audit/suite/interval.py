"""Confidence intervals of means over queries, several of which may belong to one image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

DRAWS = 1_000
LEVEL = 0.95
_BLOCK = 50  # draws at once: (50, images) stays small


def mean_interval(values: ArrayLike, image: ArrayLike, seed: int = 0) -> tuple[float, float]:
    """Ends of the 95 % percentile interval of the mean, by the bootstrap over images (cluster bootstrap; Davison and
    Hinkley, Bootstrap Methods and their Application, 1997, section 3.8): an image is drawn with all of its queries.

    Args:
        values: (q,) the outcome of each query.
        image: (q,) the image it belongs to; queries of one image are not independent.
        seed: of the draws.

    >>> mean_interval([1.0, 1.0, 1.0], [0, 1, 1])
    (1.0, 1.0)
    """
    each = np.asarray(values, dtype=np.float64)
    _, owner = np.unique(np.asarray(image), return_inverse=True)
    sums, sizes = np.bincount(owner, weights=each).astype(np.float64), np.bincount(owner)
    means = np.concatenate(list(_resampled(sums, sizes, seed)))
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _resampled(sums: NDArray[np.float64], sizes: NDArray[np.int64], seed: int) -> Iterator[NDArray[np.float64]]:
    random, n = np.random.default_rng([seed, 7]), len(sums)
    for _ in range(0, DRAWS, _BLOCK):
        drawn = random.integers(0, n, (_BLOCK, n))
        yield sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
