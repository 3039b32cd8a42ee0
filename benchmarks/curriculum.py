"""The curriculum on drawn digits, for each alpha_target: what it does to the gap, and to what could be done before.

Of ``colour``, as maps of stored embeddings and as training of both towers, against plain centring. mix_bias and
effective_dim are means of both sides, the latter in parts of that before. Which drawings: see drawings.py. "±" is the
standard deviation over seeds.

The published claim is that the curriculum closes what centring cannot, the distribution gap, at no cost. Here that
holds in part. Centring leaves dist_gap_rel at .097; both towers at alpha_target 1 reach .066, but plain contrastive
training of the same length, alpha_target 0, reaches .071 by itself. mix_bias falls from .82 to .77 (centring: .81), so
the modalities stay apart, and accuracy falls by .006. Maps of stored embeddings reach .088, and lose .002 of the
accuracy.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import Figures, show
from drawings import Drawings, embedded, in_processes, judges, spelled

from koda_audit import Embeddings
from koda_audit._gap.metrics import modality_gap
from koda_audit.alignment.fit import fit_alignment
from koda_audit.alignment.plans import TowerPlan
from koda_audit.alignment.tower import curriculum_tower
from koda_audit.demo.digits import draw
from koda_audit.demo.models import ASSETS
from koda_audit.embeddings.store import Store
from koda_audit.evaluation.tasks import evaluate
from koda_audit.figures import COLOURS as INKS
from koda_audit.figures import drawn, legend
from koda_audit.models import ModelSpec

BATCH, TOWER_RATE = 64, 1e-4
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
GAP = ("dist_gap_rel", "mix_bias", "effective_dim", "digit accuracy")


def effects(test: Embeddings, classes: Embeddings, dimensions: float = 1.0) -> Figures:
    """``GAP`` of captions and classes; ``effective_dim`` in parts of ``dimensions``."""
    pairs = test.pairs()
    gap = modality_gap(np.asarray(pairs.image), np.asarray(pairs.text))
    return {
        "dist_gap_rel": gap["dist_gap_rel"],
        "mix_bias": (gap["mix_bias_image"] + gap["mix_bias_text"]) / 2,
        "effective_dim": (gap["effective_dim_image"] + gap["effective_dim_text"]) / 2 / dimensions,
        "digit accuracy": evaluate(classes, "zeroshot_classification").values["acc1"],
    }


def curriculum(
    home: Path, seed: int, alphas: Sequence[float], tower_epochs: int, tower_seeds: int
) -> Iterator[Figures]:
    """A row an alignment, of one seed."""
    store, student = Store(home / "store"), ASSETS / "colour"
    fit, test = draw("train", seed), judges(seed, "test")
    known = embedded(student, fit, store, captions=True)
    pairs, classes = (embedded(student, test, store, captions) for captions in (True, False))
    before = effects(pairs, classes)
    dimensions = before["effective_dim"]
    yield {"alignment": "none", **before, "effective_dim": 1.0}
    fits = {"center_renorm": fit_alignment("center_renorm", known)}
    for alpha in alphas:
        fits[f"maps {alpha:g}"] = fit_alignment("curriculum", known, alpha_target=alpha, seed=seed)
    for name, fitted in fits.items():
        yield {"alignment": name, **effects(fitted.apply(pairs), fitted.apply(classes), dimensions)}
    for alpha in alphas if seed < tower_seeds else ():
        output = home / f"alpha{alpha:g}"
        plan = TowerPlan(tower_epochs, BATCH, TOWER_RATE, seed=seed, workers=0)
        spec, data = ModelSpec(f"local-dir:{student}"), Drawings(fit, True).dataset()
        curriculum_tower(spec, data, output, store, alpha, plan=plan)
        pairs, classes = (embedded(output, test, store, captions) for captions in (True, False))
        yield {"alignment": f"towers {alpha:g}", **effects(pairs, classes, dimensions)}


def run(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    settings = {name: getattr(options, name) for name in ("alphas", "tower_epochs", "tower_seeds")}
    seeds = [{"seed": seed} for seed in range(options.seeds)]
    found = in_processes("curriculum", options.jobs, seeds, **settings)
    frame = pd.DataFrame([{"seed": seed, **row} for seed, each in enumerate(found) for row in each["rows"]])
    rows = [
        {"alignment": name, "seeds": len(some), **{key: spelled(some[key].to_numpy()) for key in GAP}}
        for name, some in frame.groupby("alignment", sort=False)
    ]
    epochs = f"20 epochs of maps, {options.tower_epochs} of towers"
    show(f"curriculum to alpha_target, {epochs}", rows, verdict(frame))
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "curriculum.png").write_bytes(picture(frame))
        frame.to_csv(options.output / "curriculum.csv", index=False)


def verdict(frame: pd.DataFrame) -> str:
    """The curve's best point against centring: whether the claim holds here."""
    means = frame.groupby("alignment")[list(GAP)].mean()
    trained = means[means.index.str.contains(" ")]
    best = str(trained["dist_gap_rel"].idxmin())
    there, centred = means.loc[best].to_dict(), means.loc["center_renorm"].to_dict()
    points = ", ".join(f"{key} {there[key]:.3f} against {centred[key]:.3f}" for key in GAP)
    way = best.split()[0]
    text = f"Smallest dist_gap_rel of the curriculum: {best}; there, against center_renorm: {points}."
    if f"{way} 0" in means.index:
        text += f"\nTraining without the curriculum, {way} 0, leaves {means['dist_gap_rel'].to_dict()[f'{way} 0']:.3f}."
    return text


def picture(frame: pd.DataFrame) -> bytes:
    """A curve a figure and way of training, over alpha_target; centring and no alignment as level lines."""
    means = frame.groupby("alignment", sort=False)[list(GAP)].mean()
    with drawn(4.2, "The curriculum over alpha_target", len(GAP)) as (figure, axes, stream):
        for name, panel in zip(GAP, axes, strict=True):
            handles = []
            for ink, way in zip(INKS, ("maps", "towers"), strict=False):
                curve = means[means.index.str.startswith(way)]
                alphas = [float(each.split()[1]) for each in curve.index]
                handles += panel.plot(alphas, curve[name], "o-", color=ink, label=f"curriculum, {way}")
            for ink, way in zip(INKS[2:], ("center_renorm", "none"), strict=False):
                handles.append(panel.axhline(means[name].to_dict()[way], color=ink, linestyle="--", label=way))
            panel.set_title(name)
            panel.set_xlabel("alpha_target")
        legend(figure, handles, 4)
    return stream.getvalue()


def side(**settings: Any) -> Figures:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        return {"rows": list(curriculum(Path(folder), **settings))}


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--seeds", type=int, default=10, help="default %(default)s")
    add("--alphas", type=float, nargs="+", default=list(ALPHAS), help="default %(default)s")
    add("--tower_seeds", type=int, default=10, help="of towers, which take longer (default %(default)s)")
    add("--tower_epochs", type=int, default=4, help="default %(default)s")
    add("--jobs", type=int, default=2, help="seeds at a time, of one thread each (default %(default)s)")
    add("--output", type=Path, help="folder for curriculum.png and .csv")
