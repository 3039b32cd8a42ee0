"""From two models to groups of samples, by our method and by others on the same kernels.

exact           find_discrepancies, exact kernels
random          find_discrepancies, random features of all samples
SPEC            leading 16 eigenvectors of A - B, and the 50 heaviest samples of each
SPEC, ours      find_discrepancies(multiplier=1.0): the same eigenvectors, turned, read off and judged as ours are
KODA            find_discrepancies(preset="paper"): 10 directions, and the 50 heaviest samples of each
RDX             five clusters (arXiv 2505.23917), see rdx.py
RDX, told       as many clusters as groups are lost
spectral, told  spectral clustering of max(A - B, 0) into as many clusters as groups are lost, and one for the others
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from common import Planted, widths
from methods import penalised
from numpy.typing import NDArray
from rdx import CLUSTERS, clusters, rdx

from koda_audit import find_discrepancies
from koda_audit._kernels.table import kernel_blocks
from koda_audit.discrepancy.groups import Group, heaviest, indicators
from koda_audit.discrepancy.pool import Pool, is_lost

SPEC_DIRECTIONS = 16
BESIDE = 1  # cluster for what lies in none


@dataclass(frozen=True)
class Grouped:
    """``reported`` by the method's own rule; ``lost``: held apart by the target and not kept by the reference, which is
    all of our rule that is asked of a cluster."""

    rows: frozenset[int]
    reported: bool
    lost: bool
    stability: float
    separation: float
    retention: float
    verdict: str


def _searched(models: Planted, _: int, **asked: Any) -> list[Grouped]:
    found = find_discrepancies(*models.models(), device="cpu", **asked)
    members = {number: frozenset(part["id"].astype(int)) for number, part in found.subsets.groupby("group")}
    paper = asked.get("preset") is not None
    return [
        Grouped(
            members[row.group],
            row.finding or paper,
            bool(is_lost(row.separation, row.retention)),
            row.stability,
            row.separation,
            row.retention,
            row.verdict,
        )
        for row in found.groups.itertuples()
    ]


def _paper(models: Planted, count: int) -> list[Grouped]:
    # half of the eigenvalues of the reference's covariance must not be 0
    return _searched(models, count, preset="paper", n_features=min(3000, models.n // 2))


def _kernels(models: Planted) -> tuple[torch.Tensor, torch.Tensor]:
    """Both exact kernels, K/n, with the widths that find_discrepancies sets."""
    a, b = (kernel_blocks("rbf", side, widths(side)).matrix() for side in (models.target, models.reference))
    return a, b


def _of_kernels(read: Callable[[torch.Tensor, torch.Tensor, int], list[NDArray[np.int64]]]) -> Method:
    def method(models: Planted, count: int) -> list[Grouped]:
        a, b = _kernels(models)
        rows = [part for part in read(a, b, count) if len(part) > 1]
        n = models.n
        groups: list[Group | None] = [Group(part, np.ones(len(part)), np.nan) for part in rows]
        separation, retention = Pool(np.arange(n), n * a.numpy(), n * b.numpy()).apart(indicators(groups, n))
        return [
            Grouped(frozenset(part.tolist()), True, bool(is_lost(s, r)), np.nan, float(s), float(r), "cluster")
            for part, s, r in zip(rows, separation, retention, strict=True)
        ]

    return method


def _spec(a: torch.Tensor, b: torch.Tensor, _: int) -> list[NDArray[np.int64]]:
    return [group.rows for group in heaviest(penalised(1.0, a, b, SPEC_DIRECTIONS)[0])]


def _rdx(a: torch.Tensor, b: torch.Tensor, count: int) -> list[NDArray[np.int64]]:
    return [np.flatnonzero(column) for column in rdx(a, b, count)[0].T]


def _spectral(a: torch.Tensor, b: torch.Tensor, count: int) -> list[NDArray[np.int64]]:
    """As of RDX, the cluster of the lowest mean affinity inside is that of the others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # samples that are like no other make a graph of several parts
        members, _ = clusters((a - b).clamp_(min=0).mul_(len(a)).numpy(), count + BESIDE)
    return [np.flatnonzero(column) for column in members.T[:count]]


Method = Callable[[Planted, int], list[Grouped]]


def _exact(models: Planted, count: int) -> list[Grouped]:
    return _searched(models, count, features="exact")


def _random(models: Planted, count: int) -> list[Grouped]:
    return _searched(models, count, features="random", path="sample")


def _penalised(models: Planted, count: int) -> list[Grouped]:
    return _searched(models, count, features="exact", multiplier=1.0)


# of the models and of how many groups are lost, which only those that are told look at
METHODS: dict[str, Method] = {
    "exact": _exact,
    "random": _random,
    "SPEC": _of_kernels(_spec),
    "SPEC, ours": _penalised,
    "KODA": _paper,
    "RDX": _of_kernels(lambda a, b, _: _rdx(a, b, CLUSTERS)),
    "RDX, told": _of_kernels(_rdx),
    "spectral, told": _of_kernels(_spectral),
}
OURS = ("exact", "random")
TOLD = ("RDX, told", "spectral, told")
