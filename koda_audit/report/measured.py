"""The last sections of every report: the metrics, and what they were measured with and on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from koda_audit.document import Section, escape
from koda_audit.embeddings.container import Embeddings
from koda_audit.metrics import described


def metric_table(metrics: Mapping[str, float | None]) -> Section:
    """The flat metrics with what they mean, where it is known."""
    known = [described(key) for key in metrics]
    meanings = [None if metric is None else metric.meaning for metric in known]
    table = pd.DataFrame({"metric": list(metrics), "value": list(metrics.values()), "meaning": meanings})
    return Section("Metrics", "", table)


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
