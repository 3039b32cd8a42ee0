"""Zero-shot classification: which class prompt lies nearest to an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from koda_audit._stats.jackknife import left_out_intervals
from koda_audit.embeddings.checks import whole_numbers
from koda_audit.errors import InputError
from koda_audit.evaluation.inputs import one_label_each, several_labels, unit_rows
from koda_audit.evaluation.ranks import TIED, expected_hits, ranks
from koda_audit.evaluation.scores import Scores, per_class, per_image, together


def zeroshot_classification(image: Any, class_text: Any, labels: ArrayLike) -> Scores:
    """The numbers of clip_benchmark 1.6 (``metrics/zeroshot_classification.py``), in float64.

    With one label an image ``acc1``, ``acc5`` (nan with fewer than five classes, as there) and
    ``mean_per_class_recall`` over the classes that occur; with several ``mean_average_precision``, in which a class
    without images counts 0, as there. Classes that lie equally near count what a random order of them would give;
    clip_benchmark takes the order of its sort.

    Args:
        image: (n, d), any positive length.
        class_text: (C, d) one vector a class: the mean of its normalised prompts.
        labels: (n,) class indices, or (n, C) zeros and ones.

    Returns:
        Outcomes, one an image, of ``acc1``, ``acc5`` and ``mean_per_class_recall``.

    Raises:
        InputError: vectors of different widths, a zero row, labels that fit neither form, a single class.

    >>> zeroshot_classification([[1, 0], [2, 1], [0, 3]], np.eye(2), [0, 1, 1]).values
    {'acc1': 0.6666666666666666, 'acc5': nan, 'mean_per_class_recall': 0.75}
    >>> zeroshot_classification([[1, 0], [2, 1], [0, 3]], np.eye(2), [[0, 0], [1, 0], [0, 1]]).values
    {'mean_average_precision': 0.75}
    """
    images, classes = unit_rows(image=image, class_text=class_text)
    n, count = len(images), len(classes)
    flags = whole_numbers(labels, "labels")
    if flags.ndim == 2:
        return _several(np.asarray((images @ classes.T).cpu()), several_labels(flags, n, count).astype(bool))
    if count < 2:
        raise InputError("there is a single class, so every image would be right: expected at least two classes")
    flags = one_label_each(flags, n, count)
    own = (images * classes[torch.from_numpy(flags).to(classes.device)]).sum(dim=1)
    nearer, tied = ranks(images, own, classes)
    outcomes = {f"acc{k}": per_image(expected_hits(nearer, tied, k)) for k in (1, 5) if k == 1 or count >= k}
    none = {} if count >= 5 else {"acc5": float("nan")}
    return together(Scores.of(outcomes, none), per_class("mean_per_class_recall", outcomes["acc1"].values, flags))


def _several(cosines: NDArray[np.float64], relevant: NDArray[np.bool_]) -> Scores:
    """Its interval takes for given which classes occur: the last image of a class would take all of its precision."""
    occur = np.flatnonzero(relevant.any(axis=0))

    def mean(rows: NDArray[np.int64]) -> dict[str, float]:
        left = [number for number in occur if relevant[rows, number].any()]
        each = [average_precision(cosines[rows, number], relevant[rows, number]) for number in left]
        share = len(occur) / relevant.shape[1]
        return {"mean_average_precision": float(np.mean(each)) * share if each else 0.0}

    n = len(cosines)
    return Scores(mean(np.arange(n)), {}, left_out_intervals(mean, n))


def average_precision(scores: NDArray[np.float64], relevant: NDArray[np.bool_]) -> float:
    """Mean precision at the places of the relevant samples, best score first; 0 where none is relevant.

    Equal scores count what their random order gives on average (McSherry and Najork, ECIR 2008): in a run
    of t equals, r of them relevant, that follows s samples with R relevant, place s + i holds a relevant one with
    chance r / t, and then R + 1 + (i - 1) (r - 1) / (t - 1) are relevant up to there.

    Args:
        scores: (n,)
        relevant: (n,)

    >>> average_precision(np.array([3.0, 2.0, 1.0]), np.array([True, False, True]))
    0.8333333333333333
    >>> average_precision(np.array([1.0, 1.0]), np.array([True, False]))  # 1 or 1/2
    0.75
    """
    order = np.argsort(-scores, kind="stable")
    run = np.cumsum(np.diff(-scores[order], prepend=-np.inf) > TIED) - 1
    size, right = np.bincount(run), np.bincount(run, weights=relevant[order])
    first, before = (np.cumsum(sums) - sums for sums in (size, right))
    place = np.arange(len(scores))
    earlier = (place - first[run]) * (right[run] - 1) / np.maximum(size[run] - 1, 1)
    precision = (before[run] + 1 + earlier) / (place + 1)
    return float((right[run] / size[run] * precision).sum() / max(relevant.sum(), 1))
