"""Kernel alignment of a tower against a bare loop over the same images.

Both sides read and preprocess the demo's drawings in one process and train the visual tower of ``plain`` towards
``colour`` for some steps; embedding what stays fixed is counted for neither.

ours  ``train`` as ``align_tower`` calls it: loss in float64, history, and one checkpoint at the end
bare  forward, the published loss in float32, backward, AdamW, and nothing else

The floor is the bare loop. Sides are run several times in turn: on two shared cores equal runs differ by 10 %, so the
median of the rounds' ratios counts.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from common import Figures, measured, run_side, show

from koda_audit.alignment.batches import Batches
from koda_audit.alignment.learners import KernelGoal, KernelLearner
from koda_audit.alignment.tower import VisualTower
from koda_audit.alignment.training import Recipe, train
from koda_audit.data.dataset import batches
from koda_audit.data.load import load_dataset
from koda_audit.demo.digits import write_webdatasets
from koda_audit.demo.models import ASSETS
from koda_audit.embeddings.extract import embed
from koda_audit.embeddings.store import Store
from koda_audit.models import ModelSpec, load_model

RATE = 1e-4


def side(name: str, steps: int, batch: int, folder: str) -> Figures:
    home = Path(folder)
    dataset = load_dataset("wds/digits_captions", str(write_webdatasets(home)["digits_captions"]), "train")
    student, teacher = (load_model(ModelSpec(f"local-dir:{ASSETS / model}")) for model in ("plain", "colour"))
    before, known = (
        np.asarray(embed(model, dataset, Store(home / "store"), workers=0, quiet=True).image)
        for model in (student, teacher)
    )
    chosen = Batches(len(before), batch, seed=0)
    groups = [chosen(step) for step in range(steps)]
    student.encoder.requires_grad_(False)
    tower = VisualTower(student.encoder)
    if name == "ours":
        learner = KernelLearner(tower, before, known, KernelGoal())
        read = batches(dataset, [rows.tolist() for rows in groups], student.preprocess, 0)
        feed = zip(groups, ((images,) for _, images, _ in read), strict=True)
        torch.optim.AdamW(learner.groups())  # the first one of a process imports for seconds
        with tempfile.TemporaryDirectory() as checkpoints, measured() as figures:
            train(learner, lambda start: feed, Recipe(steps, batch, RATE), Path(checkpoints))
    else:
        optimiser = torch.optim.AdamW(tower.parameters(), lr=RATE)
        anchor, target = torch.from_numpy(before), torch.from_numpy(known)
        with measured() as figures:
            read = batches(dataset, [rows.tolist() for rows in groups], student.preprocess, 0)
            for rows, (_, images, _) in zip(groups, read, strict=True):
                x, t = tower(images), target[rows]
                loss = 0.5 * ((_published(x) - _published(t)) ** 2).mean()
                loss = loss + ((x - anchor[rows]) ** 2).sum(dim=1).mean()
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
    return figures


def _published(x: torch.Tensor) -> torch.Tensor:
    k = (x @ x.T / x.shape[1] + 1) ** 3
    own = k.diagonal()
    return k / (own[:, None] * own).sqrt()


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, default=40, help="default %(default)s")
    parser.add_argument("--batch", type=int, default=64, help="default %(default)s")
    parser.add_argument("--rounds", type=int, default=6, help="of both sides in turn (default %(default)s)")


def run(options: argparse.Namespace) -> None:
    seconds: dict[str, list[float]] = {"ours": [], "bare": []}
    peaks: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for name, times in seconds.items():
                figures = run_side("training", name=name, steps=options.steps, batch=options.batch, folder=folder)
                times.append(figures["seconds"])
                peaks[name] = figures["peak"]
    rates = np.array(seconds["bare"]) / np.array(seconds["ours"])
    rows = [
        {
            "side": name,
            "steps a second": options.steps / np.median(times),
            "rate / bare": np.median(rates) if name == "ours" else None,
            "of rounds": f"{rates.min():.2f} to {rates.max():.2f}" if name == "ours" else None,
            "peak GiB": peaks[name],
        }
        for name, times in seconds.items()
    ]
    show(f"{options.steps} steps of {options.batch} images, {options.rounds} rounds", rows, __doc__.splitlines()[0])
