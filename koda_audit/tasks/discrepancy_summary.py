"""What a summary says of koda_discrepancy: the strongest groups of both ways, and where the models differ most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from koda_audit.discrepancy.result import Discrepancies
from koda_audit.document import Section, escape
from koda_audit.embeddings.container import Embeddings
from koda_audit.tasks.discrepancy import DIFFER
from koda_audit.tasks.discrepancy_report import heading_of, names_of, verdicts_of

UNLIKE = 8  # groups in the table of those that the models differ on


def strongest_groups(found: Discrepancies, target: Embeddings, reference: Embeddings) -> pd.DataFrame:
    """All findings of one way, or else the first group, in words that hold for both ways."""
    best = found.groups[: max(int(found.groups["finding"].sum()), 1)]
    return _summary(best, *names_of(target, reference))


def _summary(best: pd.DataFrame, ours: str, theirs: str) -> pd.DataFrame:
    heading = heading_of(best)
    scores: Mapping[str, Any] = {
        f"{heading.replace('_at_', '@')}, {column}": best[f"{heading}_{role}"]
        for column, role in (("groups", "target"), ("does not", "reference"))
        if heading
    }
    return pd.DataFrame(
        {
            "groups": ours,
            "does not": theirs,
            "samples": best["n"],
            "verdict": best["verdict"],
            **scores,
            "shared words": best["theme"],
            "stability": best["stability"],
            "retention": best["retention"],
            "excess": best["excess"],
            "group": best["group"],
        }
    )


def unlike_groups(found: Discrepancies, target: Embeddings, reference: Embeddings) -> pd.DataFrame:
    """The groups of one way with what both models get right of them, stable or not."""
    groups, heading = found.groups, heading_of(found.groups)
    if not heading:
        return pd.DataFrame()
    return pd.DataFrame(
        {
            "held together by": target.meta.get("model", "target"),
            "group": groups["group"],
            "samples": groups["n"],
            **{
                f"{heading.replace('_at_', '@')}, {name}": groups[f"{heading}_{role}"]
                for role, name in zip(("target", "reference"), names_of(target, reference), strict=True)
            },
            "verdict": verdicts_of(groups),
            "stability": groups["stability"],
            "shared words": groups["theme"],
        }
    )


def unlike_section(ways: list[pd.DataFrame], target: Embeddings, reference: Embeddings) -> list[Section]:
    """The groups of both ways on which the models differ most in what they get right."""
    table = pd.concat(ways, ignore_index=True)
    if table.empty:
        return []
    ours, theirs = names_of(target, reference)
    heading = str(table.columns[3]).removesuffix(f", {ours}")
    change = table[f"{heading}, {ours}"] - table[f"{heading}, {theirs}"]
    table.insert(3, "change", change)
    table = table.sort_values("change", key=abs, ascending=False, kind="stable")
    table = table[table["change"] != 0].head(UNLIKE)
    if table.empty:
        return []
    first = ["change", f"{heading}, {ours}", f"{heading}, {theirs}", "samples", "verdict", "shared words"]
    columns = [*first, *(column for column in table if column not in first)]
    text = (
        f"The groups on which the {heading} of the two models differs most: *change* is that of {escape(ours)} minus "
        f"that of {escape(theirs)}. These groups were searched for, and many are small: one that is no finding may be "
        "chance."
    )
    title = f"Groups on which {ours} and {theirs} differ most in {heading}"
    return [Section(title, text, table[columns], key=DIFFER)]
