"""A curriculum that closes the gap between images and texts in training: three terms beside the contrastive loss.

    L_t    = (1 - a_t) L_nce + a_t (L_cent + L_geo + L_neg)
    L_nce  = symmetric contrastive loss
    L_cent = |mean x - mean y|^2
    L_geo  = |X X' - Y Y'|_F^2 / n^2
    L_neg  = L_nce with each negative weighted by (n - 1) softmax_j(beta s_ij)
    a_t    : 0 (Anchor), rising by at most ``rise`` a step up to alpha_target (Ramp), constant (Stabilize)

In the manner of TPC-CMA (arXiv 2604.00279), which names these ingredients and the three phases. That paper's formulas
and weights are not published in code and were not at hand: all formulas here are our own. L_geo is CyCLIP's in-modal
cyclic term (NeurIPS 2022) without its scale. X and Y are unit rows, paired by position.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from koda_audit._options import finite_number
from koda_audit.errors import InputError


def contrastive_loss(
    x: Tensor, y: Tensor, scale: Tensor | float, beta: float = 0.0, same: Tensor | None = None
) -> Tensor:
    """Mean of both directions of -log(e_ii / (e_ii + sum_{j != i} w_ij e_ij)), e = exp(scale x_i'y_j).

    Args:
        x, y: (n, d) unit rows, pairs.
        scale: inverse temperature.
        beta: 0 gives CLIP's loss. Else w_ij = (n - 1) exp(beta s_ij) / sum_{k != i} exp(beta s_ik) of the cosines s:
            near negatives count more, their mean weight stays 1, and no gradient goes through the weights.
        same: (n, n) symmetric, True where two samples have one caption: they are no negatives of each other, and n
            counts without them.

    >>> x = torch.eye(2)
    >>> round(contrastive_loss(x, x, scale=1.0).item(), 6)
    0.313262
    """
    cosines = x @ y.T
    left_out = torch.zeros_like(cosines, dtype=torch.bool) if same is None else same
    own = torch.eye(len(x), dtype=torch.bool, device=x.device)
    both = [_one_way(way, scale, beta, ~left_out & ~own) for way in (cosines, cosines.T)]
    return (both[0] + both[1]) / 2


def centroid_loss(x: Tensor, y: Tensor) -> Tensor:
    """|mean x - mean y|^2 of two (n, d): the squared centroid gap of the batch.

    >>> centroid_loss(torch.eye(2), torch.zeros(2, 2)).item()
    0.5
    """
    return ((x.mean(dim=0) - y.mean(dim=0)) ** 2).sum()


def geometry_loss(x: Tensor, y: Tensor) -> Tensor:
    """|XX' - YY'|_F^2 / n^2: images should be as far from each other as their texts are.

    >>> geometry_loss(torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])).item()
    0.5
    """
    return ((x @ x.T - y @ y.T) ** 2).mean()


def alignment_loss(x: Tensor, y: Tensor, scale: Tensor | float, beta: float, same: Tensor | None = None) -> Tensor:
    """L_cent + L_geo + L_neg.

    >>> alignment_loss(torch.eye(2), torch.eye(2), 1.0, 0.0).item() == contrastive_loss(*[torch.eye(2)] * 2, 1.0).item()
    True
    """
    return centroid_loss(x, y) + geometry_loss(x, y) + contrastive_loss(x, y, scale, beta, same)


@dataclass(frozen=True)
class Phases:
    """When a_t is 0, rises and stays.

    Attributes:
        alpha_target: in 0..1; the largest weight of the alignment terms. 0 is plain contrastive training.
        steps: of the whole training.
        anchor, ramp: shares of the steps; the rest is Stabilize.
        rise: how much a may grow in one step; None takes twice what a steady rise to the target needs, as the ratio of
            gradients is mostly below 1.

    >>> phases = Phases(0.5, steps=10, anchor=0.2, ramp=0.5)
    >>> [phases.name(step) for step in (0, 1, 2, 6, 7)]
    ['anchor', 'anchor', 'ramp', 'ramp', 'stabilize']
    """

    alpha_target: float
    steps: int
    anchor: float = 0.1
    ramp: float = 0.6
    rise: float | None = None

    def __post_init__(self) -> None:
        for name in ("alpha_target", "anchor", "ramp", "rise"):
            if getattr(self, name) is not None:
                finite_number(getattr(self, name), name, low=0)
        if self.alpha_target > 1:
            raise InputError(f"alpha_target={self.alpha_target!r}: expected a share, 0 to 1")
        if self.anchor + self.ramp > 1:
            raise InputError(
                f"anchor={self.anchor} and ramp={self.ramp}: expected shares of the steps, at most 1 in all"
            )

    def name(self, step: int) -> str:
        """Of the phase that ``step`` (from 0) belongs to."""
        start, end = round(self.anchor * self.steps), round((self.anchor + self.ramp) * self.steps)
        return "anchor" if step < start else "ramp" if step < end else "stabilize"

    def following(self, alpha: float, step: int, ratio: float) -> float:
        """a_{t+1} = min(alpha_target, a_t + rise clip(ratio, 0, 1)) in the Ramp, else a_t.

        Args:
            ratio: |gradient of L_nce| / |gradient of the alignment terms|; where these pull harder than the contrastive
                loss can answer, a rises slowly.
        """
        if self.name(step) != "ramp":
            return alpha
        rise = self.rise
        if rise is None:
            rise = 2 * self.alpha_target / max(1, round(self.ramp * self.steps))
        return min(self.alpha_target, alpha + rise * min(max(ratio, 0.0), 1.0))


def gradient_ratio(first: Tensor, second: Tensor, *inputs: Tensor) -> float:
    """|d first / d inputs| / |d second / d inputs|; 1 where the second is flat.

    With the batch's embeddings as inputs it costs no pass through a tower, and is the same on all ranks.

    >>> x = torch.ones(1, requires_grad=True)
    >>> gradient_ratio((3 * x).sum(), (4 * x).sum(), x)
    0.75
    """
    norms = []
    for loss in (first, second):
        gradients = torch.autograd.grad(loss, inputs, retain_graph=True, allow_unused=True)
        norms.append(sum(float((g**2).sum()) for g in gradients if g is not None) ** 0.5)
    return norms[0] / norms[1] if norms[1] > 0 else 1.0


def _one_way(cosines: Tensor, scale: Tensor | float, beta: float, negative: Tensor) -> Tensor:
    logits = scale * cosines
    own = logits.diagonal()
    if beta:
        raised = (beta * cosines.detach()).masked_fill(~negative, -torch.inf)
        weights = raised - raised.logsumexp(dim=1, keepdim=True) + negative.sum(dim=1, keepdim=True).log()
        logits = logits + weights.masked_fill(~negative, 0.0)
    whole = torch.cat([own[:, None], logits.masked_fill(~negative, -torch.inf)], dim=1)
    return (whole.logsumexp(dim=1) - own).mean()
