"""False alarms of gates where both sides are equally good: at a level of 5 %, at most 16 of 200 may FAIL, none ERROR.

batches    the demo's model against itself in batches of another size, on fresh subsamples of the test drawings
exchanged  two of the demo's models on the same subsamples, where a coin says which is which for each image; they
           differ, and the batches hardly do
seeds      metrics that draw at random: the model against itself in other batches, with a fresh seed for both sides

Every gate is judged by itself and has a tolerance of 0. Images are embedded once, and kept as those of the demo.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from common import progress, show

from koda_audit import Embeddings, find_discrepancies, gap_robustness, modality_gap
from koda_audit._files import cache_folder
from koda_audit.data.load import load_dataset
from koda_audit.demo.digits import write_webdatasets
from koda_audit.demo.models import write_models
from koda_audit.discrepancy.find import self_excess
from koda_audit.embeddings.extract import embed
from koda_audit.embeddings.store import Store
from koda_audit.evaluation.tasks import evaluate
from koda_audit.gates.gate import Gate
from koda_audit.gates.judge import judge
from koda_audit.gates.run import Run
from koda_audit.models import ModelSpec, load_model
from koda_audit.outcomes import Cell, Outcomes
from koda_audit.results import Result, records

# batches of one size, of another, and another model in the first
SIDES = {"model": ("colour", 64), "again": ("colour", 37), "other": ("reseeded", 64)}
ACCURACIES = ("acc1", "mean_per_class_recall")
PROBE = ("probe_accuracy", "probe_mean_per_class_recall")
RECALLS = ("image_retrieval_recall@1", "text_retrieval_recall@1")
GAPS = ("linear_sep", "energy", "energy_centred", "mmd2_u_centred", "uniformity_cross", "uniformity_joint")
DRAWN = 100  # rows of pairwise metrics of the gap, and frequencies of a search: few, so that seeds matter
Queries = tuple[Any, Any]  # (q,) values and (q,) rows of images
Found = tuple[str, str, str]  # kind, metric, verdict


def embedded() -> dict[str, Embeddings]:
    """Each side with captions, labels and class prompts, its rows in memory."""
    home = cache_folder() / "demo"
    models, exports = write_models(home / "models"), write_webdatasets(home / "data")
    pairs, digits = (load_dataset(f"wds/{name}", str(exports[name])) for name in ("digits_captions", "digits"))
    found: dict[str, Embeddings] = {}
    for side, (name, size) in SIDES.items():
        model = load_model(ModelSpec(f"local-dir:{models[name]}"))
        store = Store(home / ("store-again" if side == "again" else "store"))
        own, classes = (embed(model, data, store, batch_size=size, workers=0, quiet=True) for data in (pairs, digits))
        ids = found["model"].ids if found else own.ids
        own, classes = own.aligned_to(ids), classes.aligned_to(ids)
        found[side] = Embeddings(
            np.asarray(own.image),
            np.asarray(own.text),
            ids=ids,
            text_image=own.text_image,
            labels=classes.labels,
            class_text=np.asarray(classes.class_text),
        )
    return found


def verdict(metric: str, before: Queries | Result, after: Queries | Result, kind: str = "max_drop") -> str:
    """Of one gate; both sides are outcomes, or numbers with an interval or none."""
    runs = []
    for side in (before, after):
        row = side if isinstance(side, Result) else _row(metric, float(np.mean(side[0])))
        outcomes = {} if isinstance(side, Result) else {Cell("model", "digits", "task", metric): side}
        ids = {"digits": [str(row) for row in range(1000)]}
        runs.append(Run(records([row]), partial(Outcomes, outcomes, ids)))
    (found,) = judge([Gate(metric, "digits", "model", **{kind: 0.0})], runs[1], runs[0])
    return found.verdict


def _row(metric: str, value: float, low: float | None = None, high: float | None = None) -> Result:
    return Result("model", "", "digits", "task", metric, value, ci_low=low, ci_high=high, protocol="equal")


def subsample(seed: int, sides: Mapping[str, Embeddings], samples: int) -> list[Found]:
    """The verdicts on one subsample."""
    random = np.random.default_rng([seed, 1])
    drawn = random.choice(len(sides["model"]), samples, replace=False)
    scores: dict[str, dict[str, Queries]] = {}
    for name, side in sides.items():
        part = side.take(drawn)
        each = {**evaluate(part, "zeroshot_classification").outcomes, **evaluate(part, "zeroshot_retrieval").outcomes}
        scores[name] = {metric: (each[metric].values, each[metric].image) for metric in (*ACCURACIES, *RECALLS)}
    coin = random.integers(0, 2, samples).astype(bool)
    found = []
    for metric, (first, image) in scores["model"].items():
        found.append(("batches", metric, verdict(metric, (first, image), scores["again"][metric])))
        other, turned = scores["other"][metric][0], coin[image]
        exchanged = [(np.where(turned, a, b), image) for a, b in ((first, other), (other, first))]
        found.append(("exchanged", metric, verdict(metric, *exchanged)))
    return found


def seeded(seed: int, sides: Mapping[str, Embeddings], samples: int) -> list[Found]:
    """The verdicts on metrics that draw at random; ``samples`` of a search, which costs most."""
    both = [sides["model"], sides["again"]]
    words: dict[str, str] = {}
    tables = [modality_gap(s.image, s.text, interval=True, pairwise_rows=DRAWN, seed=seed) for s in both]
    for key in GAPS:
        first, second = (_row(f"gap_{key}", *table[key][:3]) for table in tables)
        words[first.metric] = verdict(first.metric, first, second, "max_rise")
    robust = [gap_robustness(s.text, s.image, seed=seed) for s in both]
    agreement = [((each.noisy[:, 0] == each.clean[0]).mean(axis=0), np.arange(len(sides["model"]))) for each in robust]
    words["gaprob_agreement"] = verdict("gaprob_agreement", *agreement)
    found = [evaluate(s, "joint_clustering", clusters=10, seed=seed) for s in both]
    clusters = [each.outcomes["pair_together"] for each in found]
    words["pair_together"] = verdict("pair_together", *((each.values, each.image) for each in clusters))
    words["ari"] = verdict("ari", *(_row("ari", each.values["ari"], *each.intervals["ari"]) for each in found))
    half = np.arange(0, len(sides["model"]), 2)  # is trained on, with an inverse penalty that is chosen by the seed
    rest = np.setdiff1d(np.arange(len(sides["model"])), half)
    probes = [evaluate(s.take(rest), "linear_probe", train=s.take(half), seed=seed) for s in both]
    for metric in PROBE:
        words[metric] = verdict(metric, *((e.outcomes[metric].values, e.outcomes[metric].image) for e in probes))
    search: dict[str, Any] = {"features": "random", "n_features": DRAWN, "n_directions": 2, "seed": seed}
    parts = [each.take(np.arange(samples)) for each in both]
    floor = self_excess(*parts, **search, device="cpu")
    groups = find_discrepancies(*parts, **search, device="cpu", floor=floor, halves=5).groups
    findings = _row("koda_findings", float(groups["finding"].sum()))
    words["koda_findings"] = verdict("koda_findings", replace(findings, value=0.0), findings, "max_rise")
    return [("seeds", metric, word) for metric, word in words.items()]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sets", type=int, default=200, help="subsamples, and seeds (default %(default)s)")
    parser.add_argument("--samples", type=int, default=200, help="of a subsample (default %(default)s)")


def run(options: argparse.Namespace) -> None:
    sides = embedded()
    counts: Counter[Found] = Counter()
    kinds = [partial(kind, sides=sides, samples=options.samples) for kind in (subsample, seeded)]
    spawned = get_context("spawn")  # a fork of a process whose threads have computed may wait for them for ever
    with ProcessPoolExecutor(os.cpu_count(), spawned, torch.set_num_threads, (1,)) as pool:
        for kind in kinds:
            for done, found in enumerate(pool.map(kind, range(options.sets)), 1):
                counts.update(found)
                if done % 50 == 0:
                    progress(f"{done} of {options.sets} {kind.func.__name__}")
    show(
        f"{options.sets} times each, subsamples of {options.samples} of {len(sides['model'])} drawings",
        _table(counts),
        "asked of 200: FAIL at most 16, ERROR none. WARN is an estimate beyond the tolerance of 0 that may be chance.",
    )


def _table(counts: Mapping[Found, int]) -> list[dict[str, Any]]:
    words: Sequence[str] = ("FAIL", "ERROR", "WARN", "PASS")
    asked = dict.fromkeys((kind, metric) for kind, metric, _ in counts)
    rows = [
        {"kind": kind, "metric": metric, **{word: counts.get((kind, metric, word), 0) for word in words}}
        for kind, metric in asked
    ]
    return sorted(rows, key=lambda row: row["kind"])
