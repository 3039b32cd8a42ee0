"""The task koda_modality_gap: how far apart the images and the texts of one model lie, and in what way."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd

from koda_audit._arrays import OnDevice, choose_device
from koda_audit._gap.by_group import modality_gap_by_group
from koda_audit._gap.intervals import Estimate
from koda_audit._gap.measured import PAIRWISE_ROWS
from koda_audit._gap.metrics import modality_gap
from koda_audit._gap.table import METRICS, VARIANTS
from koda_audit.document import Outcome
from koda_audit.embeddings.container import Embeddings
from koda_audit.errors import InputError
from koda_audit.evaluation.tasks import evaluate
from koda_audit.host_tasks.gap_report import classes_section, decisions_section, gap_section
from koda_audit.host_tasks.protocol import Inputs


class ModalityGapTask:
    """Every metric of ``modality_gap`` between the images and their first captions, or the prompts of their classes."""

    name = "koda_modality_gap"
    help = "how far apart the images and the texts of a model lie, and in what way"
    compares = False

    def add_options(self, group: argparse._ArgumentGroup) -> None:
        group.add_argument(
            "--koda_gap_no_interval",
            action="store_true",
            help="leave out intervals and nulls, which take three to seven times as long as the values alone",
        )
        group.add_argument(
            "--koda_gap_variants",
            action="store_true",
            help="add other definitions that papers use under the same names, to compare with theirs",
        )
        group.add_argument(
            "--koda_gap_pairwise_rows",
            metavar="N",
            type=int,
            default=PAIRWISE_ROWS,
            help="rows a side, drawn with --seed, for metrics made of all pairs of rows; default: %(default)s",
        )

    def check(self, options: argparse.Namespace, samples: int | None = None) -> None:
        if options.koda_gap_pairwise_rows < 4:
            raise InputError(f"--koda_gap_pairwise_rows {options.koda_gap_pairwise_rows}: at least 4")
        if samples is not None and samples < 2:
            raise InputError(f"{self.name} needs at least 2 samples: {samples} found")

    def run(self, inputs: Inputs) -> Outcome:
        model, options = inputs.target, inputs.options
        device = choose_device(inputs.device)
        texts, kind, paired = _texts(model)
        image, text = (OnDevice(values, device)[:] for values in (model.image, texts))
        settings: dict[str, Any] = {
            "paired": paired,
            "interval": not options.koda_gap_no_interval,
            "variants": options.koda_gap_variants,
            "pairwise_rows": options.koda_gap_pairwise_rows,
            "seed": options.seed,
        }
        found = modality_gap(image, text, **settings)
        table = _table(found)
        metrics: dict[str, float | None] = dict(zip("gap_" + table["metric"], table["value"], strict=True))
        sections = [gap_section(model, image, text, kind, table, options.seed)]
        files = {"tables/gap.csv": table}
        if model.class_text is not None and len(model.class_text) > 1:
            decisions = evaluate(model, "side_effects", device=device).values
            metrics |= {f"gap_{name}": value for name, value in decisions.items()}
            sections.append(decisions_section(decisions))
        if model.labels is not None and model.labels.ndim == 1:
            by_class = _by_class(model, image, text, model.labels)
            sections.append(classes_section(by_class))
            files["tables/gap_by_class.csv"] = by_class
        return Outcome(metrics, {"texts": kind, **settings}, tuple(sections), files)


def several_classes(model: Embeddings) -> bool:
    """Whether an image may be of several classes, and without a caption has no text of its own."""
    return model.text is None and model.labels is not None and model.labels.ndim == 2


def _texts(model: Embeddings) -> tuple[Any, str, bool]:
    """The texts that the gap is measured to, what they are, and whether each belongs to an image."""
    if several_classes(model):
        return model.class_text, "the prompts of all classes", False
    text = model.pairs().text
    if text is None:
        raise InputError("the dataset has neither captions nor classes: a gap lies between images and texts")
    return text, "their first captions" if model.text is not None else "the prompts of their classes", True


def _table(found: dict[str, float] | dict[str, Estimate]) -> pd.DataFrame:
    """A row a metric: its value, and its interval and null where they were asked for."""
    rows = []
    for key, number in found.items():
        known = METRICS.get(key) or VARIANTS[key]
        estimate = number._asdict() if isinstance(number, Estimate) else {"value": number}
        rows.append({"metric": key, **estimate, "definition": known.definition})
    return pd.DataFrame(rows)


def _by_class(model: Embeddings, image: Any, text: Any, labels: Any) -> pd.DataFrame:
    frame = modality_gap_by_group(image, text, labels)
    names = np.asarray(model.class_names or [str(label) for label in range(int(labels.max()) + 1)])
    frame.insert(0, "class", names[frame.index])
    return frame.reset_index()


task = ModalityGapTask()
