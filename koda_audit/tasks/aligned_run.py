"""What the tasks koda_aligned_… compute."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
import torch

from koda_audit._arrays import choose_device
from koda_audit._gap.translate import gap_vector
from koda_audit.alignment.operator import Alignment
from koda_audit.document import Section, escape
from koda_audit.embeddings.container import Embeddings
from koda_audit.evaluation.inputs import unit_rows
from koda_audit.evaluation.scores import Scores, paired_change
from koda_audit.evaluation.tasks import evaluate
from koda_audit.settings import Settings
from koda_audit.tasks.aligned_choice import label
from koda_audit.tasks.benchmarks import RetrievalSettings
from koda_audit.tasks.numbers import known
from koda_audit.tasks.protocol import Inputs, Number, Outcome


def run(inputs: Inputs, settings: Settings) -> Outcome:
    """Before and after."""
    assert inputs.alignment is not None
    alignment, device = inputs.alignment, choose_device(inputs.device)
    aligned = alignment.apply(inputs.target)
    before, after = (_scores(side, inputs.target, settings, device) for side in (inputs.target, aligned))
    table = _table(before, after)
    own = {"alignment": label(alignment), "fitted on": inputs.fitted_on, "scoring": alignment.info["scoring"]}
    section = Section(f"What {own['alignment']} changes", _reading(alignment, own), table)
    numbers = tuple(_numbers(table, len(aligned), own))
    return Outcome(numbers, (section,), {"tables/change.csv": table}, settings=own)


def _scores(side: Embeddings, unaligned: Embeddings, settings: Settings, device: torch.device) -> Scores:
    gap = {"centroid_gap": _centroid_gap(side)}
    if isinstance(settings, RetrievalSettings):
        recalls = evaluate(side, "zeroshot_retrieval", device=device, at=settings.recall_at)
        return replace(recalls, values={**recalls.values, **gap})
    right = evaluate(side, "zeroshot_classification", device=device)
    earlier = {} if side is unaligned else {"unaligned": unaligned}
    spread = evaluate(side, "side_effects", device=device, **earlier).values
    kept = {name: value for name, value in spread.items() if name != "label_gini"}  # no alignment changes it
    return replace(right, values={**right.values, **kept, **gap})


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


def _numbers(table: pd.DataFrame, n: int, settings: Mapping[str, Any]) -> Iterator[Number]:
    """Flat; what is not defined is left out, but for the number after the alignment."""
    for row in table.to_dict("records"):
        name = f"aligned_{row['metric']}"
        yield Number(name, known(row["after"]), n=n, settings=settings)
        ends = known(row["change_low"]), known(row["change_high"])
        for key in ("before", "change", "change_low", "change_high"):
            if not math.isnan(row[key]):
                low, high = ends if key == "change" else (None, None)
                yield Number(f"{name}_{key}", row[key], low, high, n, settings=settings)


def _reading(alignment: Alignment, settings: Mapping[str, str]) -> str:
    text = f"`{alignment.name}` is {escape(alignment.info['definition'])}, fitted on {escape(settings['fitted on'])}. "
    text += "The 95 % intervals are those of the change, query by query. "
    if alignment.info["gallery_bound"]:
        return text + "It is made from the very rows that are evaluated, so its numbers speak of this gallery alone."
    if alignment.info["transductive"]:
        return text + "It may have been fitted on samples that are evaluated: its numbers need not hold on others."
    return text
