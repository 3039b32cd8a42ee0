"""Sections that every report may have: verdicts, metrics, all results, and what they were measured with and on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from koda_audit.document import Section, escape
from koda_audit.embeddings.container import Embeddings
from koda_audit.metrics import described

VERDICTS = ("ERROR", "FAIL", "WARN", "PASS")  # worst first


def metric_table(metrics: Mapping[str, float | None]) -> Section:
    """The flat metrics with what they mean, where it is known."""
    known = [described(key) for key in metrics]
    meanings = [None if metric is None else metric.meaning for metric in known]
    table = pd.DataFrame({"metric": list(metrics), "value": list(metrics.values()), "meaning": meanings})
    return Section("Metrics", "", table)


def verdict_section(verdicts: pd.DataFrame | None) -> list[Section]:
    """The verdicts of the gates with their counts, worst first; none without gates.

    Verdict and sentence are what a reader wants, and stand before the numbers.
    """
    if verdicts is None or verdicts.empty:
        return []
    counts = ", ".join(f"{count} {verdict}" for verdict, count in verdict_counts(verdicts).items())
    order = sorted(verdicts, key=lambda column: ("verdict", "sentence", column).index(column))
    return [Section("Verdicts", f"{counts}.", verdicts[order])]


def verdict_counts(verdicts: pd.DataFrame) -> dict[str, int]:
    """How many gates came to each verdict, worst first.

    >>> verdict_counts(pd.DataFrame({"verdict": ["PASS", "FAIL", "PASS"]}))
    {'FAIL': 1, 'PASS': 2}
    """
    counts = {verdict: int((verdicts["verdict"] == verdict).sum()) for verdict in VERDICTS}
    return {verdict: count for verdict, count in counts.items() if count}


def results_section(results: pd.DataFrame | None) -> list[Section]:
    """The results table; what is the same in all rows is said once, what no row has is left out."""
    if results is None or results.empty:
        return []
    filled = results.mask(results == "").dropna(axis="columns", how="all")
    same = [
        column for column in filled if column not in ("metric", "value") and filled[column].nunique(dropna=False) == 1
    ]
    said = ", ".join(f"*{column}* {escape(str(filled[column].iloc[0]))}" for column in same)
    text = f"As in `results.csv`. The same in all rows: {said}." if said else "As in `results.csv`."
    return [Section("All results", text, filled.drop(columns=same))]


def environment_section(environment: Mapping[str, Any] | None) -> list[Section]:
    """Versions, device and seeds of the whole run, where they were recorded."""
    if not environment:
        return []
    return [Section("Environment", "", pd.DataFrame(_flat("", environment), columns=["what", "value"]))]


def how_measured(embeddings: Sequence[Embeddings], settings: Mapping[str, Any]) -> Section:
    """Models, data, precision, libraries and the settings of the task, as one table."""
    turns = {
        escape(str(model.meta["model"])): model.meta["host_precision_turn"]
        for model in embeddings
        if model.meta.get("host_precision_turn") is not None
    }
    text = ""
    if turns:
        listed = ", ".join(f"{turn:.1g} ({name})" for name, turn in turns.items())
        text = (
            f"Under the host's default precision (autocast) image vectors would turn by up to {listed}, as 1 - cosine."
        )
    rows = [*_models(embeddings), *_flat("", embeddings[0].meta["ingredients"]["libraries"]), *_flat("", settings)]
    return Section("How this was measured", text, pd.DataFrame(rows, columns=["what", "value"]))


def _models(embeddings: Sequence[Embeddings]) -> Iterator[tuple[str, str]]:
    first = embeddings[0].meta["ingredients"]
    data = first["dataset"]
    yield "dataset", f"{data['name']}, {data['split']}, {data['language']}: {len(embeddings[0])} samples"
    yield "dataset fingerprint", data["fingerprint"][:16]
    yield "precision", first["dtype"]
    for model in embeddings:
        identity = model.meta["ingredients"]["model"]
        name = model.meta["model"]
        yield f"{name}: weights", identity["weights"][:16]
        yield f"{name}: preprocessing", identity["preprocess_text"]
        yield f"{name}: device, batch size", f"{model.meta['device']}, {model.meta['batch_size']}"


def _flat(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}{name} ", value)
        elif value is not None:
            yield f"{prefix}{name}", str(value)
