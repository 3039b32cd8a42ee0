"""The two matrices of a contrast as operators: what the subspace solver needs of them, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

CHUNK = 2**24  # entries of a stored matrix that are converted to float64 at a time


class Pair(Protocol):
    """A and B on one space with an inner product M, all symmetric in it."""

    @property
    def size(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def images(self, block: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A Y, B Y and M Y for Y (size, k), float64: the forms are (M Y)'(A Y) and (M Y)'(B Y)."""


@dataclass(frozen=True)
class _OnSamples:
    """Coordinates are samples: both matrices have a row a sample, and the inner product is the plain one."""

    target: Tensor
    reference: Tensor

    @property
    def size(self) -> int:
        return len(self.target)

    @property
    def device(self) -> torch.device:
        return self.target.device


class DensePair(_OnSamples):
    """Two (n, n) matrices."""

    def images(self, block: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return product(self.target, block), product(self.reference, block), block


class FeaturePair(_OnSamples):
    """A = Fa Fa' and B = Fb Fb' from features (n, d_a) and (n, d_b), never formed."""

    def images(self, block: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        held, kept = (product(f, product(f.T, block)) for f in (self.target, self.reference))
        return held, kept, block


@dataclass(frozen=True)
class GramPair:
    """The same A and B through G = F'F of F = [Fa Fb], whatever the number of samples.

    A direction is x = F c, with coordinates c (d_a + d_b,) and |x|^2 = c'Gc, so the inner product is M = G. With G
    split into the rows of Fa and of Fb, A x = F [G_a c; 0] and B x = F [0; G_b c]. (KODA, arXiv 2606.04180, Prop 4.3
    has the same block matrix, unsymmetric in plain coordinates; in this inner product it is symmetric, and a singular
    G does no harm.)

    There are more samples than columns, so some unit vectors are orthogonal to all of F: both forms are 0 there. They
    count where every direction of the span holds too much in B, and at most T of them can be needed: the last ``spare``
    coordinates (ours).
    """

    gram: Tensor
    split: int
    spare: int = 0
    reverse: bool = False  # A is that of Fb, and B that of Fa

    @property
    def size(self) -> int:
        return len(self.gram) + self.spare

    @property
    def device(self) -> torch.device:
        return self.gram.device

    def images(self, block: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        columns = len(self.gram)
        metric = torch.cat([product(self.gram, block[:columns]), block[columns:]])
        held, kept = metric.clone(), metric.clone()
        held[self.split :] = 0
        kept[: self.split] = 0
        kept[columns:] = 0
        return (kept, held, metric) if self.reverse else (held, kept, metric)

    def reference(self) -> Tensor:
        """(d, d) the part of G whose eigenvalues are those of B."""
        rows = slice(0, self.split) if self.reverse else slice(self.split, None)
        return self.gram[rows, rows]


def product(stored: Tensor, block: Tensor) -> Tensor:
    """``stored`` (m, n) of any float dtype times ``block`` (n, k), in float64 without a float64 copy of the whole.

    >>> product(torch.ones(2, 3), torch.ones(3, 1, dtype=torch.float64)).tolist()
    [[3.0], [3.0]]
    """
    if stored.dtype == block.dtype:
        return stored @ block
    rows = max(1, CHUNK // max(stored.shape[1], 1))
    return torch.cat([part.to(block.dtype) @ block for part in torch.split(stored, rows)])
