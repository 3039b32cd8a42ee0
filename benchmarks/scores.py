"""Tables of what was found of the lost groups, from a row per run and a row per group."""

from __future__ import annotations

from itertools import product
from typing import Any

import pandas as pd
from groupings import OURS

from koda_audit.discrepancy.findings import MIN_STABILITY

FOUND, FALSE = 0.75, 0.5  # Jaccard indices
STABILITY = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8)
SEPARATION, RETENTION = (0.2, 0.3, 0.4), (0.3, 0.5, 0.7)
DECIDED = ("within floor", "repeat")  # verdicts that no bound of the table changes
Rows = list[dict[str, Any]]

TABLES = (
    (
        False,
        "Sets in which nothing is lost",
        "any: share of sets in which something is reported; false: reported groups a set; judged: the same of the "
        "method's groups that the target\nholds apart and the reference does not keep, the part of our rule that can "
        "be asked of any group.",
    ),
    (
        True,
        "Sets in which groups are lost",
        "found: share of lost groups that a reported group matches, and of each; any: share of sets with a false "
        "group; false: false groups a set; judged:\nfound, and false, of the groups that the target holds apart and "
        "the reference does not keep; agree: lost groups that exact and random\nfeatures both find, of those that "
        "either finds.",
    ),
)


def rows_of(ran: pd.DataFrame, found: pd.DataFrame, kind: str) -> Rows:
    here = ran[ran["kind"] == kind]
    named = {name: [] for names in here["names"] for name in names}
    rows, ours = [], []
    for method, sets in here.groupby("method", sort=False):
        groups = found[(found["kind"] == kind) & (found["method"] == method)]
        reported, judged = groups[groups["reported"]], groups[groups["reported"] & groups["lost"]]
        row: dict[str, Any] = {"kind": kind, "sets": len(sets), "method": method}
        if named:
            hits = _hits(reported)
            of = pd.Series([name for names in sets["names"] for name in names]).value_counts(sort=False)
            which = dict(zip(sets["seed"], sets["names"], strict=True))
            per = pd.Series([which[seed][match] for seed, match in hits]).value_counts()
            row["found"] = len(hits) / of.sum()
            row["of each"] = ", ".join(f"{name} {per.get(name, 0) / of[name]:.2f}" for name in named)
            ours += [hits] if method in OURS else []
        false = reported[reported["jaccard"] < FALSE]
        row |= {"any": false["seed"].nunique() / len(sets), "false": len(false) / len(sets)}
        if named:
            row["judged found"] = len(_hits(judged)) / of.sum()
        row["judged false"] = (judged["jaccard"] < FALSE).sum() / len(sets)
        rows.append({**row, "seconds": sets["seconds"].mean()})
    if len(ours) == len(OURS):
        rows[0]["agree"] = len(ours[0] & ours[1]) / max(len(ours[0] | ours[1]), 1)
    return rows


def _hits(groups: pd.DataFrame) -> set[tuple[int, int]]:
    """Which lost groups of which sets are matched."""
    some = groups[groups["jaccard"] >= FOUND]
    return set(zip(some["seed"].tolist(), some["match"].tolist(), strict=True))


def calibration(ran: pd.DataFrame, found: pd.DataFrame) -> tuple[str, Rows, str]:
    """A row per bound on the stability, and per other bound with the default one on the stability, exact kernels."""
    ran, open_ = ran[ran["method"] == "exact"], found[found["method"] == "exact"]
    open_ = open_[~open_["verdict"].isin(DECIDED)]
    bounds = [(s, 0.3, 0.5) for s in STABILITY]
    bounds += [(MIN_STABILITY, s, r) for s, r in product(SEPARATION, RETENTION) if (s, r) != (0.3, 0.5)]
    rows = []
    for stability, separation, retention in bounds:
        passed = open_[(open_["stability"] >= stability) & (open_["separation"] >= separation)]
        passed = passed[passed["retention"] <= retention]
        row: dict[str, Any] = {"stability": stability, "separation": separation, "retention": retention}
        for kind, sets in ran.groupby("kind", sort=False):
            groups, wanted = passed[passed["kind"] == kind], sum(map(len, sets["names"]))
            if wanted:
                row[str(kind)] = len(_hits(groups)) / wanted
            else:
                row[f"{kind}, any"] = groups["seed"].nunique() / len(sets)
        rows.append(row)
    reading = (
        "Share of lost groups found; any: share of sets with any finding, where nothing is lost. The number of "
        "directions was chosen with the\ndefault bounds on separation and retention, and halves were added near the "
        "default bound on the stability."
    )
    return "Bounds of a finding, exact kernels", rows, reading
