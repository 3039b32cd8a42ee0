"""What koda_modality_gap computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from koda_audit._arrays import OnDevice, choose_device
from koda_audit._gap.by_group import modality_gap_by_group
from koda_audit._gap.intervals import Estimate
from koda_audit._gap.metrics import modality_gap
from koda_audit._gap.table import METRICS, VARIANTS
from koda_audit.embeddings.container import Embeddings
from koda_audit.errors import InputError
from koda_audit.evaluation.tasks import evaluate
from koda_audit.tasks.gap import GapSettings
from koda_audit.tasks.gap_report import classes_section, decisions_section, gap_section
from koda_audit.tasks.numbers import known, scored
from koda_audit.tasks.protocol import Inputs, Number, Outcome, Queries


def run(inputs: Inputs, settings: GapSettings) -> Outcome:
    """The gap, how zero-shot decisions spread over classes, and the gap of each class."""
    model, seed, device = inputs.target, inputs.seed, choose_device(inputs.device)
    texts, kind, paired = texts_of(model)
    image, text = (OnDevice(values, device)[:] for values in (model.image, texts))
    found = modality_gap(image, text, paired=paired, seed=seed, **settings.model_dump())
    table = _table(found)
    numbers = list(_numbers(table, len(image), {"texts": kind}, seed, settings))
    sections = [gap_section(model, image, text, kind, table, seed)]
    tables, queries = {"tables/gap.csv": table}, dict[str, Queries]()
    if model.class_text is not None and len(model.class_text) > 1:
        decisions = evaluate(model, "side_effects", device=device)
        more, queries = scored(decisions, len(model), seed, names=lambda name: f"gap_{name}")
        numbers += more
        sections.append(decisions_section(decisions.values))
    if model.labels is not None and model.labels.ndim == 1:
        by_class = _by_class(model, image, text, model.labels)
        sections.append(classes_section(by_class))
        tables["tables/gap_by_class.csv"] = by_class
    shown = {"texts": kind, "paired": paired, **settings.model_dump(), "seed": seed}
    return Outcome(tuple(numbers), tuple(sections), tables, queries, shown)


def _numbers(table: pd.DataFrame, n: int, settings: dict[str, Any], seed: int, chosen: GapSettings) -> Iterator[Number]:
    """``settings`` are those of all; what is drawn depends on the seed, too."""
    for row in table.to_dict("records"):
        order = (METRICS.get(row["metric"]) or VARIANTS[row["metric"]]).order
        drawn = {} if order == "first" else {"seed": seed}
        rows = {"pairwise_rows": min(n, chosen.pairwise_rows)} if order == "pairwise" else {}
        ends = known(row.get("low")), known(row.get("high"))
        metric, own = f"gap_{row['metric']}", {**settings, **drawn, **rows}
        yield Number(metric, known(row["value"]), *ends, n=n, settings=own)


def several_classes(model: Embeddings) -> bool:
    """Whether an image may be of several classes, and without a caption has no text of its own."""
    return model.text is None and model.labels is not None and model.labels.ndim == 2


def texts_of(model: Embeddings) -> tuple[Any, str, bool]:
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
