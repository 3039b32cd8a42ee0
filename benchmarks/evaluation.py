"""Benchmarks from embeddings against the host's own evaluation, each side in a process of its own.

retrieval   recall at 1, 5 and 10, both ways, of given embeddings: ``zeroshot_retrieval`` of clip_benchmark, in its
            batches of 64 and in float32, and ours in float64. Peaks are above what the imports hold; they count
            the inputs.
alignments  ten runs of clip_benchmark with one small model on 397 drawings with captions, one after the other in one
            process, against ten alignments that are fitted on the 1,400 drawings of the other split, applied and
            evaluated. Their embeddings are read and verified in that time; the one extraction that made them stands
            beside. A larger model costs the host more and ours nothing. Imports are excluded on either side.

The floor of retrieval is the one product of all images and texts, at the rate of a large plain product; that of the
alignments is not known.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from common import Figures, measured, product_rate, run_side, show

from koda_audit import Embeddings
from koda_audit.alignment.fit import fit_alignment
from koda_audit.data.load import load_dataset
from koda_audit.demo.digits import write_webdatasets
from koda_audit.demo.models import write_models
from koda_audit.embeddings.extract import embed
from koda_audit.embeddings.store import Store
from koda_audit.evaluation.retrieval import zeroshot_retrieval
from koda_audit.evaluation.tasks import evaluate
from koda_audit.models import ModelSpec, load_model

AT, BATCH = [1, 5, 10], 64
NOISE = 8  # of a text around its image, which has 1 in each dimension: some are found and some are not
METHODS = (
    *("identity", "center", "center_renorm", "mg_shift", "project_out"),
    *("realign", "zca", "coral", "procrustes", "ridge"),
)
MODEL, DATA = "broken", "digits_captions"


def retrieval(name: str, images: int, captions: int, width: int, seed: int) -> Figures:
    if name == "host":
        from clip_benchmark.metrics import zeroshot_retrieval as host

    with measured() as imports:
        pass
    random = np.random.default_rng(seed)
    image = random.standard_normal((images, width), dtype=np.float32)
    owner = np.repeat(np.arange(images), captions)
    text = image[owner] + NOISE * random.standard_normal((len(owner), width), dtype=np.float32)
    with measured() as figures:
        if name == "host":
            vectors = torch.from_numpy(text)
            model = SimpleNamespace(encode_image=lambda rows: rows, encode_text=lambda rows: vectors[rows])
            rows = np.arange(len(text)).reshape(images, captions)
            spans = [slice(start, start + BATCH) for start in range(0, images, BATCH)]
            batches = [(torch.from_numpy(image[span]), rows[span].tolist()) for span in spans]
            with redirect_stderr(io.StringIO()):
                found = host.evaluate(model, batches, torch.tensor, "cpu", amp=False, recall_k_list=AT)
        else:
            found = dict(zeroshot_retrieval(image, text, owner, AT).values)
    above = None if figures["peak"] is None else figures["peak"] - imports["peak"]
    floor = 2 * images * len(text) * width / product_rate() if name == "ours" else None
    return {**figures, "above": above, "found": found, "floor": floor}


def alignments(name: str, folder: str, runs: int) -> Figures:
    home = Path(folder)
    base, root = f"local-dir:{home / 'models' / MODEL}", home / "data" / DATA
    with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
        return (_host_runs if name == "host" else _our_runs)(home, base, str(root), runs)


def _host_runs(home: Path, base: str, root: str, runs: int) -> Figures:
    import clip_benchmark.cli as host

    words = ["clip_benchmark", "eval", "--task", "zeroshot_retrieval", "--pretrained_model", f"{base},x"]
    words += ["--dataset", f"wds/{DATA}", "--dataset_root", root, "--recall_k", *map(str, AT)]
    sys.argv = [*words, "--no_amp", "--num_workers", "0", "--quiet", "--output", str(home / "host.json")]
    with measured() as figures:
        for _ in range(runs):
            host.main()
    return {**figures, "found": json.loads((home / "host.json").read_text())["metrics"]}


def _our_runs(home: Path, base: str, root: str, runs: int) -> Figures:
    with measured() as extraction:
        store, model = Store(home / "store"), load_model(ModelSpec(base))
        for split in ("train", "test"):
            embed(model, load_dataset(f"wds/{DATA}", root, split), store, workers=0).save(home / split)
    found = {}
    with measured() as figures:
        fit, test = Embeddings.load(home / "train"), Embeddings.load(home / "test")
        for method in METHODS[:runs]:
            aligned = fit_alignment(method, fit).apply(test)
            found[method] = dict(evaluate(aligned, "zeroshot_retrieval", at=AT).values)
    return {**figures, "found": found["identity"], "extraction": extraction["seconds"]}


def side(part: str, **settings: Any) -> Figures:
    return {"retrieval": retrieval, "alignments": alignments}[part](**settings)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--captions", type=int, default=5, help="of each image")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--runs", type=int, default=len(METHODS), help="of the host, and alignments; default: 10")
    parser.add_argument("--seed", type=int, default=0)


def run(options: argparse.Namespace) -> None:
    given = {"images": options.images, "captions": options.captions, "width": options.width, "seed": options.seed}
    rows = _rows("retrieval", given)
    with tempfile.TemporaryDirectory() as folder:
        write_models(Path(folder) / "models")
        write_webdatasets(Path(folder) / "data")
        rows += _rows("alignments", {"folder": folder, "runs": options.runs})
    show(
        f"{options.images} images, {options.images * options.captions} captions of width {options.width}; "
        f"{options.runs} alignments",
        rows,
        "numbers differ by: the largest difference of a recall to the host's; of the alignments, that of the identity.",
    )


def _rows(part: str, settings: dict[str, Any]) -> list[dict[str, Any]]:
    host, ours = (run_side("evaluation", part=part, name=name, **settings) for name in ("host", "ours"))
    rows = [
        {
            "benchmark": part,
            "side": name,
            "s": figures["seconds"],
            "floor s": figures.get("floor"),
            "extraction s": figures.get("extraction"),
            "peak above imports GiB": figures.get("above"),
        }
        for name, figures in (("host", host), ("ours", ours))
    ]
    rows[1] |= {
        "time / host": ours["seconds"] / host["seconds"],
        "peak / host": ours["above"] / host["above"] if ours.get("above") else None,
        "numbers differ by": max(abs(ours["found"][key] - value) for key, value in host["found"].items()),
    }
    return rows
