"""Canonical correlations: how well linear maps of either representation can be made to agree."""

from __future__ import annotations

import torch
from torch import Tensor

from koda_audit._similarity.products import Products, products
from koda_audit._similarity.protocol import Measure
from koda_audit.errors import InputError

VARIANCE = 0.99  # kept by SVCCA
RANK = 1e-12  # of the largest variance, below which a direction is none


def mean_correlation(pair: Products) -> float:
    """Mean canonical correlation of the leading principal components that hold 99 % of the variance of each (SVCCA,
    Raghu et al. 2017, sec 2; mean over the smaller of the two numbers of components).

    Far above 0 for independent representations where samples are few: compare with the mean under permutation.

    Raises:
        InputError: x or y is constant; components as many as samples less 1, where every correlation is 1.
    """
    xx, xy, yy = pair.centred()
    n = pair.moments.count
    left, right = _whitening(xx, VARIANCE, n, "svcca", "x"), _whitening(yy, VARIANCE, n, "svcca", "y")
    return float(torch.linalg.svdvals(left.T @ xy @ right).clamp(max=1).mean())


def weighted_correlation(pair: Products) -> float:
    """Canonical correlations rho_i weighted by how much of x their variates h_i account for (PWCCA, Morcos et al. 2018,
    sec 2.2): sum a_i rho_i / sum a_i with a_i = sum_j |<h_i, x_j>| over the columns x_j of x.

    Not symmetric: the weights are those of x. Any invertible linear map of y changes nothing.

    Raises:
        InputError: x or y is constant, or has no fewer columns than there are samples.
    """
    xx, xy, yy = pair.centred()
    n = pair.moments.count
    for name, width in (("x", len(xx)), ("y", len(yy))):
        if width >= n - 1:
            raise InputError(
                f"pwcca needs more samples: {n}, and {name} has so many columns that every canonical correlation is 1"
            )
    left, right = _whitening(xx, 1.0, n, "pwcca", "x"), _whitening(yy, 1.0, n, "pwcca", "y")
    turn, rho, _ = torch.linalg.svd(left.T @ xy @ right, full_matrices=False)
    weights = ((left @ turn).T @ xx).abs().sum(dim=1)
    return float((weights @ rho.clamp(max=1)) / weights.sum())


def _whitening(cross: Tensor, variance: float, n: int, measure: str, name: str) -> Tensor:
    """(d, k): centred rows times this have orthonormal columns, the principal components of x'x = ``cross`` (d, d)."""
    values, vectors = torch.linalg.eigh(cross)
    values, vectors = values.flip(0), vectors.flip(1)
    held = values.cumsum(0) / values.sum()
    k = min(int((held < variance).sum()) + 1, int((values > RANK * values[0]).sum()))
    if k >= n - 1:
        raise InputError(
            f"{measure} needs more samples: {n}, and {name} has {k} components, so every canonical correlation is 1"
        )
    basis: Tensor = vectors[:, :k] / values[:k].sqrt()
    return basis


svcca = Measure(
    name="svcca",
    meaning="mean canonical correlation of the components that hold 99 % of the variance",
    source="Raghu et al. 2017 (NeurIPS), sec 2",
    low=0.0,
    high=1.0,
    higher_is_similar=True,
    invariances=("orthogonal", "isotropic scaling", "translation", "permutation of columns"),
    cost="moments",
    prepare=products,
    formula=mean_correlation,
)

pwcca = Measure(
    name="pwcca",
    meaning="mean canonical correlation, weighted by what each accounts for in x",
    source="Morcos et al. 2018 (NeurIPS), sec 2.2",
    low=0.0,
    high=1.0,
    higher_is_similar=True,
    invariances=("isotropic scaling", "translation", "permutation of columns"),
    cost="moments",
    prepare=products,
    formula=weighted_correlation,
)
