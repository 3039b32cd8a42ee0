"""The Fréchet distance of two Gaussians, without what their means add to it."""

from __future__ import annotations

import torch
from torch import Tensor


def frechet_cov(image: Tensor, text: Tensor) -> float:
    """tr(S_x + S_y - 2 (S_x^.5 S_y S_x^.5)^.5): the covariance term of the Fréchet (Bures-Wasserstein) distance.

    With fewer rows than columns it is mostly bias: two halves of one set lie far apart too, so read it beside its null.

    Args:
        image: (d, d) covariance.
        text: (d, d) covariance.

    >>> round(frechet_cov(torch.diag(torch.tensor([4.0, 1.0])), torch.diag(torch.tensor([1.0, 1.0]))), 6)
    1.0
    """
    values, vectors = torch.linalg.eigh(image)
    root = (vectors * significant(values).sqrt()) @ vectors.T
    product = root @ text @ root
    overlap = significant(torch.linalg.eigvalsh((product + product.T) / 2)).sqrt().sum()
    return max((image.trace() + text.trace() - 2 * overlap).item(), 0.0)


def significant(eigenvalues: Tensor) -> Tensor:
    """Eigenvalues of a matrix that has none below 0, with those that are rounding made 0.

    >>> significant(torch.tensor([-1e-17, 1.0], dtype=torch.float64)).tolist()
    [0.0, 1.0]
    """
    least = eigenvalues.max() * len(eigenvalues) * torch.finfo(eigenvalues.dtype).eps
    return torch.where(eigenvalues > least, eigenvalues, 0.0)
