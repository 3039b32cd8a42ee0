"""What a benchmark computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from koda_audit._arrays import choose_device
from koda_audit._stats.chance import chance_level
from koda_audit.embeddings.container import Embeddings
from koda_audit.evaluation.tasks import evaluate
from koda_audit.metrics import EVALUATED
from koda_audit.settings import Settings
from koda_audit.tasks.numbers import scored
from koda_audit.tasks.protocol import Inputs, Outcome


def run(name: str, inputs: Inputs, settings: Settings) -> Outcome:
    """One evaluation of the embeddings."""
    model, options, own = inputs.target, settings.model_dump(), settings.model_dump()
    if name == "zeroshot_retrieval":
        options, own = {"at": options["recall_at"]}, {}  # each number's key says which
    if name in ("linear_probe", "clustering"):
        options["seed"] = own["seed"] = inputs.seed
    if name == "linear_probe":
        options["train"] = inputs.train
    if name == "side_effects" and inputs.unaligned is not None:
        options["unaligned"] = inputs.unaligned
    task = "joint_clustering" if name == "clustering" else name
    found = evaluate(model, task, device=choose_device(inputs.device), **options)
    # side effects have a prefix in the table of metrics
    keys = {key.partition("_")[2]: key for key in EVALUATED[name]} if name == "side_effects" else {}
    numbers, queries = scored(
        found,
        len(model),
        inputs.seed,
        lambda metric: keys.get(metric, metric),
        own,
        lambda metric: _chance(metric, model),
    )
    facts: dict[str, Any] = {}
    tables = {}
    if model.labels is not None and model.labels.ndim == 1:
        facts["majority"] = float(np.bincount(model.labels).max() / len(model))
        if name == "zeroshot_classification":
            tables["by_class"] = _by_class(model, found.outcomes["acc1"].values)
    return Outcome(tuple(numbers), (), tables, queries, own, facts)


def _by_class(model: Embeddings, hits: NDArray[np.float64]) -> pd.DataFrame:
    """Name, number of images and share of hits of each class that occurs."""
    assert model.labels is not None
    counts = np.bincount(model.labels)
    occur = np.flatnonzero(counts)
    names = [str(number) for number in occur]
    if model.class_names is not None:
        names = [str(model.class_names[number]) for number in occur]
    recalls = np.bincount(model.labels, weights=hits)[occur] / counts[occur]
    return pd.DataFrame({"class": names, "samples": counts[occur], "recall": recalls})


def _chance(metric: str, model: Embeddings) -> float | None:
    """What blind guessing reaches; None where that is no one number."""
    classes = None if model.class_text is None else len(model.class_text)
    owner = model.text_image
    if metric.startswith("text_retrieval_recall") and owner is not None:
        right = np.bincount(owner, minlength=len(model))
        return chance_level(metric, gallery=len(owner), right=right)
    return chance_level(metric, classes=classes, gallery=len(model))
