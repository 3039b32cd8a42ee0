"""A confidence interval around each metric, and the null beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from koda_audit._stats.bootstrap import basic_interval
from koda_audit._stats.jackknife import jackknife_interval

# an interval of the square, then its root: squares of means are what the basic bootstrap sets right exactly
ROOTS = ("centroid_gap", "raw_gap_rms", "dist_gap_paired", "mean_length_image", "mean_length_text")
# they estimate what frechet_mean estimates with a bias, so its interval, without that bias, is that of the one which is
# right: with pairs, sides are drawn together, and the other one assumes that they are not
UNBIASED = {True: "centroid_gap_sq_unbiased_paired", False: "centroid_gap_sq_unbiased"}

Limits = dict[str, tuple[float, float]]


class Estimate(NamedTuple):
    """A metric, the ends of its 95 % interval, and its value for two random halves of one modality; nan where none."""

    value: float
    low: float
    high: float
    null: float


def bootstrap_limits(values: Mapping[str, float], resampled: Mapping[str, NDArray[np.float64]], paired: bool) -> Limits:
    """Of the metrics of the first order, from their values (B,) for samples drawn again.

    >>> bootstrap_limits({"raw_gap_rms": 2.0}, {"raw_gap_rms": np.full(5, 2.0)}, paired=True)
    {'raw_gap_rms': (2.0, 2.0)}
    """
    found = {}
    for key, value in values.items():
        if key in ROOTS:
            low, high = basic_interval(value**2, resampled[key] ** 2)
            found[key] = math.sqrt(max(low, 0)), math.sqrt(max(high, 0))
        elif key == UNBIASED[paired]:
            found[key] = basic_interval(values["frechet_mean"], resampled["frechet_mean"])
        elif key != UNBIASED[not paired]:
            found[key] = basic_interval(value, resampled[key])
    return found


def jackknife_limits(values: Mapping[str, float], without: list[dict[str, float]]) -> Limits:
    """Of other metrics, from their values without each group; none where no groups were made."""
    if not without:
        return {}
    return {key: jackknife_interval(values[key], [of[key] for of in without]) for key in without[0]}


def nearest_null(value: float, image: float, text: float) -> float:
    """Of the nulls of the two modalities the one nearest to the value: what a claim must stand out from.

    >>> nearest_null(0.8, 0.1, 0.2), nearest_null(0.1, 0.3, math.nan)
    (0.2, 0.3)
    """
    known = [null for null in (image, text) if not math.isnan(null)]
    return min(known, key=lambda null: abs(null - value), default=math.nan)
