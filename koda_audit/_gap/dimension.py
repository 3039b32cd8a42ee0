"""How many dimensions a side fills, and how much of its variance lies along the gap."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from koda_audit._gap.frechet import significant


def effective_dim(covariance: Tensor) -> float:
    """exp of the entropy of the singular values of the centred rows, divided by their sum (effective rank; Roy and
    Vetterli, EUSIPCO 2007); nan where all rows are equal.

    Args:
        covariance: (d, d); its scale does not matter.

    >>> round(effective_dim(torch.diag(torch.tensor([2.0, 2.0, 0.0]))), 6)
    2.0
    """
    shares = significant(torch.linalg.eigvalsh(covariance)).sqrt()
    return math.exp(torch.special.entr(shares / shares.sum()).sum().item())


def participation_ratio(covariance: Tensor) -> float:
    """(tr S)^2 / tr S^2, between 1 and the rank; nan where all rows are equal.

    >>> round(participation_ratio(torch.diag(torch.tensor([2.0, 2.0, 0.0]))), 6)
    2.0
    """
    return (covariance.trace() ** 2 / (covariance * covariance).sum()).item()


def gap_dir_var(covariance: Tensor, gap: Tensor) -> float:
    """Variance along the gap over the mean variance of a dimension: u'Su / (tr S/d), u = g/|g|.

    1 where variance is the same in all directions; near 0 the gap is orthogonal to the side, as arXiv 2603.29080
    assumes. nan without a gap or without variance.

    Args:
        covariance: (d, d).
        gap: (d,).

    >>> gap_dir_var(torch.diag(torch.tensor([3.0, 1.0])), torch.tensor([2.0, 0.0]))
    1.5
    """
    square = (gap @ gap).item()
    spread = square * covariance.trace().item() / len(gap)
    return (gap @ covariance @ gap).item() / spread if spread > 0 else math.nan
