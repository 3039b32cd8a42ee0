"""What an evaluation gives back: numbers, and what each query contributed to them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from koda_audit._stats.jackknife import jackknife_interval


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Of each query, so that two models or alignments can be compared pair by pair.

    Attributes:
        values: (q,) in [0, 1]; 0 and 1 except where ties leave something to chance.
        image: (q,) the image row that each query belongs to; queries of one image are not independent.
    """

    values: NDArray[np.float64]
    image: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Scores:
    """Metric -> number, and metric -> its outcomes where it is a mean over queries.

    >>> hits = Outcomes(np.array([1.0, 0.0]), np.arange(2))
    >>> Scores.of({"acc1": hits}, {"acc5": float("nan")}).values
    {'acc1': 0.5, 'acc5': nan}
    """

    values: Mapping[str, float]
    outcomes: Mapping[str, Outcomes]

    @classmethod
    def of(cls, outcomes: Mapping[str, Outcomes], others: Mapping[str, float] = MappingProxyType({})) -> Scores:
        """The mean of each of the outcomes, and other numbers, which have none."""
        means = {name: float(each.values.mean()) for name, each in outcomes.items()}
        return cls({**means, **others}, outcomes)


def paired_change(before: Outcomes, after: Outcomes) -> tuple[float, float, float]:
    """Mean of after - before of the same queries, and a 95 % interval.

    The interval is that of the jackknife that leaves out one image after the other with all its queries, which are not
    independent. nan for a single image.

    >>> before, after = (per_image(np.array(values)) for values in ([0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]))
    >>> [round(value, 3) for value in paired_change(before, after)]
    [0.5, -0.419, 1.419]
    """
    difference = after.values - before.values
    sums, counts = np.bincount(before.image, weights=difference), np.bincount(before.image)
    sums, counts = sums[counts > 0], counts[counts > 0]
    value = float(difference.mean())
    if len(counts) < 2:
        return value, math.nan, math.nan
    return value, *jackknife_interval(value, (sums.sum() - sums) / (counts.sum() - counts))


def per_image(values: NDArray[np.float64]) -> Outcomes:
    """One query an image, in the order of the images."""
    return Outcomes(values, np.arange(len(values)))


def mean_per_class(values: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Mean over the classes that occur of the mean over their samples, as in scikit-learn's balanced accuracy.

    >>> mean_per_class(np.array([1.0, 1.0, 0.0]), np.array([0, 0, 2]))
    0.5
    """
    counts = np.bincount(labels)
    occur = counts > 0
    return float((np.bincount(labels, weights=values)[occur] / counts[occur]).mean())
