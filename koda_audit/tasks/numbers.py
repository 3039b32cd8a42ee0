"""From what an evaluation gives back to numbers with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from koda_audit._stats.clusters import mean_interval
from koda_audit.evaluation.scores import Scores
from koda_audit.metrics import within
from koda_audit.tasks.protocol import Number, Queries


def known(value: Any) -> float | None:
    """A number, or None where there is none (nan, and an infinity that JSON does not have, too).

    >>> known(np.float32(0.5)), known(float("nan")), known(None)
    (0.5, None, None)
    """
    return float(value) if value is not None and np.isfinite(value) else None


def averaged(
    metric: str, value: float, values: NDArray[Any], image: NDArray[Any], seed: int, **fields: Any
) -> tuple[Number, Queries]:
    """A mean over queries with its interval, that of the bootstrap over images, and the queries as they are kept.

    Args:
        value: the mean.
        values: (q,) the outcome of each query.
        image: (q,) the row of the image that it belongs to.
        fields: of the number.
    """
    ends = within(metric, mean_interval(values, image, seed))
    number = Number(metric, known(value), *ends, n=len(values), **fields)
    return number, (values.astype(np.float32), image.astype(np.int32))


def scored(
    scores: Scores,
    n: int,
    seed: int,
    names: Callable[[str], str] = str,
    settings: Mapping[str, Any] = MappingProxyType({}),
    chance: Callable[[str], float | None] = lambda metric: None,
) -> tuple[list[Number], dict[str, Queries]]:
    """The numbers of an evaluation, and the outcomes of queries of those that are means over them.

    Args:
        n: images.
        names: the key of each of its names.
        settings: that all depend on.
        chance: of a key.
    """
    numbers, queries = [], {}
    for name, value in scores.values.items():
        metric = names(name)
        fields: dict[str, Any] = {"chance": chance(metric), "settings": settings}
        ends, outcomes = scores.intervals.get(name), scores.outcomes.get(name)
        count = n if outcomes is None else len(outcomes.values)
        number = Number(metric, known(value), *within(metric, ends), n=count, **fields)
        if outcomes is not None:
            mean, queries[metric] = averaged(metric, value, outcomes.values, outcomes.image, seed, **fields)
            number = mean if ends is None else number
        numbers.append(number)
    return numbers, queries
