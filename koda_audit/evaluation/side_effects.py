"""What an alignment does to zero-shot decisions, whatever it does to their accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from torch import Tensor

from koda_audit._stats.jackknife import left_out_intervals
from koda_audit.embeddings.checks import whole_numbers
from koda_audit.errors import InputError
from koda_audit.evaluation.inputs import one_label_each, several_labels, unit_rows
from koda_audit.evaluation.ranks import BLOCK, TIED
from koda_audit.evaluation.scores import Scores, per_image


def zeroshot_side_effects(
    image: Any, class_text: Any, labels: ArrayLike | None = None, before: ArrayLike | None = None
) -> Scores:
    """How evenly zero-shot decisions spread over the classes, and how many of them an alignment changed.

    ``prediction_gini`` and ``prediction_entropy`` are ``gini`` and ``normalised_entropy`` of how often each class is
    decided for; ``label_gini`` is the Gini coefficient of the labels, which a right model would have.
    ``class_bias_spread`` is the standard deviation of ``class_bias`` over the classes (the bias is that of Sato et al.
    on prediction-level hubness, its spread ours). ``changed_decisions`` is the share of images decided otherwise than
    ``before``.

    Args:
        image: (n, d), any positive length.
        class_text: (C, d) one vector a class, C of 2 or more.
        labels: (n,) class indices, or (n, C) zeros and ones; without them no ``label_gini``.
        before: (n,) ``decisions`` of the vectors that were not aligned; without them no ``changed_decisions``.

    Returns:
        Outcomes, one an image, of ``changed_decisions``: 1 where it changed.

    Raises:
        InputError: vectors of different widths, a zero row, a single class, labels or decisions that do not fit.

    >>> found = zeroshot_side_effects([[1, 0], [2, 1], [3, 1], [0, 1]], np.eye(2), before=[0, 1, 1, 1])
    >>> found.values["prediction_gini"], found.values["changed_decisions"]
    (0.25, 0.5)
    """
    images, classes = unit_rows(image=image, class_text=class_text)
    n, count = len(images), len(classes)
    if count < 2:
        raise InputError("a single class: how decisions spread needs at least two")
    now = _nearest(images, classes)
    flags = None if labels is None else _checked_labels(labels, n, count)

    def spread(rows: NDArray[np.int64]) -> dict[str, float]:
        predicted = np.bincount(now[rows], minlength=count)
        kept = torch.zeros(n, dtype=images.dtype)
        kept[torch.from_numpy(rows)] = 1 / len(rows)
        numbers = {
            "prediction_gini": gini(predicted),
            "prediction_entropy": normalised_entropy(predicted),
            "class_bias_spread": float(_bias(kept.to(images.device) @ images, classes).std(correction=0)),
        }
        if flags is not None:
            own = flags[rows]
            numbers["label_gini"] = gini(own.sum(axis=0) if own.ndim == 2 else np.bincount(own, minlength=count))
        return numbers

    others, intervals = spread(np.arange(n)), left_out_intervals(spread, n)
    changed = {}
    if before is not None:
        earlier = one_label_each(before, n, count, "before")
        changed = {"changed_decisions": per_image((now != earlier).astype(np.float64))}
    return Scores.of(changed, others, intervals)


def decisions(image: Any, class_text: Any) -> NDArray[np.int64]:
    """(n,) the nearest class of each image by cosine, the first of equals.

    >>> decisions([[1, 0], [1, 1], [1, 2]], np.eye(2)).tolist()
    [0, 0, 1]
    """
    return _nearest(*unit_rows(image=image, class_text=class_text))


def class_bias(image: Any, class_text: Any) -> NDArray[np.float64]:
    """(C,) b_c = -<g, t_c> with the gap g = mean image - mean class text, all of unit length.

    Moving images by -a g and texts by a g adds a b_c to the score of class c for every image, and else only what is the
    same for all classes.

    >>> class_bias([[1, 0]], np.eye(2)).tolist()
    [-0.5, 0.5]
    """
    images, classes = unit_rows(image=image, class_text=class_text)
    return np.asarray(_bias(images.mean(dim=0), classes).cpu())


def gini(counts: ArrayLike) -> float:
    """Gini coefficient 2 sum_r r m_(r) / (C sum m) - (C + 1) / C of counts m (C,), in ascending order.

    0 where all are equal, (C - 1) / C where one class has everything, nan where all are 0.

    >>> gini([5, 5]), gini([0, 0, 0, 8])
    (0.0, 0.75)
    """
    m = np.sort(np.asarray(counts, dtype=np.float64))
    size = len(m)
    if not m.any():
        return float("nan")
    return float(2 * (np.arange(1, size + 1) @ m) / (size * m.sum()) - (size + 1) / size)


def normalised_entropy(counts: ArrayLike) -> float:
    """Entropy of counts (C,), not all 0, over log C: 1 where all are equal, 0 where one class has everything.

    >>> normalised_entropy([5, 5]), normalised_entropy([0, 8])
    (1.0, 0.0)
    """
    m = np.asarray(counts, dtype=np.float64)
    return float(stats.entropy(m) / np.log(len(m)))


def _nearest(images: Tensor, classes: Tensor) -> NDArray[np.int64]:
    found = []
    for start in range(0, len(images), BLOCK):
        cosines = images[start : start + BLOCK] @ classes.T
        found.append((cosines >= cosines.amax(dim=1, keepdim=True) - TIED).byte().argmax(dim=1))
    return np.asarray(torch.cat(found).cpu())


def _bias(mean_image: Tensor, classes: Tensor) -> Tensor:
    return -classes @ (mean_image - classes.mean(dim=0))


def _checked_labels(labels: ArrayLike, n: int, classes: int) -> NDArray[np.int64]:
    flags = whole_numbers(labels, "labels")
    return several_labels(flags, n, classes) if flags.ndim == 2 else one_label_each(flags, n, classes)
