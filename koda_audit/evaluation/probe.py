"""Linear probe: logistic regression on stored image embeddings."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from koda_audit._options import finite_number, whole_number
from koda_audit.errors import InputError
from koda_audit.evaluation.inputs import one_label_each, unit_rows
from koda_audit.evaluation.scores import Scores, per_class, per_image, together

SWEEP = tuple(10.0**power for power in range(-2, 6))
VALIDATION = 0.2  # of the training images
ITERATIONS = 1000  # as in CLIP, appendix A.3


def linear_probe(
    train_image: Any,
    train_labels: ArrayLike,
    test_image: Any,
    test_labels: ArrayLike,
    C: float | None = None,
    seed: int = 0,
) -> Scores:
    """``probe_accuracy`` and ``probe_mean_per_class_recall`` of scikit-learn's multinomial logistic regression.

    L-BFGS on unit rows, at most 1,000 iterations, after CLIP (arXiv 2103.00020, appendix A.3); ``probe_converged`` is 0
    where they were too few. Not the ``lp_acc1`` of clip_benchmark, which trains by AdamW for a given number of epochs.

    Args:
        train_image: (n, d), any positive length.
        train_labels: (n,) class indices.
        test_image: (m, d)
        test_labels: (m,) class indices; a class that is not in training counts as missed.
        C: inverse strength of the L2 penalty, as in scikit-learn. Default: of 0.01, 0.1, … 100,000 the best on a fifth
            of the training images, the smallest of equals, then trained on all of them.
        seed: of that fifth, which is drawn class by class.

    Returns:
        Also the values ``probe_C`` and ``probe_converged``. Outcomes, one a test image, of both others.

    Raises:
        InputError: vectors of different widths, a zero row, labels that do not fit, fewer than two classes, ``C`` that
            is not positive, too few images for a choice of ``C``.

    >>> found = linear_probe([[1, 0], [0, 1]], [0, 1], [[3, 1], [1, 2], [2, 1]], [0, 1, 1], C=1.0)
    >>> found.values["probe_accuracy"], found.values["probe_mean_per_class_recall"]
    (0.6666666666666666, 0.75)
    """
    whole_number(seed, "seed")
    train, test = (units.cpu().numpy() for units in unit_rows(train_image=train_image, test_image=test_image))
    known = one_label_each(train_labels, len(train), name="train_labels")
    true = one_label_each(test_labels, len(test), name="test_labels")
    if len(np.unique(known)) < 2:
        raise InputError("train_labels hold a single class: a probe needs at least two")
    if C is None:
        C = _best(train, known, seed)
    elif not finite_number(C, "C", low=0):
        raise InputError("C is 0: expected a positive number, the inverse strength of the penalty")
    probe = _fitted(train, known, C)
    hits = (probe.predict(test) == true).astype(np.float64)
    settings = {"probe_C": C, "probe_converged": float(probe.n_iter_.max() < ITERATIONS)}
    balanced = per_class("probe_mean_per_class_recall", hits, true)
    return together(Scores.of({"probe_accuracy": per_image(hits)}), balanced, Scores(settings, {}))


def _best(image: NDArray[np.float64], labels: NDArray[np.int64], seed: int) -> float:
    try:
        fit, held = train_test_split(np.arange(len(labels)), test_size=VALIDATION, stratify=labels, random_state=seed)
    except ValueError as error:
        raise InputError(
            "too few training images to choose C on a fifth of each class: give more, or C (probe_C in a suite)"
        ) from error
    accuracies = [_fitted(image[fit], labels[fit], C).score(image[held], labels[held]) for C in SWEEP]
    return SWEEP[int(np.argmax(accuracies))]


def _fitted(image: NDArray[np.float64], labels: NDArray[np.int64], C: float) -> LogisticRegression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # ``probe_converged`` says it
        return LogisticRegression(C=C, max_iter=ITERATIONS).fit(image, labels)
