"""Orthogonal Procrustes: what is left in common after the best rotation."""

from __future__ import annotations

import math

import torch

from koda_audit._similarity.products import Products, products
from koda_audit._similarity.protocol import Measure


def procrustes_similarity(pair: Products) -> float:
    """|X'Y|_* / (|X| |Y|) of centred x and y: nuclear norm over Frobenius norms.

    A similarity, not a distance: 1 where y is x rotated, scaled and moved. The squared distance of Ding et al. (2021,
    sec 2) on matrices of norm 1 is 2 - 2 times this one; ``scipy.spatial.procrustes`` returns 1 minus its square.
    Unlike widths need no padding: columns of zeros add nothing to either norm. Like ``cka_linear`` it is far from 0
    for independent representations where samples are few for their width.

    Raises:
        InputError: x or y is constant.
    """
    xx, xy, yy = pair.centred()
    return float(torch.linalg.svdvals(xy).sum()) / math.sqrt(xx.trace() * yy.trace())


procrustes = Measure(
    name="procrustes",
    meaning="share of the variance that the best rotation, scaling and shift brings together (a similarity)",
    source="Ding, Denain and Steinhardt 2021 (NeurIPS), sec 2: 1 minus half the squared distance",
    low=0.0,
    high=1.0,
    higher_is_similar=True,
    invariances=("orthogonal", "isotropic scaling", "translation", "permutation of columns"),
    cost="moments",
    prepare=products,
    formula=procrustes_similarity,
)
