"""A whole suite: how long it takes, where the time goes, and how long the same suite takes once all is known.

The demo's four models, three datasets (drawings with captions, the same with digits as classes, and these with other
prompts), four alignments beside none, four tasks, the discrepancy and the similarity of all pairs of models, and the
gap under every alignment. Each run is a process of its own, from reading the suite to the finished report; a rerun
reads finished cells, leaves the same report alone, and elsewhere writes it anew. What a floor would be is not known:
the share of embedding is what any evaluation of these models pays, once a model and dataset.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections import Counter
from contextlib import redirect_stderr
from itertools import pairwise
from pathlib import Path
from typing import Any

from common import Figures, run_side, show

SUITE = """\
suite: benchmark
models:
  colour: {model: "local-dir:models/colour"}
  plain: {model: "local-dir:models/plain"}
  broken: {model: "local-dir:models/broken"}
  reseeded: {model: "local-dir:models/reseeded"}
datasets:
  captions: {dataset: wds/digits_captions, root: data/digits_captions}
  digits: {dataset: wds/digits, root: data/digits}
  prompted: {dataset: wds/digits, root: data/digits, template_file: prompts.json}
discrepancy: {on: [captions], directions: 4}
similarity: {on: [captions]}
gap: {}
alignments:
  centred: {operator: center_renorm, fit_on: "captions:train"}
  shifted: {operator: mg_shift, lam: 0.25, fit_on: "captions:train"}
  turned: {operator: procrustes, fit_on: "captions:train"}
  closer: {operator: orthogonal_translate}
benchmark: {tasks: [zeroshot_classification, zeroshot_retrieval, linear_probe, clustering], clusters: 10}
num_workers: 0
"""
PROMPTS = '{"imagenet1k": ["a drawing of the digit {c}", "{c}"]}\n'
PARTS = {
    "embed": "embed",
    "align": "align",
    "koda_modality_gap": "gap",
    "koda_discrepancy": "compare",
    "koda_similarity": "compare",
}
RUNS = {"first": "report", "again": "report", "elsewhere": "other"}
COLUMNS = ("start", "embed", "align", "evaluate", "gap", "compare", "report")


def side(folder: str, output: str) -> Figures:
    """Seconds of each part; a line is said when a cell begins."""
    from koda_audit.embeddings.store import Store
    from koda_audit.suite.load import load_suite
    from koda_audit.suite.run import complete, planned
    from koda_audit.suite.table import write_audit

    home, cells = Path(folder), Counter[str]()
    marks = [("start", time.perf_counter())]  # what is known already is looked up, and torch imported

    def say(line: str) -> None:
        if not line.startswith("["):
            return
        task = line.partition("] ")[2].partition(":")[0]
        marks.append((PARTS.get(task, "evaluate"), time.perf_counter()))
        cells[marks[-1][0]] += 1

    plan = planned(load_suite(home / "suite.yaml"), home / "store")
    with redirect_stderr(io.StringIO()):
        finished, failures = complete(plan, Store(home / "store"), quiet=True, say=say)
    if failures:
        raise RuntimeError(f"cells failed: {[cell.name for cell in failures]}")
    marks.append(("report", time.perf_counter()))
    rows, *_ = write_audit(plan, finished, failures, home / output)
    marks.append(("", time.perf_counter()))
    spent: dict[str, float] = dict.fromkeys(COLUMNS, 0.0)
    for (part, begun), (_, ended) in pairwise(marks):
        spent[part] += ended - begun
    return {"spent": spent, "cells": cells, "known": len(plan.cells) - cells.total(), "rows": len(rows)}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", type=int, default=4, help="of the four (default: all)")


def run(options: argparse.Namespace) -> None:
    from koda_audit.demo.digits import write_webdatasets
    from koda_audit.demo.models import write_models

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        names = list(write_models(home / "models"))
        write_webdatasets(home / "data")
        left_out = tuple(f"  {name}:" for name in names[options.models :])
        lines = [line for line in SUITE.splitlines() if not line.startswith(left_out)]
        (home / "suite.yaml").write_text("\n".join(lines) + "\n")
        (home / "prompts.json").write_text(PROMPTS)
        runs = {name: run_side("suite", folder=folder, output=output) for name, output in RUNS.items()}
    rows: list[dict[str, Any]] = [
        {
            "run": name,
            "cells done": sum(figures["cells"].values()),
            "cells known": figures["known"],
            **{f"{part} s": figures["spent"][part] for part in COLUMNS},
            "total s": sum(figures["spent"].values()),
        }
        for name, figures in runs.items()
    ]
    show(
        f"{options.models} models, 3 datasets of 397 test and 1,400 train drawings, 4 alignments and none, 4 tasks; "
        f"{runs['first']['rows']} rows of results",
        rows,
        "start: the plan, what is known of it, and the import of torch where a cell is left to do.",
    )
