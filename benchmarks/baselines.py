"""Other methods on the same inputs and the same exact kernels A (target) and B (reference).

ours          coherence in A where the mean of that in B is at most 2/n, turned, as find_discrepancies does
KODA          coherence in A where that in B is at most 2/n, one direction after the other
SPEC          leading eigenvectors of A - B
cPCA alpha    leading eigenvectors of A - alpha B. Contrastive PCA proper, C_A - alpha C_B, wants the features of both
              models in one space; two models have two spaces, so the form over samples is the one that applies.
generalised   largest x'Ax / (x'Bx + 2/n)
RDX           clusters of samples that are closer by rank in A than in B (arXiv 2505.23917), see rdx.py; at most at
              --rdx-samples, as its spectral clustering holds and factors several n x n matrices

Each method runs in a process of its own, from two kernel matrices that are at hand before the clock starts. The floor
is one read of both at the measured bandwidth of memory: no method can do without it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from agreement import Floats, share_found
from common import Figures, data, data_options, measured, memory_rate, run_side, show, widths
from methods import generalised, koda, penalised, turned
from rdx import rdx

from koda_audit._kernels.table import kernel_blocks
from koda_audit.discrepancy.findings import measures
from koda_audit.discrepancy.groups import members

ALPHAS = (0.5, 2.0, 10.0, 100.0)
# of A, B and the number of directions: unit directions (n, T), and the weights (n, T) that order the samples of each
Method = Callable[[torch.Tensor, torch.Tensor, int], tuple[Floats, Floats]]
METHODS: dict[str, Method] = {
    "ours": turned,
    "KODA": koda,
    "SPEC": partial(penalised, 1.0),
    **{f"cPCA {alpha:g}": partial(penalised, alpha) for alpha in ALPHAS},
    "generalised": generalised,
    "RDX": lambda a, b, _: rdx(a, b),
}


def side(method: str, directions: int, sigmas: dict[str, dict[str, float]], source: dict[str, Any]) -> Figures:
    models = data(**source)
    vectors = {"target": models.target, "reference": models.reference}
    exact = [kernel_blocks("rbf", vectors[role], sigmas[role]) for role in vectors]
    a, b = (blocks.matrix() for blocks in exact)
    with measured() as figures:
        found, weights = METHODS[method](a, b, directions)
    x = torch.from_numpy(found)
    coherences = [(x * (kernel @ x)).sum(dim=0).numpy() for kernel in (a, b)]
    del a, b
    # a direction has two ends, and a group at each
    read = list(enumerate(members(np.hstack([weights, -weights]))))
    every = [(place % weights.shape[1], group) for place, group in read if group is not None]
    of_groups = [{"direction": place, **measures(group.rows, group.weights, *exact)} for place, group in every]
    return {
        "n": models.n,
        "found": found.shape[1],
        "target": float(coherences[0].mean()),
        "reference": float(coherences[1].mean()),
        "ratio": float(np.median(coherences[0] / coherences[1])),
        **best_groups(pd.DataFrame(of_groups)),
        "groups": share_found([group.rows for _, group in every], models.lost),
        **figures,
        "floor": 2 * 8 * models.n**2 / memory_rate(),
    }


def best_groups(measured: pd.DataFrame) -> dict[str, float]:
    """Means over directions of the group that differs more between the models."""
    best = measured.sort_values("excess").groupby("direction").last()
    return {
        "group target": float(best["coherence_target"].mean()),
        "group reference": float(best["coherence_reference"].mean()),
        "excess": float(best["excess"].mean()),
    }


def sigmas_of(source: dict[str, Any]) -> dict[str, dict[str, float]]:
    models = data(**source)
    return {role: widths(getattr(models, role)) for role in ("target", "reference")}


def add_options(parser: argparse.ArgumentParser) -> None:
    data_options(parser, samples=4000)
    parser.add_argument("--rdx-samples", type=int, default=8000, help="at most, for RDX (default %(default)s)")
    parser.add_argument("--directions", type=int, default=10, help="of all but RDX, which has 5 clusters")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")


def run(options: argparse.Namespace) -> None:
    source = {"samples": options.samples, "fixtures": options.fixtures, "seed": options.seed}
    smaller = {**source, "samples": min(options.rdx_samples, options.samples)}
    sources = {method: smaller if method == "RDX" else source for method in options.methods}
    sigmas = {each["samples"]: sigmas_of(each) for each in sources.values()}
    rows = []
    for method, each in sources.items():
        settings = {"directions": options.directions, "sigmas": sigmas[each["samples"]], "source": each}
        figures = run_side("baselines", method=method, **settings)
        shown = {"seconds": "seconds", "floor": "floor s", "peak": "peak GiB", "groups": "groups found"}
        rows.append({"method": method, **{shown.get(name, name): value for name, value in figures.items()}})
    show(
        f"{options.directions} directions (RDX: 5 clusters, so at most 5 groups), n as below",
        rows,
        "target, reference: mean exact coherence of the directions (of RDX: of the normalised indicators of its "
        "clusters), 1/n at random;\nratio: median of target / reference; group: the same for the samples at the end "
        "of each direction that differs more;\nexcess: group target - group reference; groups found: share "
        "of the planted lost groups of which some group consists to 90 %.",
    )
