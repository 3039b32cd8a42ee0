"""Audits as folders, made by hand: a table of results, and per-sample outcomes where a number has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from koda_audit._files import write_json
from koda_audit.gates.run import OUTCOMES, RESULTS, Run
from koda_audit.outcomes import Cell, Outcomes, save_outcomes
from koda_audit.results import Result, records


@dataclass(frozen=True)
class Measured:
    """A row of the table; ``outcomes`` are (q,) values and (q,) rows of images."""

    row: Result
    outcomes: tuple[Any, Any] | None = None


def number(
    value: float | None = None,
    hits: Any = None,
    image: Any = None,
    *,
    model: str = "new",
    metric: str = "acc1",
    dataset: str = "cifar",
    task: str = "zeroshot_classification",
    protocol: str | None = "same",
    **more: Any,
) -> Measured:
    """A number by itself, or the mean of hits, one an image unless ``image`` says otherwise."""
    outcomes = None
    if hits is not None:
        hits = np.asarray(hits, dtype=float)
        value = float(hits.mean()) if value is None else value
        outcomes = (hits, np.arange(len(hits)) if image is None else np.asarray(image))
    row = Result(model, "", dataset, task, metric, value, protocol=protocol, **more)
    return Measured(row, outcomes)


def hits(right: int, wrong: int) -> np.ndarray:
    return np.repeat([1.0, 0.0], [right, wrong])


def run_of(*numbers: Measured, ids: Sequence[str] | None = None, name: str = "the audit") -> Run:
    """In memory."""
    outcomes, names = _outcomes(numbers, ids)
    return Run(records(each.row for each in numbers), lambda: Outcomes(outcomes, names), name)


def write_audit(folder: Path, *numbers: Measured, ids: Sequence[str] | None = None) -> Path:
    """The same in a folder."""
    outcomes, names = _outcomes(numbers, ids)
    write_json(folder / RESULTS, records(each.row for each in numbers))
    save_outcomes(folder / OUTCOMES, outcomes, names)
    return folder


def _outcomes(numbers: Sequence[Measured], ids: Sequence[str] | None) -> tuple[dict[Cell, Any], dict[str, list[str]]]:
    held = {
        Cell(each.row.model, each.row.dataset, each.row.task, each.row.metric, each.row.alignment): each.outcomes
        for each in numbers
        if each.outcomes is not None
    }
    names = list(ids) if ids is not None else [f"s{row}" for row in range(5000)]
    return held, {cell.dataset: names for cell in held}
