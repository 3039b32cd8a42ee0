"""How well a line tells images from texts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from koda_audit._gap.folds import Gaussians
from koda_audit._gap.sides import Sides

RIDGE = 1e-3  # of the mean variance of a dimension
ROWS_PER_DIMENSION = 5  # fewer rows to fit on are separable whatever they are (all are below 2; Cover 1965)


@dataclass(frozen=True)
class RidgeClassifier:
    """Ridge regression of +1 (image) and -1 (text), both sides with half of the weight, from their moments.

    With S the sum of the covariances divided by the count, g the gap and c the middle of the centroids, the prediction
    is (z - c)'w, w = (S + gg'/2 + ridge I)^-1 g.
    """

    direction: Tensor
    centre: Tensor

    @classmethod
    def fit(cls, sides: Gaussians) -> RidgeClassifier:
        image, text = sides
        gap = image.mean - text.mean
        one, other = (side.covariance * ((side.count - 1) / side.count) for side in sides)
        matrix = one + other + torch.outer(gap, gap) / 2
        spread = matrix.trace()
        if spread == 0:  # all rows of both sides are equal
            return cls(gap, image.mean)
        matrix.diagonal().add_(RIDGE * spread / len(gap))
        return cls(torch.linalg.solve(matrix, gap), (image.mean + text.mean) / 2)

    def predict(self, rows: Tensor) -> Tensor:
        """(n,) around 1 for images, around -1 for texts."""
        return rows @ self.direction - self.centre @ self.direction


def accuracy(classifier: RidgeClassifier, sides: Sides) -> float:
    """Mean of the accuracies on images and on texts, a prediction of 0 counting one half; chance is .5.

    >>> from koda_audit._gap.folds import folds
    >>> from koda_audit._gap.sides import sides
    >>> both = sides([[1, 0.1], [1, 0.2], [1, 0.3], [1, 0]], [[0.1, 1], [0.2, 1], [0.3, 1], [0, 1]])
    >>> import numpy as np
    >>> groups = np.arange(4) % 2
    >>> [accuracy(RidgeClassifier.fit(rest), held) for rest, held in folds(both, (groups, groups))]
    [1.0, 1.0]
    """
    image, text = classifier.predict(sides.image), classifier.predict(sides.text)
    return ((1 + image.sign().mean()) / 4 + (1 - text.sign().mean()) / 4).item()
