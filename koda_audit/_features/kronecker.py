"""Exact features of cosine and polynomial kernels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from koda_audit._features.maps import check_inputs, check_vectors
from koda_audit._kernels.directions import directions
from koda_audit._kernels.polynomial import check_polynomial
from koda_audit.errors import InputError

WIDEST = 10_000  # beyond it random features are narrower, and good


@dataclass(frozen=True, eq=False)
class KroneckerFeatures:
    """Rows y_1 (x) y_2 (x) ..., one factor for each modality and each power: their inner product is the kernel.

    y is the direction of a modality's vector (with the constant of the polynomial appended). The inner product of two
    Kronecker products is the product of the inner products (KODA, arXiv 2606.04180, sec 5). The cosine kernel of one
    modality needs no product: its features are the directions.

    Degree 1 with offset 0 is the cosine kernel.
    """

    input_widths: Mapping[str, int]
    degree: int = 1
    offset: float = 0.0
    dtype: torch.dtype = torch.float64
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        """Raises InputError for a value out of range, or more than 10,000 columns."""
        check_inputs(self.input_widths, self.dtype)
        check_polynomial(self.degree, self.offset)
        if self.width > WIDEST:
            raise InputError(f"exact features would have {self.width:,} columns, above {WIDEST:,}: use random ones")

    @property
    def width(self) -> int:
        """Product over the modalities of d^p, with d + 1 in place of d where the offset is not 0."""
        return math.prod((columns + bool(self.offset)) ** self.degree for columns in self.input_widths.values())

    def __call__(self, vectors: Mapping[str, Tensor]) -> Tensor:
        """Features (n, width) of modality -> (n, d) vectors.

        Raises:
            InputError: vectors of other modalities or columns, numbers of rows that differ, a vector of length 0.

        >>> KroneckerFeatures({"image": 2}, degree=2)({"image": torch.tensor([[3.0, 4.0]])}).round(decimals=6).tolist()
        [[0.36, 0.48, 0.48, 0.64]]
        """
        check_vectors(vectors, self.input_widths)
        features = torch.ones(len(next(iter(vectors.values()))), 1, dtype=self.dtype, device=self.device)
        for name in self.input_widths:
            units = directions(vectors[name].to(self.device), name, self.offset).to(self.dtype)
            for _ in range(self.degree):
                features = (features[:, :, None] * units[:, None, :]).flatten(1)
        return features
