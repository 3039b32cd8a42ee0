"""Several processes as one: every rank embeds its share of the batch and computes the loss of the whole batch.

A rank's share of a gradient is W times its own slice of the whole loss's gradient, so that the mean over W ranks, here
or in DistributedDataParallel, is the gradient of one process on the whole batch, for shared parameters such as rho too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from koda_audit.errors import InputError


def ranks() -> tuple[int, int]:
    """(rank, number of ranks); (0, 1) outside torch.distributed.

    >>> ranks()
    (0, 1)
    """
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def own(rows: Tensor) -> Tensor:
    """This rank's consecutive part of a batch.

    Raises:
        InputError: a batch that cannot be divided evenly.
    """
    rank, count = ranks()
    if len(rows) % count:
        raise InputError(f"a batch of {len(rows)} cannot be divided among {count} processes: take a multiple")
    return rows.chunk(count)[rank]


def gathered(part: Tensor) -> Tensor:
    """(n, d) of the whole batch from the parts of all ranks, in their order; gradients reach the own part."""
    whole: Tensor = part if ranks()[1] == 1 else _Gather.apply(part)
    return whole


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace every gradient by its mean over all ranks."""
    count = ranks()[1]
    if count == 1:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= count


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        rank, count = ranks()
        ctx.start, ctx.stop, ctx.count = rank * len(part), (rank + 1) * len(part), count
        parts = [torch.empty_like(part) for _ in range(count)]
        dist.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        own_part: Tensor = ctx.count * gradients[0][ctx.start : ctx.stop]
        return own_part
