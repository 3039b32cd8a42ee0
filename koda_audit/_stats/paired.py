"""Two models, or two versions of one, on the same queries: by how much did the mean of the outcomes fall?"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from koda_audit._stats.clusters import DRAWS, per_image, resampled_means, standard_error
from koda_audit._stats.evidence import Bound, Evidence, lower_share, share
from koda_audit._stats.permutation import permutation_p_value


def mean_evidence(values: ArrayLike, image: ArrayLike, draws: int = DRAWS, seed: int = 0) -> Evidence:
    """The mean of outcomes, and how large it is at least.

    With one query an image the exact binomial bound; else the percentile of ``draws`` means over images drawn again,
    except where all images are alike: then the exact bound with as many units as images.

    Args:
        values: (q,) in [0, 1].
        image: (q,) the image that each query belongs to.

    >>> mean_evidence([1, 1, 0, 1], [0, 1, 2, 3]).method
    'exact binomial'
    """
    sums, sizes = per_image(values, image)
    n, means = len(sums), sums / sizes
    if sizes.max() == 1 or np.ptp(means) == 0:
        return share(float(means.sum()), n)
    resampled = np.sort(resampled_means(sums, sizes, draws, seed))
    return Evidence(
        float(sums.sum() / sizes.sum()),
        lambda level: _quantile(resampled, level),
        standard_error(sums, sizes),
        n,
        "bootstrap over images",
        lambda level: -_quantile(-resampled[::-1], level),
    )


def fall_evidence(before: ArrayLike, after: ArrayLike, image: ArrayLike, draws: int = DRAWS, seed: int = 0) -> Evidence:
    """The mean of ``before`` minus that of ``after``, and how large it is at least.

    Outcomes that are all 0 or 1, one query an image: ``hits_lost``, which is exact McNemar for a tolerance of 0. All
    others: the percentile of ``draws`` differences over images drawn again (paired cluster bootstrap), and at most 0
    unless a fall is also significant when each image may change sides at random (``sign_flip_p_value``); few changed
    images make the percentile alone too sure.

    Args:
        before, after: (q,) the outcomes of the same queries, in [0, 1] or weighted.
        image: (q,) the image that each query belongs to.

    >>> found = fall_evidence([1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0], range(6))
    >>> round(found.estimate, 4), round(found.p_value(0.0) * 2**5, 9)
    (0.8333, 1.0)
    """
    differences = np.asarray(before, dtype=np.float64) - np.asarray(after, dtype=np.float64)
    sums, sizes = per_image(differences, image)
    estimate, error = float(sums.sum() / sizes.sum()), standard_error(sums, sizes)
    if sizes.max() == 1 and np.isin(sums, (-1, 0, 1)).all():
        lost, gained, n = int((sums > 0).sum()), int((sums < 0).sum()), len(sums)
        return Evidence(
            estimate,
            lambda level: hits_lost(lost, gained, n, level),
            error,
            n,
            "exact McNemar",
            lambda level: -hits_lost(gained, lost, n, level),
        )
    resampled = resampled_means(sums, sizes, draws, seed)

    def bound_of(sign: int) -> Bound:
        means, none = np.sort(sign * resampled), sign_flip_p_value(sign * sums, draws, seed)

        def bound(level: float) -> float:
            found = _quantile(means, level)
            return found if none <= level else min(found, 0.0)

        return bound

    below, above = bound_of(1), bound_of(-1)
    method = "paired bootstrap over images"
    return Evidence(estimate, below, error, len(sums), method, lambda level: -above(level))


def hits_lost(lost: int, gained: int, n: int, level: float) -> float:
    """Lower confidence bound of the fall of a share of hits, of n pairs of which some were lost and some gained.

    The fall is the share of changed pairs times (2 pi - 1), with pi the chance that a change is a loss. Given how many
    changed, ``lost`` is binomial, so pi has an exact lower bound; it is above 1/2 exactly where McNemar's exact test
    finds a fall at this level, and only then is this bound above 0. There it is the product of both factors less
    both of their errors, each from its exact bound: on the scale of logarithms, by square and add (Zou and Donner
    2008). Otherwise it is the exact bound of (2 pi - 1) times the largest plausible share of changes. Away from 0 ours,
    since the conditional bound alone takes the number of changes for certain: it fails where nearly all are losses.

    >>> hits_lost(5, 0, 100, 0.05) > 0, hits_lost(4, 0, 100, 0.05) > 0  # 1/32 and 1/16
    (True, False)
    """
    changed = lost + gained
    direction = 2 * lower_share(lost, changed, level) - 1
    if direction <= 0:
        return direction * (1 - lower_share(n - changed, n, level))
    expected = (lost - gained) / changed
    errors = math.log(expected / direction), math.log(changed / n / lower_share(changed, n, level))
    return (lost - gained) / n * math.exp(-math.hypot(*errors))


def sign_flip_p_value(sums: NDArray[np.float64], draws: int = DRAWS, seed: int = 0) -> float:
    """One-sided p-value of 'before and after are exchangeable in every image', by the sum of the differences.

    For differences of -1, 0 and 1 it is exact McNemar, up to the draws.

    Args:
        sums: (n,) difference of each image.

    >>> abs(sign_flip_p_value(np.ones(3)) - 1 / 8) < 0.02
    True
    """
    sizes, counts = np.unique(np.abs(sums[sums != 0]), return_counts=True)
    positive = np.random.default_rng([seed, 8]).binomial(counts, 0.5, size=(draws, len(counts)))
    return permutation_p_value(float(sums.sum()), (2 * positive - counts) @ sizes)


def _quantile(resampled: NDArray[np.float64], level: float) -> float:
    """Beyond a tolerance exactly where (1 + #{resampled <= tolerance}) / (1 + #resampled) <= level; they are sorted."""
    place = math.floor(level * (len(resampled) + 1) + 1e-9) - 1
    return float(resampled[place]) if place >= 0 else -math.inf
