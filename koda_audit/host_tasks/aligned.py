"""The tasks koda_aligned_…: benchmarks of the host before and after an alignment, from one set of embeddings."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
import torch

from koda_audit._gap.translate import gap_vector
from koda_audit.alignment.operator import Alignment
from koda_audit.data.dataset import Kind
from koda_audit.document import Outcome, Section, escape
from koda_audit.embeddings.container import Embeddings
from koda_audit.errors import InputError
from koda_audit.evaluation.inputs import unit_rows
from koda_audit.evaluation.scores import Scores, paired_change
from koda_audit.evaluation.tasks import evaluate
from koda_audit.host_tasks.aligned_choice import Choice, check_choice, label
from koda_audit.host_tasks.protocol import Inputs

Measure = Callable[[Embeddings, Embeddings, argparse.Namespace, torch.device], Scores]
"""Of the embeddings, aligned or not, and of the same samples as they came."""


class AlignedTask:
    """The host's numbers before and after an alignment, and their change."""

    compares = False
    aligns = True

    def __init__(self, name: str, kind: Kind, help: str, measure: Measure) -> None:
        self.name, self.kind, self.help, self.measure = name, kind, help, measure

    def add_options(self, group: argparse._ArgumentGroup) -> None:
        """None: those of the alignment are shared with the other task."""

    def check(self, options: argparse.Namespace, samples: int | None = None) -> None:
        check_choice(options)
        if any(k < 1 for k in options.recall_k):
            raise InputError(f"--recall_k {' '.join(map(str, options.recall_k))}: at least 1")

    def run(self, inputs: Inputs) -> Outcome:
        options, device = inputs.options, torch.device(inputs.device or "cpu")
        choice = check_choice(options)
        alignment = choice.fit(inputs.target, inputs.fit, options.koda_transductive)
        aligned = alignment.apply(inputs.target)
        before, after = (self.measure(side, inputs.target, options, device) for side in (inputs.target, aligned))
        table = _table(before, after)
        settings = {
            "alignment": label(alignment),
            "fitted on": _fitted_on(choice, alignment, inputs),
            "scoring": alignment.info["scoring"],
        }
        section = Section(f"What {settings['alignment']} changes", _reading(alignment, settings), table)
        return Outcome(_metrics(table), settings, (section,), {"tables/change.csv": table})


def _classification(
    side: Embeddings, unaligned: Embeddings, options: argparse.Namespace, device: torch.device
) -> Scores:
    right = evaluate(side, "zeroshot_classification", device=device)
    earlier = {} if side is unaligned else {"unaligned": unaligned}
    spread = evaluate(side, "side_effects", device=device, **earlier).values
    kept = {name: value for name, value in spread.items() if name != "label_gini"}  # no alignment changes it
    return replace(right, values={**right.values, **kept, "centroid_gap": _centroid_gap(side)})


def _retrieval(side: Embeddings, unaligned: Embeddings, options: argparse.Namespace, device: torch.device) -> Scores:
    recalls = evaluate(side, "zeroshot_retrieval", device=device, at=options.recall_k)
    return replace(recalls, values={**recalls.values, "centroid_gap": _centroid_gap(side)})


def _centroid_gap(side: Embeddings) -> float:
    """|mean image - mean text| of all rows at length 1, the texts being the captions, or one prompt a class."""
    gap = gap_vector(*unit_rows(text=side.class_text if side.text is None else side.text, image=side.image))
    return float(torch.linalg.vector_norm(gap))


def _table(before: Scores, after: Scores) -> pd.DataFrame:
    rows = []
    for name, value in after.values.items():
        earlier = before.values.get(name, math.nan)
        low = high = math.nan
        if name in after.outcomes:
            _, low, high = paired_change(before.outcomes[name], after.outcomes[name])
        rows.append((name, earlier, value, value - earlier, low, high))
    return pd.DataFrame(rows, columns=["metric", "before", "after", "change", "change_low", "change_high"])


def _metrics(table: pd.DataFrame) -> dict[str, float | None]:
    """Flat; what is not defined is left out, but for the number after the alignment."""
    metrics: dict[str, float | None] = {}
    for row in table.to_dict("records"):
        name = f"aligned_{row['metric']}"
        metrics[name] = row["after"]
        others = {key: row[key] for key in ("before", "change", "change_low", "change_high")}
        metrics |= {f"{name}_{key}": value for key, value in others.items() if not math.isnan(value)}
    return metrics


def _fitted_on(choice: Choice, alignment: Alignment, inputs: Inputs) -> str:
    options, info = inputs.options, alignment.info
    if choice.saved is not None:
        data: Mapping[str, Any] = ((info["ingredients"] or {}).get("dataset")) or {}
        named = ", ".join(str(data[key]) for key in ("name", "split", "language") if key in data)
        return f"{info['samples']} samples of {named or 'unnamed data'}, and saved"
    if not choice.needs_samples:
        return "the evaluated rows, without labels" if info["gallery_bound"] else "nothing"
    if inputs.fit is None:
        return f"the {info['samples']} samples that are evaluated"
    if options.koda_fit_split:
        return f"{info['samples']} samples of split {options.koda_fit_split}"
    return f"{info['samples']} of the samples, drawn with seed {options.seed} and not evaluated"


def _reading(alignment: Alignment, settings: Mapping[str, str]) -> str:
    text = f"`{alignment.name}` is {escape(alignment.info['definition'])}, fitted on {escape(settings['fitted on'])}. "
    text += "The 95 % intervals are those of the change, query by query. "
    if alignment.info["gallery_bound"]:
        return text + "It is made from the very rows that are evaluated, so its numbers speak of this gallery alone."
    if alignment.info["transductive"]:
        return text + "It may have been fitted on samples that are evaluated: its numbers need not hold on others."
    return text


classification = AlignedTask(
    "koda_aligned_classification",
    "classes",
    "zero-shot classification before and after an alignment of finished embeddings, and what else it changes",
    _classification,
)
retrieval = AlignedTask(
    "koda_aligned_retrieval",
    "captions",
    "zero-shot retrieval before and after an alignment of finished embeddings",
    _retrieval,
)
