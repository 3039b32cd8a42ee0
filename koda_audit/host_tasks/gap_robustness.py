"""The task koda_gap_robustness: does noise on the gallery change answers, and does closing the gap help?"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from koda_audit._arrays import OnDevice, choose_device
from koda_audit._gap.robustness import GapRobustness, check_settings, gap_robustness
from koda_audit._gap.translate import METRICS, check_rank
from koda_audit.document import Outcome
from koda_audit.embeddings.container import Embeddings
from koda_audit.errors import InputError, unknown
from koda_audit.host_tasks.gap_robustness_report import robustness_section
from koda_audit.host_tasks.protocol import Inputs

NOISES = ("gaussian", "quantise")  # other prompts, as noise, are for the Python function
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
QUERIES = 5_000

Rows = NDArray[np.int64]


class GapRobustnessTask:
    """``gap_robustness`` of zero-shot classification where classes exist, else of the retrieval of captions."""

    name = "koda_gap_robustness"
    help = (
        "how often noise on the texts changes which of them is nearest to an image, and whether closing the gap helps"
    )
    compares = False

    def add_options(self, group: argparse._ArgumentGroup) -> None:
        group.add_argument(
            "--koda_gaprob_noise",
            default="gaussian",
            metavar="|".join(NOISES),
            help="on the texts, which are prompts of the classes or else captions; default: gaussian",
        )
        group.add_argument(
            "--koda_gaprob_total_var",
            metavar="VARIANCE",
            type=float,
            default=0.02,
            help="of gaussian noise: its expected squared length, where texts have length 1; default: %(default)s",
        )
        group.add_argument(
            "--koda_gaprob_bins",
            metavar="B",
            type=int,
            default=64,
            help="of quantise: equal bins from the smallest to the largest entry; default: %(default)s",
        )
        group.add_argument(
            "--koda_gaprob_metric",
            default="euclidean",
            metavar="|".join(METRICS),
            help="by which the nearest text is found; default: euclidean",
        )
        group.add_argument(
            "--koda_gaprob_alphas",
            metavar="ALPHA",
            type=float,
            nargs="+",
            default=list(ALPHAS),
            help="how far the texts are moved along the gap; 0 and 1 are always measured; default: 0 to 1.5 by 0.25",
        )
        group.add_argument(
            "--koda_gaprob_rank",
            metavar="RANK",
            type=_rank,
            help="principal directions of the texts that the move leaves alone: a number, or a share of the variance "
            "with a point in it; default: all, which keeps every ranking",
        )
        group.add_argument(
            "--koda_gaprob_trials", metavar="T", type=int, default=20, help="draws of the noise; default: %(default)s"
        )
        group.add_argument(
            "--koda_gaprob_queries",
            metavar="N",
            type=int,
            default=QUERIES,
            help="images at most, drawn with --seed (and with captions, theirs); default: %(default)s",
        )

    def check(self, options: argparse.Namespace, samples: int | None = None) -> None:
        if options.koda_gaprob_noise not in NOISES:
            raise InputError(unknown("--koda_gaprob_noise", options.koda_gaprob_noise, NOISES))
        check_settings(
            options.koda_gaprob_noise,
            options.koda_gaprob_metric,
            options.koda_gaprob_total_var,
            options.koda_gaprob_bins,
            options.koda_gaprob_trials,
            options.koda_gaprob_alphas,
        )
        check_rank(options.koda_gaprob_rank)
        if options.koda_gaprob_queries < 1:
            raise InputError(f"--koda_gaprob_queries {options.koda_gaprob_queries}: at least 1")

    def run(self, inputs: Inputs) -> Outcome:
        model, options = inputs.target, inputs.options
        device = choose_device(inputs.device)
        queries = _drawn(len(model), options.koda_gaprob_queries, options.seed)
        gallery = gallery_of(model, queries)
        found = gap_robustness(
            OnDevice(gallery.text, device)[:],
            OnDevice(model.image, device)[torch.from_numpy(queries)],
            gallery.truth,
            noise=options.koda_gaprob_noise,
            total_var=options.koda_gaprob_total_var,
            bins=options.koda_gaprob_bins,
            metric=options.koda_gaprob_metric,
            alphas=[*options.koda_gaprob_alphas, 1.0],
            rank=options.koda_gaprob_rank,
            trials=options.koda_gaprob_trials,
            seed=options.seed,
            classes=None if gallery.truth is None else gallery.classes,
        )
        flips = _flips(found, gallery.names)
        section = robustness_section(model, found, gallery.kind, flips)
        files = {"tables/robustness.csv": found.frame, "tables/flips.csv": flips}
        metrics: dict[str, float | None] = {**flat_metrics(found)}
        return Outcome(metrics, {"gallery": gallery.kind, **found.settings}, (section,), files)


def _rank(text: str) -> int | float:
    return float(text) if set(text.lower()) & set(".e") else int(text)


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


def flat_metrics(found: GapRobustness) -> dict[str, float]:
    """The numbers at alpha 0 and 1, as a table of results has them."""
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
    return {f"gaprob_{name}": float(value) for name, value in metrics.items()}


def flat_outcomes(found: GapRobustness, gallery: Gallery) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """(m,) what each query contributed to those of ``flat_metrics`` that are means over queries."""
    alphas = found.frame["alpha"].tolist()
    for suffix, alpha in (("", 0.0), ("_closed", 1.0)):
        clean, noisy = found.clean[alphas.index(alpha)], found.noisy[:, alphas.index(alpha)]
        yield f"gaprob_agreement{suffix}", (noisy == clean).mean(axis=0)
        if gallery.truth is not None:
            yield f"gaprob_clean_accuracy{suffix}", (gallery.classes[clean] == gallery.truth).astype(np.float64)
            yield f"gaprob_noisy_accuracy{suffix}", (gallery.classes[noisy] == gallery.truth).mean(axis=0)


task = GapRobustnessTask()
