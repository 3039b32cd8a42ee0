"""Small maps of stored embeddings that start as the identity and are trained."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from koda_audit._options import one_of
from koda_audit.alignment.choices import whole
from koda_audit.alignment.maps import Map, Residual, Step

Kind = Literal["linear", "low_rank", "residual"]
KINDS: tuple[Kind, ...] = ("linear", "low_rank", "residual")


class Adapter(nn.Module):
    """h(x) = x + x W + b ("linear"), x + x U V + b ("low_rank") or x + gelu(x U + c) V + b ("residual").

    All that is added is 0 at the start; U alone is drawn at random. float64.

    Args:
        width: d.
        rank: columns of U, at most d.
        generator: what U is drawn with.

    >>> h = Adapter(2, "residual", 2, torch.Generator().manual_seed(0))
    >>> h(torch.tensor([[1.0, 2.0]], dtype=torch.float64)).tolist()
    [[1.0, 2.0]]
    """

    def __init__(self, width: int, kind: Kind, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        one_of(kind, "kind", KINDS)
        whole(rank, "rank", width, "the width")
        self.kind = kind
        self.offset = _zeros(width)
        if kind == "linear":
            self.added = _zeros(width, width)
            return
        drawn = torch.randn(width, rank, dtype=torch.float64, generator=generator)
        self.inner, self.outer = nn.Parameter(drawn / width**0.5), _zeros(rank, width)
        if kind == "residual":
            self.bias = _zeros(rank)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "linear":
            return x + x @ self.added + self.offset
        hidden = x @ self.inner
        if self.kind == "residual":
            hidden = F.gelu(hidden + self.bias)
        return x + hidden @ self.outer + self.offset

    def steps(self) -> Map:
        """The same as steps of an alignment, rows brought to length 1."""
        offset = self.offset.detach()
        if self.kind == "residual":
            middle = Residual(self.inner.detach(), self.bias.detach(), self.outer.detach())
            return (middle, Step(offset=offset, renormalise=True))
        added = self.added if self.kind == "linear" else self.inner @ self.outer
        eye = torch.eye(len(offset), dtype=torch.float64)
        return (Step(matrix=eye + added.detach(), offset=offset, renormalise=True),)


class Both(nn.Module):
    """One network a side: (images, texts) to (embeddings, embeddings)."""

    def __init__(self, image: nn.Module, text: nn.Module) -> None:
        super().__init__()
        self.image, self.text = image, text

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        return self.image(image), self.text(text)


def _zeros(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(*shape, dtype=torch.float64))
