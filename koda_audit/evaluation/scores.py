"""What an evaluation gives back: numbers, and what each query contributed to them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from koda_audit._stats.jackknife import jackknife_interval, left_out_intervals


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Of each query, so that two models or alignments can be compared pair by pair.

    Attributes:
        values: (q,) in [0, 1], where 0 and 1 are all but ties; of a mean over classes weighted (``per_class``).
        image: (q,) the image row that each query belongs to; queries of one image are not independent.
    """

    values: NDArray[np.float64]
    image: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Scores:
    """Metric -> number, and metric -> its outcomes where it is a mean over queries.

    ``intervals``: of numbers whose 95 % interval is not that of the mean of their outcomes.

    >>> hits = Outcomes(np.array([1.0, 0.0]), np.arange(2))
    >>> Scores.of({"acc1": hits}, {"acc5": float("nan")}).values
    {'acc1': 0.5, 'acc5': nan}
    """

    values: Mapping[str, float]
    outcomes: Mapping[str, Outcomes]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in self.values.items())
        return f"Scores({shown})"

    @classmethod
    def of(
        cls,
        outcomes: Mapping[str, Outcomes],
        others: Mapping[str, float] = MappingProxyType({}),
        intervals: Mapping[str, tuple[float, float]] = MappingProxyType({}),
    ) -> Scores:
        """The mean of each of the outcomes, and other numbers, which have none."""
        means = {name: float(each.values.mean()) for name, each in outcomes.items()}
        return cls({**means, **others}, outcomes, intervals)


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


def per_class(name: str, values: NDArray[np.float64], labels: NDArray[np.int64]) -> Scores:
    """Mean over the classes that occur of the mean over their samples, as in scikit-learn's balanced accuracy.

    Outcomes are the values times n / (classes * samples of the class), so that their mean is the number, and an image
    that two models treat alike adds nothing to the difference. Their own spread is not that of the number, since the
    sizes of classes do not vary with it; its interval is that of ``left_out_intervals``.

    Args:
        name: of the number.
        values: (n,) one a sample.
        labels: (n,) class indices.

    >>> found = per_class("recall", np.array([1.0, 1.0, 0.0]), np.array([0, 0, 2]))
    >>> found.values, found.outcomes["recall"].values.tolist()
    ({'recall': 0.5}, [0.75, 0.75, 0.0])
    """

    def mean(rows: NDArray[np.int64]) -> dict[str, float]:
        counts = np.bincount(labels[rows])
        occur = counts > 0
        return {name: float((np.bincount(labels[rows], weights=values[rows])[occur] / counts[occur]).mean())}

    n = len(values)
    counts = np.bincount(labels)
    weights = n / (np.count_nonzero(counts) * counts[labels])
    return Scores(mean(np.arange(n)), {name: per_image(values * weights)}, left_out_intervals(mean, n))


def together(*parts: Scores) -> Scores:
    """Several as one.

    >>> together(Scores({"a": 1.0}, {}), Scores({"b": 2.0}, {})).values
    {'a': 1.0, 'b': 2.0}
    """
    names = ("values", "outcomes", "intervals")
    return Scores(*({key: each for part in parts for key, each in getattr(part, name).items()} for name in names))
