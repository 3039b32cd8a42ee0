"""Rows of length 1, whose inner products are cosines."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from koda_audit._arrays import Vectors
from koda_audit.errors import InputError

SCALE = 1e150  # entries whose squares have all their digits lie between 1 / SCALE and SCALE


def common_rows(vectors: Mapping[str, Vectors]) -> int:
    """How many rows each modality has.

    Raises:
        InputError: numbers of rows that differ.

    >>> common_rows({"image": torch.ones(2, 5), "text": torch.ones(2, 3)})
    2
    """
    rows = {name: len(values) for name, values in vectors.items()}
    if len(set(rows.values())) != 1:
        raise InputError(f"rows differ between modalities: {rows}; expected one image and one text a sample")
    return next(iter(rows.values()))


def at_scale(points: Tensor) -> Tensor:
    """Rows of the same directions whose squared lengths neither over- nor underflow; zeros stay.

    >>> at_scale(torch.tensor([[1e200, -2e200], [3.0, 4.0]], dtype=torch.float64)).tolist()
    [[0.5, -1.0], [3.0, 4.0]]
    """
    largest = torch.linalg.vector_norm(points, ord=torch.inf, dim=1, keepdim=True)
    extreme = (largest > 0) & ((largest < 1 / SCALE) | (largest > SCALE))
    return torch.where(extreme, points / largest, points) if extreme.any() else points


def directions(values: Tensor, name: str, offset: float = 0.0) -> Tensor:
    """Rows [x / sqrt(d) ; sqrt(offset)] divided by their length: (n, d), or (n, d + 1) where ``offset`` is not 0.

    The inner product of two of them is (x'y/d + offset) / sqrt((x'x/d + offset) (y'y/d + offset)), and nothing larger
    than a vector's squared length is ever formed, whatever power of it a kernel takes.

    Args:
        values: (n, d) raw vectors.
        name: of their modality, for the message.
        offset: not negative.

    Returns:
        float64, on the device of ``values``.

    Raises:
        InputError: a vector of length 0 without an offset.

    >>> directions(torch.tensor([[3.0, 4.0]]), "image").tolist()
    [[0.6, 0.8]]
    >>> directions(torch.tensor([[0.0, 4.0]]), "image", offset=8.0).round(decimals=6).tolist()
    [[0.0, 0.707107, 0.707107]]
    """
    points = values.to(torch.float64)
    if offset:
        constant = points.new_full((len(points), 1), (offset * points.shape[1]) ** 0.5)
        points = torch.cat([points, constant], dim=1)
    points = at_scale(points)
    lengths = torch.linalg.vector_norm(points, dim=1, keepdim=True)
    if not lengths.all():
        row = int((lengths == 0).nonzero()[0, 0])
        raise InputError(f"the {name} vector in row {row} is zero, so it has no direction: use the kernel 'rbf'")
    units: Tensor = points / lengths
    return units


def cosines(units: Tensor) -> Tensor:
    """Inner products of unit rows (n, d): an (n, n) matrix, symmetric, with ones on its diagonal.

    >>> cosines(torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)).tolist()
    [[1.0, 0.6], [0.6, 1.0]]
    """
    products = units @ units.T
    products = (products + products.T) / 2
    return products.fill_diagonal_(1.0)
