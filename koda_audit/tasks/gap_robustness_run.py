"""What koda_gap_robustness computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from koda_audit._arrays import OnDevice, choose_device
from koda_audit._gap.robustness import GapRobustness, gap_robustness
from koda_audit.embeddings.container import Embeddings
from koda_audit.errors import InputError
from koda_audit.tasks.gap_robustness import GapRobustnessSettings
from koda_audit.tasks.gap_robustness_report import robustness_section
from koda_audit.tasks.numbers import averaged, known
from koda_audit.tasks.protocol import Inputs, Number, Outcome, Queries

Rows = NDArray[np.int64]
# of the numbers: those that no noise acts on, and the one that depends on which alphas were tried
CLEAN = ("clean_kept", "clean_accuracy", "clean_accuracy_closed")
GEOMETRY = ("gap", "orthogonal_gap", "residual_gap", "movable", "rank", "n_gallery", "n_queries")


def run(inputs: Inputs, settings: GapRobustnessSettings) -> Outcome:
    """Each variance of the noise by itself."""
    model, device = inputs.target, choose_device(inputs.device)
    rows = _drawn(len(model), settings.queries, inputs.seed)
    gallery = gallery_of(model, rows)
    text, image = OnDevice(gallery.text, device)[:], OnDevice(model.image, device)[torch.from_numpy(rows)]
    options = settings.model_dump(exclude={"total_var", "queries", "alphas"})
    numbers: list[Number] = []
    queries: dict[str, Queries] = {}
    sections, frames, flips = [], [], []
    for variance, end in settings.variants():
        found = gap_robustness(
            text,
            image,
            gallery.truth,
            total_var=variance,
            alphas=[*settings.alphas, 1.0],
            seed=inputs.seed,
            classes=None if gallery.truth is None else gallery.classes,
            **options,
        )
        means = dict(_queries(found, gallery))
        own = _own_settings(settings, variance, inputs.seed, gallery.kind, rows, len(model))
        for name, value in _values(found).items():
            metric, fields = f"gaprob_{name}{end}", {"settings": own(name)}
            if name in means:
                number, queries[metric] = averaged(metric, value, means[name], rows, inputs.seed, **fields)
            else:
                number = Number(metric, known(value), n=len(rows), **fields)
            numbers.append(number)
        changed = _flips(found, gallery.names)
        sections.append(robustness_section(model, found, gallery.kind, changed, end))
        frames.append(found.frame.assign(total_var=variance))
        flips.append(changed.assign(total_var=variance))
    tables = {"tables/robustness.csv": pd.concat(frames, ignore_index=True), "tables/flips.csv": pd.concat(flips)}
    shown = {"gallery": gallery.kind, **settings.model_dump(), "queries": len(rows), "seed": inputs.seed}
    return Outcome(tuple(numbers), tuple(sections), tables, queries, shown)


def _own_settings(settings: GapRobustnessSettings, variance: float, seed: int, gallery: str, rows: Rows, n: int) -> Any:
    """What each number depends on, by its name: not on trials where no noise acts, nor on alphas that it is not of."""
    queries = "all" if len(rows) == n else f"{len(rows)} of {n}, seed {seed}"
    common = {"gallery": gallery, "queries": queries, "rank": settings.rank}
    of_noise = {"total_var": variance, "trials": settings.trials, "seed": seed}
    of_noise = of_noise if settings.noise == "gaussian" else {"bins": settings.bins}

    def own(name: str) -> dict[str, Any]:
        if name in GEOMETRY:
            return common
        found = {**common, "metric": settings.metric}
        if name not in CLEAN:
            found |= {"noise": settings.noise, **of_noise}
        return found | ({"alphas": sorted({*settings.alphas, 0.0, 1.0})} if name == "best_alpha" else {})

    return own


def _drawn(n: int, most: int, seed: int) -> Rows:
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


@dataclass(frozen=True)
class Gallery:
    """Texts (c, d) and what they are called; the class of each, and the class that each query wants."""

    kind: str
    text: Any
    names: Sequence[str]
    classes: Rows
    truth: Rows | None


def gallery_of(model: Embeddings, queries: Rows) -> Gallery:
    """The prompts of all classes, or else the first caption of each query."""
    if model.class_text is not None:
        classes = np.arange(len(model.class_text))
        names = model.class_names or tuple(map(str, classes))
        truth = None if model.labels is None or model.labels.ndim == 2 else model.labels[queries]
        return Gallery("class prompts", model.class_text, names, classes, truth)
    pairs = model.pairs()
    if pairs.text is None:
        raise InputError("the dataset has neither captions nor classes: there is nothing to retrieve")
    captions = [(pairs.captions or pairs.ids)[row] for row in queries]
    classes = np.unique(captions, return_inverse=True)[1]  # equal captions are all right
    return Gallery("captions", pairs.text[queries], captions, classes, classes)


def _flips(found: GapRobustness, names: Sequence[str]) -> pd.DataFrame:
    """What noise made of other answers, without the gap closed."""
    changed = found.flips(0.0).query("clean != noisy")
    return changed.assign(**{column: [names[row] for row in changed[column]] for column in ("clean", "noisy")})


def _values(found: GapRobustness) -> dict[str, float]:
    """The numbers at alpha 0 and 1."""
    at = found.frame.set_index("alpha", drop=False)
    asis, closed = at.loc[0.0], at.loc[1.0]
    metrics = {
        "agreement": asis["agreement"],
        "agreement_se": asis["agreement_se"],
        "agreement_closed": closed["agreement"],
        "agreement_gain": closed["agreement_gain"],
        "agreement_gain_se": closed["agreement_gain_se"],
        "best_alpha": at["alpha"].iloc[at["agreement"].argmax()],
        "clean_kept": closed["clean_kept"],
    }
    if "clean_accuracy" in at:
        metrics |= {
            "clean_accuracy": asis["clean_accuracy"],
            "clean_accuracy_closed": closed["clean_accuracy"],
            "noisy_accuracy": asis["noisy_accuracy"],
            "noisy_accuracy_closed": closed["noisy_accuracy"],
            "noisy_accuracy_gain": closed["noisy_accuracy_gain"],
        }
    for name in ("gap", "orthogonal_gap", "residual_gap", "movable", "rank", "n_gallery", "n_queries"):
        metrics[name] = found.settings[name]
    return {name: float(value) for name, value in metrics.items()}


def _queries(found: GapRobustness, gallery: Gallery) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """(m,) what each query contributed to those of ``_values`` that are means over queries."""
    alphas = found.frame["alpha"].tolist()
    for suffix, alpha in (("", 0.0), ("_closed", 1.0)):
        clean, noisy = found.clean[alphas.index(alpha)], found.noisy[:, alphas.index(alpha)]
        yield f"agreement{suffix}", (noisy == clean).mean(axis=0)
        if gallery.truth is not None:
            yield f"clean_accuracy{suffix}", (gallery.classes[clean] == gallery.truth).astype(np.float64)
            yield f"noisy_accuracy{suffix}", (gallery.classes[noisy] == gallery.truth).mean(axis=0)
