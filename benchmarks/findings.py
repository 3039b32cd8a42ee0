"""What is called a finding, where the answer is known: on two views of the same groups, and on groups that were lost.

null       two noisy views (image and text, 500 samples) of the same 16 groups of 1 to 10 %: any finding is a false one.
           The noise is .4, .7, 1.0 or 1.5 of the distance between centres, in turn.
synthetic  the same with groups of 10, 5, 3, 3 and 1 % whose vectors say nothing in the reference; noise .4 to 1.0.
clip       real features (--fixtures) with three groups of 3 % lost in the reference.

The planted sets are searched with exact kernels, with random features, and with exact kernels and varimax. A group is
found where some lobe consists to 90 % of it and holds 30 % of it; it is a finding where such a lobe is
stable enough. The table has a row per bound on the stability, so that the default can be judged.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import CLIP_GROUPS, Planted, planted_in_clip, progress, show
from numpy.typing import NDArray

from koda_audit import find_discrepancies

SAMPLES, GROUPS, COLUMNS = 500, 16, (64, 48)
LOST = (0.10, 0.05, 0.03, 0.03, 0.01)
NOISE = {"null": (0.4, 0.7, 1.0, 1.5), "synthetic": (0.4, 0.6, 0.8, 1.0)}
BOUNDS = (0.5, 0.6, 0.65, 0.7, 0.75, 0.8)
PURE, PART = 0.9, 0.3
HOW = ("exact", "random", "varimax")
Rows = list[dict[str, Any]]


def two_views(kind: str, seed: int) -> Planted:
    """Centres and, turned, the same centres; noise is drawn for each view."""
    random = np.random.default_rng([seed, len(kind)])
    noise = NOISE[kind][seed % 4]
    lost = LOST if kind == "synthetic" else ()
    sizes = [round(share * SAMPLES) for share in lost]
    shares = np.geomspace(0.01, 0.10, GROUPS - len(lost))
    rest = random.multinomial(SAMPLES - sum(sizes), shares / shares.sum())
    label = random.permutation(np.repeat(np.arange(GROUPS), [*sizes, *rest]))
    gone = label < len(lost)
    views: dict[str, list[torch.Tensor]] = {"target": [], "reference": []}
    for columns in COLUMNS:
        centres = random.standard_normal((GROUPS, columns))
        turned = centres @ np.linalg.qr(random.standard_normal((columns, columns)))[0]
        held, kept = (c[label] + noise * random.standard_normal((SAMPLES, columns)) for c in (centres, turned))
        kept[gone] = np.hypot(1, noise) * random.standard_normal((gone.sum(), columns))
        views["target"].append(torch.from_numpy(held))
        views["reference"].append(torch.from_numpy(kept))
    sides = [dict(zip(("image", "text"), values, strict=True)) for values in views.values()]
    return Planted(*sides, [np.flatnonzero(label == group) for group in range(len(lost))])


def one_set(kind: str, seed: int, directions: int, how: str, frequencies: int, fixtures: str | None) -> Rows:
    """A row per lobe with an excess: its stability, and the lost group that it consists of, or -1."""
    torch.set_num_threads(1)
    data = planted_in_clip(Path(str(fixtures)), seed) if kind == "clip" else two_views(kind, seed)
    options: dict[str, dict[str, Any]] = {
        "exact": {},
        "random": {"path": "sample", "n_features": frequencies},
        "varimax": {"rotation": "varimax"},
    }
    found = find_discrepancies(*data.models(), n_directions=directions, device="cpu", **options[how])
    return [
        {"kind": kind, "how": how, "seed": seed, "stability": row.stability, "group": _group(members, data.lost)}
        for row in found.frame[found.frame["excess"] > 0].itertuples()
        for members in [_members(found.subsets, row.direction, row.lobe)]
    ]


def _members(subsets: pd.DataFrame, direction: int, lobe: str) -> set[int]:
    mine = (subsets["direction"] == direction) & (subsets["lobe"] == lobe)
    return set(subsets[mine]["id"].astype(int))


def _group(members: set[int], lost: list[NDArray[np.int64]]) -> int:
    for number, group in enumerate(lost):
        common = len(members & set(group.tolist()))
        if common >= PURE * len(members) and common >= PART * len(group):
            return number
    return -1


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--null-sets", type=int, default=200, help="(default %(default)s)")
    parser.add_argument("--planted-sets", type=int, default=20, help="(default %(default)s)")
    parser.add_argument("--null-directions", type=int, default=5, help="(default %(default)s)")
    parser.add_argument("--directions", type=int, default=10, help="of planted sets (default %(default)s)")
    parser.add_argument("--frequencies", type=int, default=3000, help="of random features (default %(default)s)")
    parser.add_argument("--fixtures", type=Path, help="folder with features_clip.npy: real features as well")


def run(options: argparse.Namespace) -> None:
    kinds = {
        "null": (options.null_sets, options.null_directions),
        "synthetic": (options.planted_sets, options.directions),
    }
    if options.fixtures:
        kinds["clip"] = (options.planted_sets, options.directions)
    jobs = [
        (kind, seed, count, how, options.frequencies, options.fixtures)
        for kind, (sets, count) in kinds.items()
        for how in (HOW[:1] if kind == "null" else HOW)
        for seed in range(sets)
    ]
    rows: Rows = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for done, found in enumerate(pool.map(one_set, *zip(*jobs, strict=True)), 1):
            rows += found
            progress(f"{done} of {len(jobs)} sets")
    lobes = pd.DataFrame(rows)
    table = [{"stability from": bound, **dict(_shares(lobes, kinds, bound))} for bound in (0.0, *BOUNDS)]
    show(
        f"{options.null_sets} null sets, {options.planted_sets} planted sets of each kind, n = {SAMPLES}",
        table,
        "false: null sets with any finding, of all; synthetic, clip: planted sets of which every group of 3 % and\n"
        "more is found by a lobe that is so stable; 1 %: the same of the groups of 1 %; agree: lost groups that exact\n"
        "and random kernels both find, of those that either finds. From 0: whatever the stability.",
    )


def _shares(lobes: pd.DataFrame, kinds: dict[str, tuple[int, int]], bound: float) -> Iterator[tuple[str, float]]:
    stable = lobes[lobes["stability"] >= bound]
    yield "false", float(stable[stable["kind"] == "null"]["seed"].nunique() / max(kinds["null"][0], 1))
    for kind, wanted in (("synthetic", len(LOST) - 1), ("clip", CLIP_GROUPS)):
        for how in HOW if kind in kinds else ():
            found = stable[(stable["kind"] == kind) & (stable["how"] == how) & stable["group"].between(0, wanted - 1)]
            complete = found.groupby("seed")["group"].nunique() == wanted
            yield f"{kind}, {how}", float(complete.sum() / kinds[kind][0])
    small = stable[(stable["kind"] == "synthetic") & (stable["how"] == "exact") & (stable["group"] == len(LOST) - 1)]
    yield "1 %", float(small["seed"].nunique() / kinds["synthetic"][0])
    agreed = {how: _findings(stable[stable["how"] == how]) for how in HOW}
    both = agreed["exact"] & agreed["random"]
    yield "agree", len(both) / max(len(agreed["exact"] | agreed["random"]), 1)


def _findings(lobes: pd.DataFrame) -> set[tuple[str, int, int]]:
    """Which lost groups of which sets were found."""
    named = lobes[(lobes["kind"] != "null") & (lobes["group"] >= 0)]
    return set(zip(named["kind"], named["seed"], named["group"], strict=True))
