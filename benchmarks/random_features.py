"""Random features against the exact kernel: what they cost, and how far off they are.

exact  find_discrepancies(features="exact"): two n x n kernel matrices
r      find_discrepancies(path="reduced", n_features=r): the Gram matrix of 4r features, streamed

Each runs in a process of its own and includes widths, directions, groups and exact coherences, not stability.
The floor is what neither can do without, at the rates measured in the same process: n^2 d flops for each of the two
exact kernels that the coherences need, and 2 n^2 T for their products with T directions; beside that, for the exact
side, the two kernel matrices made (n^2 d flops each), written once and read once, and for r features n D^2 flops of
the Gram matrix (D = 4r) and 2 n r d for each model's phases. Iterations, widths and groups are not in the floor.

Errors are shown twice: with one epsilon for all runs, which compares the kernels alone, and with the default epsilon
of each run, max(2/n, 1/r) for random features and 2/n for the exact kernel, which is what a user gets.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from agreement import best_jaccard, groups_of, principal_cosines, share_found
from common import Figures, Planted, data, data_options, measured, memory_rate, product_rate, run_side, show

from koda_audit import find_discrepancies

KEPT = ("coherence_target", "coherence_reference", "used_target", "used_reference")


def side(r: int | None, epsilon: float | None, directions: int, output: str, source: dict[str, Any]) -> Figures:
    models = data(**source)
    kind: dict[str, Any] = {"features": "exact"} if r is None else {"path": "reduced", "n_features": r}
    with measured() as figures:
        found = find_discrepancies(*models.models(), epsilon=epsilon, n_directions=directions, halves=0, **kind)
    groups = groups_of(found.subsets)
    np.save(output, found.directions)
    return {
        **figures,
        "n": models.n,
        "r": r,
        "epsilon": found.epsilon,
        **{name: found.subspace[name] for name in KEPT},
        "members": [sorted(group) for group in groups],
        "groups": share_found(groups, models.lost),
        "floor": floor(models, r, found.directions.shape[1]),
        "output": output,
    }


def floor(models: Planted, r: int | None, directions: int) -> float:
    """Seconds, see above."""
    n, d = models.n, models.columns
    both_kernels = 2 * n**2 * d
    flops, moved = both_kernels + 2 * 2 * n**2 * directions, 0
    if r is None:
        flops, moved = flops + both_kernels, 2 * 2 * 8 * n**2
    else:
        flops += n * (4 * r) ** 2 + 2 * 2 * n * r * d
    return float(flops / product_rate() + moved / memory_rate())


def errors(run: Figures, exact: Figures) -> dict[str, float]:
    """|value / truth - 1| of the means over the span, and how far groups and spans agree."""

    def off(value: float, true: float) -> float:
        return abs(value / true - 1)

    def ratio(of: Figures, kind: str) -> float:
        return float(of[f"{kind}_target"] / of[f"{kind}_reference"])

    mine, truth = ([set(group) for group in each["members"]] for each in (run, exact))
    smallest = principal_cosines(np.load(run["output"]), np.load(exact["output"])).min()
    return {
        "own target": off(run["used_target"], run["coherence_target"]),
        "target": off(run["coherence_target"], exact["coherence_target"]),
        "own ratio": off(ratio(run, "used"), ratio(run, "coherence")),
        "used ratio": off(ratio(run, "used"), ratio(exact, "coherence")),
        "ratio": off(ratio(run, "coherence"), ratio(exact, "coherence")),
        "Jaccard": best_jaccard(truth, mine),
        "angle deg": float(np.degrees(np.arccos(smallest))),
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    data_options(parser, samples=16_000)
    parser.add_argument("--frequencies", type=int, nargs="+", default=[500, 1000, 3000], help="r a model")
    parser.add_argument("--directions", type=int, default=8)
    parser.add_argument("--epsilon", type=float, help="of all runs; default the largest of their own defaults")


def run(options: argparse.Namespace) -> None:
    source = {"samples": options.samples, "fixtures": options.fixtures, "seed": options.seed}
    n = data(**source).n
    common = options.epsilon or max(2 / n, 1 / min(options.frequencies))
    kinds = [None, *options.frequencies]
    with tempfile.TemporaryDirectory() as folder:

        def found(r: int | None, epsilon: float | None) -> Figures:
            output = str(Path(folder) / f"{r}-{epsilon}.npy")
            settings = {"r": r, "epsilon": epsilon, "directions": options.directions}
            return run_side("random", **settings, output=output, source=source)

        variants = {"one": [found(r, common) for r in kinds], "default": [found(r, None) for r in kinds]}
        show_cost(f"n = {n}, {options.directions} directions", variants["default"])
        show_errors(f"n = {n}, {options.directions} directions", variants)


def label(figures: Figures) -> str:
    return "exact" if figures["r"] is None else f"r = {figures['r']}"


def show_cost(title: str, sides: list[Figures]) -> None:
    rows = [
        {"kernel": label(one), "seconds": one["seconds"], "floor s": one["floor"], "peak GiB": one["peak"]}
        for one in sides
    ]
    reading = "seconds: the whole call, with the default epsilon; the floor holds no iterations, widths or groups."
    show(f"Cost: {title}", rows, reading)


def show_errors(title: str, variants: dict[str, list[Figures]]) -> None:
    rows = []
    for name, (exact, *others) in variants.items():
        compared = [errors(other, exact) for other in others]
        # the exact row is last: it has no errors, and the first row names the columns
        for one, off in zip([*others, exact], [*compared, {}], strict=True):
            row = {"epsilons": name, "kernel": label(one), "epsilon": one["epsilon"], **off}
            rows.append({**row, "groups found": one["groups"]})
    show(
        f"Error: {title}",
        rows,
        "epsilons: one for all runs, or the default of each. Relative errors of means over the directions: own target "
        "and own ratio, of the\napproximate coherence, and of target / reference, against the exact one of the same "
        "span; used ratio, target and ratio, of the\nrun's approximate ratio, and of its exact values, against those "
        "of the exact run. Jaccard: of each group of the exact run with the\nbest of the run; angle: the largest "
        "between the spans; groups found: of the planted lost groups, the share of which some group\nconsists to 90 %.",
    )
