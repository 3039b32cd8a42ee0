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


def alignments(name: str, folder: str) -> Figures:
    if name == "host":
        import clip_benchmark.cli as host

    home = Path(folder)
    base, root = f"local-dir:{home / 'models' / MODEL}", home / "data" / DATA
    found: dict[str, dict[str, float]] = {}
    with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()), measured() as figures:
        if name == "extraction":
            store, model = Store(home / "store"), load_model(ModelSpec(base))
            for split in ("train", "test"):
                embed(model, load_dataset(f"wds/{DATA}", str(root), split), store, workers=0).save(home / split)
        elif name == "host":
            words = ["clip_benchmark", "eval", "--task", "zeroshot_retrieval", "--pretrained_model", f"{base},x"]
            words += ["--dataset", f"wds/{DATA}", "--dataset_root", str(root), "--recall_k", *map(str, AT)]
            sys.argv = [*words, "--no_amp", "--num_workers", "0", "--quiet", "--output", str(home / "host.json")]
            for _ in METHODS:
                host.main()
            found["identity"] = json.loads((home / "host.json").read_text())["metrics"]
        else:
            fit, test = Embeddings.load(home / "train"), Embeddings.load(home / "test")
            for method in METHODS:
                aligned = fit_alignment(method, fit).apply(test)
                found[method] = dict(evaluate(aligned, "zeroshot_retrieval", at=AT).values)
    return {**figures, "found": found.get("identity")}


def side(part: str, **settings: Any) -> Figures:
    return {"retrieval": retrieval, "alignments": alignments}[part](**settings)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--captions", type=int, default=5, help="of each image")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)


def run(options: argparse.Namespace) -> None:
    given = {"images": options.images, "captions": options.captions, "width": options.width, "seed": options.seed}
    sides = {name: run_side("evaluation", part="retrieval", name=name, **given) for name in ("host", "ours")}
    with tempfile.TemporaryDirectory() as folder:
        write_models(Path(folder) / "models")
        write_webdatasets(Path(folder) / "data")
        ten = {
            name: run_side("evaluation", part="alignments", name=name, folder=folder)
            for name in ("extraction", "host", "ours")
        }
    rows = []
    for title, found in (("retrieval", sides), ("ten alignments", ten)):
        for name, figures in found.items():
            rows.append(
                {
                    "benchmark": title,
                    "side": name,
                    "s": figures["seconds"],
                    "floor s": figures.get("floor"),
                    "peak above imports GiB": figures.get("above"),
                    "time / host": figures["seconds"] / found["host"]["seconds"] if name == "ours" else None,
                    "peak / host": figures["above"] / found["host"]["above"]
                    if figures.get("above") and name == "ours"
                    else None,
                    "numbers differ by": _difference(found) if name == "ours" else None,
                }
            )
    show(
        f"{options.images} images, {options.images * options.captions} captions of width {options.width}",
        rows,
        "numbers differ by: the largest difference of a recall to the host's; of the ten, the one without alignment.",
    )


def _difference(found: dict[str, Figures]) -> float:
    ours, host = (found[name]["found"] for name in ("ours", "host"))
    return max(abs(ours[key] - host[key]) for key in host)
