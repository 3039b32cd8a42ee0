"""Ten constrained directions against one unconstrained kernel-difference decomposition, on the same random features.

    python benchmarks/contrast.py [--samples 16000] [--frequencies 1000 3000]

Both sides run in a process of their own, in float64, and include the Gram matrix of the features [Fa Fb] (n x 4r):

ours  the Gram matrix without its mirror half (``Moments``), then ten directions with their multipliers (``GramPair``)
SPEC  the Gram matrix by one product, Cholesky Z of it, and the full eigendecomposition of Z diag(I, -I) Z' (the form
      that SPEC's authors use; lambda = 1 and no constraint)

The floor is n D^2 useful flops of the symmetric product, at the rate of a large plain product in the same process.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
import torch
from tabulate import tabulate

from koda_audit._contrast.operators import GramPair
from koda_audit._contrast.solve import solve_operators
from koda_audit._moments.moments import Moments

CHUNK, DIRECTIONS = 4096, 10


def features(n: int, frequencies: int) -> list[torch.Tensor]:
    """Fourier features of two models that share 32 of 40 groups, in chunks, scaled so that F'F is the Gram matrix."""
    random = np.random.default_rng(0)
    label = random.integers(0, 40, n)
    target = random.normal(size=(40, 64))[label] + 0.4 * random.normal(size=(n, 64))
    reference = target + 0.2 * random.normal(size=(n, 64))
    lost = label < 8
    reference[lost] = 1.1 * random.normal(size=(int(lost.sum()), 64))
    parts = []
    for vectors in (target, reference):
        scale = 0.55 * np.median(np.linalg.norm(vectors[:500, None] - vectors[None, 500:1000], axis=-1))
        phases = torch.from_numpy(vectors @ random.normal(size=(64, frequencies)) / scale)
        parts.append(torch.cat([phases.cos(), phases.sin()], dim=1) / (frequencies * n) ** 0.5)
    return list(torch.cat(parts, dim=1).split(CHUNK))


def ours(chunks: list[torch.Tensor], n: int, frequencies: int) -> dict[str, float]:
    start = time.perf_counter()
    gram = Moments.of(chunks).cross
    middle = time.perf_counter()
    epsilon = max(2 / n, 1 / frequencies)
    found = solve_operators(GramPair(gram, 2 * frequencies), epsilon=epsilon, n_directions=DIRECTIONS)
    stop = time.perf_counter()
    return {
        "gram": middle - start,
        "rest": stop - middle,
        "gap": float((found.duality_gap / found.target).max()),
        "excess over epsilon": float((found.reference / epsilon - 1).max()),
    }


def spec(chunks: list[torch.Tensor], n: int, frequencies: int) -> dict[str, float]:
    whole = torch.cat(chunks)
    start = time.perf_counter()
    gram = whole.T @ whole
    middle = time.perf_counter()
    gram.diagonal().add_(1e-7)
    z = torch.linalg.cholesky(gram).T
    del gram
    signs = torch.cat([torch.ones(2 * frequencies), -torch.ones(2 * frequencies)]).to(z)
    torch.linalg.eigh((z * signs) @ z.T)
    return {"gram": middle - start, "rest": time.perf_counter() - middle}


def plain_rate(width: int = 4096) -> float:
    """Flops a second of one large float64 product."""
    a = torch.randn(width, width, dtype=torch.float64)
    a @ a
    start = time.perf_counter()
    a @ a
    return 2 * width**3 / (time.perf_counter() - start)


def one_side(side: str, n: int, frequencies: int) -> None:
    """Run in a process of its own, and print the figures as JSON."""
    chunks = features(n, frequencies)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures = {"ours": ours, "SPEC": spec}[side](chunks, n, frequencies)
    figures["memory"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    figures["rate"] = plain_rate()
    print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=16_000)
    parser.add_argument("--frequencies", type=int, nargs="+", default=[1000])
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        one_side(options.side, options.samples, options.frequencies[0])
        return
    rows = []
    for frequencies in options.frequencies:
        totals = {}
        for side in ("ours", "SPEC"):
            command = [sys.executable, __file__, "--side", side, "--samples", str(options.samples)]
            done = subprocess.run(
                [*command, "--frequencies", str(frequencies)], check=True, stdout=subprocess.PIPE, text=True
            )
            figures = json.loads(done.stdout)
            totals[side] = figures["gram"] + figures["rest"]
            floor = options.samples * (4 * frequencies) ** 2 / figures["rate"]
            seconds = (figures["gram"], figures["rest"], totals[side], floor, figures["memory"])
            reached = (figures.get("gap"), figures.get("excess over epsilon"))
            rows.append((4 * frequencies, side, *seconds, *reached))
        rows.append((4 * frequencies, "ratio", None, None, totals["ours"] / totals["SPEC"]))
    headers = ("width", "side", "Gram s", "rest s", "total s", "floor s", "peak GiB", "gap / value", "beyond epsilon")
    print(f"n = {options.samples}, {DIRECTIONS} directions, float64, {torch.get_num_threads()} threads")
    print(tabulate(rows, headers=headers, floatfmt=".3g"))


if __name__ == "__main__":
    main()
