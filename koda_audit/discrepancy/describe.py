"""What a reader wants to know of each group, and in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from koda_audit._kernels.table import kernel_blocks
from koda_audit.discrepancy.findings import evenly
from koda_audit.discrepancy.groups import Group
from koda_audit.discrepancy.quality import answers, group_quality
from koda_audit.discrepancy.search import Search
from koda_audit.discrepancy.shares import modality_shares
from koda_audit.discrepancy.themes import Themes, sample_texts
from koda_audit.discrepancy.witness import witness_columns
from koda_audit.embeddings.container import Embeddings

# columns of every frame, also of one without groups
COLUMNS = (
    *("n", "stability", "stability_error", "floor", "verdict", "near", "finding", "fit", "separation", "retention"),
    *("coherence_target", "coherence_reference", "excess", "loss", "similarity_target", "similarity_reference"),
    *("theme", "answers_target", "answers_reference"),
)
# measure of ``quality`` -> what a group's row calls it; the first that there is tells how much a group matters
TOLD = MappingProxyType({"zeroshot_accuracy": "accuracy", "image_to_text_recall@5": "recall_at_5"})


def described(
    found: Search,
    modality: str,
    groups: Sequence[Group],
    measured: Sequence[Mapping[str, Any]],
    judged: Sequence[Mapping[str, Any]],
    target: Embeddings,
    reference: Embeddings,
) -> tuple[list[int], pd.DataFrame, pd.DataFrame]:
    """The order in which a reader wants the groups, a row each, and what both models can do on them.

    Args:
        measured: of each group, the numbers of its kernels; ``judged`` its stability and verdict.
        reference: with the same ids in the same order as the target.
    """
    known = sample_texts(target)
    themes = None if known is None else Themes(*known)
    members = pd.DataFrame(
        {
            "group": np.repeat(np.arange(len(groups)), [len(group.rows) for group in groups]),
            "row": np.concatenate([group.rows for group in groups] or [np.empty(0, dtype=np.int64)]),
        }
    )
    quality = group_quality(target, reference, members, found.plan.seed, found.sides.device)
    told = _told(quality, len(groups))
    seen = witness_columns(target, modality, themes, groups, found.plan.seed)
    shares = _shares(found, groups)
    rows = [
        {
            "n": len(group.rows),
            **judged[place],
            **measured[place],
            **shares[place],
            "theme": _theme(themes, group),
            **told[place],
            "answers_target": answers(target, group.rows),
            "answers_reference": answers(reference, group.rows),
            **seen[place],
        }
        for place, group in enumerate(groups)
    ]
    order = sorted(range(len(rows)), key=lambda place: _importance(rows[place], told[place]))
    frame = pd.DataFrame([rows[place] for place in order], columns=None if rows else COLUMNS)
    frame.insert(0, "group", np.arange(1, len(order) + 1))
    numbers = {place: number for number, place in enumerate(order, 1)}
    quality["group"] = [numbers.get(place) for place in quality["group"]]
    return order, frame, quality


def subsets_of(groups: Sequence[Group], frame: pd.DataFrame, ids: Sequence[str]) -> pd.DataFrame:
    """A row a sample of a group, in the order of ``frame``."""
    parts = [
        pd.DataFrame(
            {
                "group": number,
                "id": [ids[row] for row in group.rows],
                "weight": group.weights,
                "rank": np.arange(1, len(group.rows) + 1),
                "finding": finding,
            }
        )
        for number, group, finding in zip(frame["group"].tolist(), groups, frame["finding"].tolist(), strict=True)
    ]
    empty = pd.DataFrame(columns=["group", "id", "weight", "rank", "finding"])
    return pd.concat(parts, ignore_index=True) if parts else empty


def _importance(row: Mapping[str, Any], told: Mapping[str, float]) -> tuple[float, ...]:
    """Findings first; then by the change of what the models get right, where their intervals part; then by size and
    how much of the group the reference lacks."""
    change = 0.0
    for name in TOLD.values():
        if f"{name}_target" in told:
            apart = (
                told[f"{name}_target_low"] > told[f"{name}_reference_high"]
                or told[f"{name}_reference_low"] > told[f"{name}_target_high"]
            )
            change = abs(told[f"{name}_target"] - told[f"{name}_reference"]) if apart else 0.0
            break
    lacking = row["n"] * (1 - min(row["retention"], 1.0)) if row["retention"] == row["retention"] else 0.0
    return (not row["finding"], -round(change, 2), -lacking)


def _told(quality: pd.DataFrame, count: int) -> list[dict[str, float]]:
    """Accuracy, or recall, of both models on each group, with intervals."""
    rows: list[dict[str, float]] = [{} for _ in range(count)]
    wanted = quality[quality["measure"].isin(TOLD) & quality["group"].notna()]
    for record in wanted.to_dict("records"):
        name = f"{TOLD[record['measure']]}_{record['model']}"
        rows[record["group"]] |= {name: record["value"], f"{name}_low": record["low"], f"{name}_high": record["high"]}
    return rows


def _theme(themes: Themes | None, group: Group) -> str | None:
    shared = themes.shared(group.rows.tolist()) if themes is not None else []
    return ", ".join(f"{word} {inside:.0%} ({outside:.0%})" for word, inside, outside in shared) or None


def _shares(found: Search, groups: Sequence[Group]) -> list[dict[str, float]]:
    if len(found.sides.vectors["target"]) == 1:
        return [{}] * len(groups)
    alone = {
        role: {
            name: kernel_blocks(
                found.sides.kernel, {name: values}, {name: found.sides.sigmas[role][name]} if found.widths else {}
            )
            for name, values in vectors.items()
        }
        for role, vectors in found.sides.vectors.items()
    }
    steps = [evenly(len(group.rows)) for group in groups]
    return [
        modality_shares(alone, group.rows[step], group.weights[step]) for group, step in zip(groups, steps, strict=True)
    ]
