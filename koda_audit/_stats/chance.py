"""What blind guessing reaches."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


def chance_level(
    metric: str, *, classes: int | None = None, gallery: int | None = None, right: ArrayLike = 1
) -> float | None:
    """Expected value of a metric where candidates are ranked at random; None where it is no one number or not known.

    ``acc1`` and ``acc5``: k of C classes, k / C. ``mean_per_class_recall``: 1 / C. Recall at k: the chance that one of
    the right candidates is among k drawn from the gallery (hypergeometric; k / n with a single right one), averaged
    over the queries. ``probe_accuracy`` and ``probe_mean_per_class_recall`` are as those of zero-shot classification.

    Args:
        metric: as in the table of results, also with the prefix ``aligned_``.
        classes: how many there are, for metrics of classification.
        gallery: how many candidates a query has, for recall.
        right: how many of them are right; one number, or one a query. 0 is a query that always misses.

    >>> chance_level("acc5", classes=10), round(chance_level("image_retrieval_recall@5", gallery=1000), 9)
    (0.5, 0.005)
    >>> round(chance_level("text_retrieval_recall@1", gallery=50, right=[5, 5, 0]), 4)
    0.0667
    """
    name, _, k = metric.removeprefix("aligned_").partition("@")
    if name in _HITS and classes:
        return min(1.0, _HITS[name] / classes)
    if name.endswith("_retrieval_recall") and k.isdecimal() and gallery:
        missed = stats.hypergeom.pmf(0, gallery, np.asarray(right), min(int(k), gallery))
        return float(np.mean(1 - missed))
    return None


_HITS = {"acc1": 1, "acc5": 5, "mean_per_class_recall": 1, "probe_accuracy": 1, "probe_mean_per_class_recall": 1}
