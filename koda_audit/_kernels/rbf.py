"""The exact Gaussian kernel of one or both modalities."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from koda_audit._kernels.directions import common_rows

MODALITIES = {"joint": ("image", "text"), "image": ("image",), "text": ("text",)}


def scaled_points(vectors: Mapping[str, Tensor], sigmas: Mapping[str, float]) -> Tensor:
    """Points on which a product of Gaussian kernels is one Gaussian kernel of width 1.

        z = [u / sigma_x ; v / sigma_t]
        exp(-|u - u'|^2 / 2 sigma_x^2) exp(-|v - v'|^2 / 2 sigma_t^2) = exp(-|z - z'|^2 / 2)

    The product is KODA's kernel of a pair (ICML 2026, arXiv 2606.04180, sec 5); this identity is ours, and exact.

    Args:
        vectors: modality -> (n, d) raw vectors of the same samples.
        sigmas: modality -> width, positive, in the units of the vectors.

    Returns:
        (n, sum of d), float64.

    Raises:
        InputError: numbers of rows that differ.

    >>> scaled_points({"image": torch.ones(2, 1), "text": torch.ones(2, 1)}, {"image": 0.5, "text": 2.0}).tolist()
    [[2.0, 0.5], [2.0, 0.5]]
    """
    common_rows(vectors)
    return torch.cat([values.to(torch.float64) / sigmas[name] for name, values in vectors.items()], dim=1)


def squared_distances(points: Tensor) -> Tensor:
    """|z_i - z_j|^2 as an (n, n) matrix, symmetric with a zero diagonal, from ``points`` (n, d).

    >>> squared_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.float64)).tolist()
    [[0.0, 25.0], [25.0, 0.0]]
    """
    # a common offset would cost digits in the difference below; the median, unlike the mean, is not moved by an outlier
    centred = points - points.median(dim=0).values
    squares = (centred * centred).sum(dim=1)
    distances = torch.addmm(squares[:, None] + squares, centred, centred.T, alpha=-2).clamp_(min=0)
    distances = (distances + distances.T) / 2
    return distances.fill_diagonal_(0.0)


def gaussian(p: Tensor, q: Tensor) -> Tensor:
    """exp(-|p_i - q_j|^2 / 2) of points (a, d) and (b, d): (a, b). An offset that both share costs digits.

    >>> gaussian(torch.zeros(1, 1).double(), torch.tensor([[0.0], [2.0]]).double()).round(decimals=6).tolist()
    [[1.0, 0.135335]]
    """
    squares = (p * p).sum(dim=1)[:, None] + (q * q).sum(dim=1)
    return torch.addmm(squares, p, q.T, alpha=-2).clamp_(min=0).div_(-2).exp_()
