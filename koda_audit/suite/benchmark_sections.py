"""What a reader sees of benchmarks: before and after alignments, and against what others published."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from koda_audit._stats.clusters import mean_interval
from koda_audit.document import Section, escape
from koda_audit.metrics import listed
from koda_audit.suite.cells import Finished
from koda_audit.suite.plan import Cell, Plan
from koda_audit.tasks.benchmarks import BENCHMARKS
from koda_audit.tasks.protocol import Number

INTERVALS = (
    "Intervals of means are those of the bootstrap over images{captions}; those of other numbers leave out a twentieth "
    "of the images at a time (jackknife)."
)
DRAWS = 999  # of the interval of a change: a report has many
ROUNDING = 1e-12  # a change below it is none
SPAN = "95 % of the change"  # a column: its ends in rows, a text in tables


@dataclass(frozen=True)
class Benchmark:
    """One task on one dataset. ``first`` is the model that others are held against; ``rows`` have a number each."""

    dataset: str
    task: str
    done: Mapping[Cell, Finished]
    plain: Mapping[str, Finished]  # by model, without alignment
    first: str
    rows: list[dict[str, Any]]


def benchmarks_of(plan: Plan, finished: Mapping[Cell, Finished]) -> Iterator[Benchmark]:
    """All of a suite, with what an alignment changes, and how models differ."""
    done = {cell: each for cell, each in finished.items() if cell.task in BENCHMARKS}
    for dataset, task in dict.fromkeys((cell.dataset, cell.task) for cell in done):
        some = {cell: each for cell, each in done.items() if (cell.dataset, cell.task) == (dataset, task)}
        plain = {cell.model: each for cell, each in some.items() if cell.alignment is None}
        first = next((model for model in plan.models if model in plain), "")
        rows = [_row(cell, each, number, plain, first) for cell, each in some.items() for number in each.numbers]
        yield Benchmark(dataset, task, some, plain, first, rows)


def changes_section(benchmarks: Iterable[Benchmark]) -> Iterator[Section]:
    """Every number that an alignment, or another model, measurably made worse or better."""
    found = []
    for one in benchmarks:
        for row in one.rows:
            known = listed(row["metric"])
            ends = row[SPAN]
            if known is None or known.better is None or ends is None or ends[0] <= 0 <= ends[1]:
                continue
            verdict = "better" if (row["change"] > 0) == (known.better == "up") else "worse"
            shown = {key: row[key] for key in ("metric", "model", "alignment", "against", "change")}
            found.append({"verdict": verdict, "dataset": one.dataset, **shown, SPAN: _spelled(ends)})
    if found:
        found.sort(key=lambda row: (row["verdict"] == "better", -abs(row["change"])))
        text = (
            "Benchmarks in which a model is measurably worse or better than the first one, or under an alignment than "
            "without it: those whose paired 95 % interval leaves out 0. Each is judged by itself, so of twenty numbers "
            "that are equal in truth one will stand here; gates are stricter."
        )
        yield Section("What is measurably worse or better", text, pd.DataFrame(found))


def benchmark_sections(plan: Plan, benchmarks: Iterable[Benchmark]) -> Iterator[Section]:
    """Each task on each dataset."""
    for one in benchmarks:
        some, plain, dataset, task = one.done, one.plain, one.dataset, one.task
        table = pd.DataFrame(one.rows)
        table[SPAN] = [None if ends is None else _spelled(ends) for ends in table[SPAN]]
        order = {metric: place for place, metric in enumerate(dict.fromkeys(table["metric"]))}
        table = table.sort_values("metric", key=lambda column: column.map(order), kind="stable")
        captions = ", each drawn with all of its captions" if task == "zeroshot_retrieval" else ""
        said = [INTERVALS.format(captions=captions)]
        if table["change"].notna().any():
            said.append(
                f"*Change* is against {escape(one.first)}, or under an alignment against the same model without it, on "
                "the same images."
            )
        within = [name for name, each in plan.suite.alignments.items() if each.transductive]
        if met := [name for name in within if any(cell.alignment == name for cell in some)]:
            said.append(f"Fitted on samples that are evaluated (transductive): {', '.join(map(escape, met))}.")
        if blind := [named for cell, each in some.items() if cell.alignment is None for named in _blind(cell, each)]:
            said.append(f"**Not above chance, as far as these samples tell: {', '.join(blind)}.**")
        unprobed = [name for name in plan.suite.alignments if task == "linear_probe" and plan.gallery_bound(name)]
        if unprobed:
            said.append(f"No probe of {', '.join(unprobed)}: made from the evaluated rows, it leaves none to train on.")
        known = [
            (cell, number.value)
            for cell, each in some.items()
            for number in each.numbers
            if number.metric == "probe_converged"
        ]
        if loose := [_named(cell) for cell, value in known if not value]:
            said.append(f"**Did not converge: {', '.join(loose)}**; set benchmark.probe_C.")
        majority = next((each.facts["majority"] for each in some.values() if "majority" in each.facts), None)
        if majority is not None:
            said.append(f"Always guessing the most frequent class would be right for {majority:.3g} of the images.")
        yield Section(f"Benchmark {task} on {dataset}", " ".join(said), table.dropna(axis="columns", how="all"))
        yield from _by_class(
            dataset, {model: each.tables["by_class"] for model, each in plain.items() if "by_class" in each.tables}
        )


def _blind(cell: Cell, each: Finished) -> Iterator[str]:
    """What a model may be guessing at."""
    for number in each.numbers:
        if number.chance is not None and number.low is not None and number.low <= number.chance:
            yield f"{number.metric} of {escape(cell.model)}"


def _row(cell: Cell, each: Finished, number: Number, plain: Mapping[str, Finished], first: str) -> dict[str, Any]:
    other = cell.model if cell.alignment else first if cell.model != first else None
    change, ends = _change(plain.get(other) if other else None, each, number.metric)
    against = "no alignment" if cell.alignment else first
    return {
        "metric": number.metric,
        "model": cell.model,
        "alignment": cell.alignment or "none",
        "value": number.value,
        "95 % interval": interval_of(number),
        "against": None if change is None else against,
        "change": change,
        SPAN: ends,
        "chance": number.chance,
        "n": number.n,
    }


def _named(cell: Cell) -> str:
    return escape(cell.model + (f" under {cell.alignment}" if cell.alignment else ""))


def _by_class(dataset: str, tables: Mapping[str, pd.DataFrame]) -> Iterator[Section]:
    """The recall of each class, models side by side, what the last one lost most against the first one first."""
    if not tables:
        return
    whole = next(iter(tables.values()))[["class", "samples"]]
    recalls = pd.DataFrame({model: table["recall"] for model, table in tables.items()}).astype(np.float64)
    models = list(tables)
    order = (recalls[models[-1]] - recalls[models[0]] if len(models) > 1 else recalls[models[0]]).sort_values().index
    text = "The share of each class's images that a model gets right, without alignment"
    if len(models) > 1:
        text += f"; what {escape(models[-1])} lost most against {escape(models[0])} stands first"
    yield Section(f"Classes of {dataset}", f"{text}.", whole.join(recalls).loc[order])


def _spelled(ends: tuple[float, float]) -> str:
    return "{:.4g} to {:.4g}".format(*ends)


def _change(before: Finished | None, after: Finished, metric: str) -> tuple[float | None, tuple[float, float] | None]:
    """A number minus the same one before, and the interval of the change, query by query; None where there is none."""
    known = listed(metric)
    if before is None or (known is not None and known.exact):
        return None, None
    values = [{number.metric: number.value for number in each.numbers}.get(metric) for each in (before, after)]
    if values[0] is None or values[1] is None:
        return None, None
    change = values[1] - values[0]
    change = 0.0 if abs(change) < ROUNDING else change
    if metric not in before.outcomes or metric not in after.outcomes:
        return change, None
    (earlier, image), (later, _) = before.outcomes[metric], after.outcomes[metric]
    return change, mean_interval(later.astype(np.float64) - earlier, image, draws=DRAWS)


def published_section(plan: Plan, finished: Mapping[Cell, Finished]) -> Iterator[Section]:
    if not plan.suite.published:
        return
    ours = {
        (cell.model, cell.dataset, number.metric): number
        for cell, done in finished.items()
        if cell.alignment is None and cell.reference is None
        for number in done.numbers
    }
    rows = []
    for figure in plan.suite.published:
        number = ours.get((figure.model, figure.dataset, figure.metric), Number(figure.metric, None))
        rows.append(
            {
                "dataset": figure.dataset,
                "model": figure.model,
                "metric": figure.metric,
                "published": figure.value,
                "ours": number.value,
                "95 % interval": interval_of(number),
                "ours minus published": None if number.value is None else number.value - figure.value,
                "source": figure.source,
            }
        )
    text = (
        "What others published of these models, as the suite has it, beside what was measured here without alignment. "
        "A difference beyond the interval is one of protocol (data, prompts, preprocessing, precision) or of weights."
    )
    yield Section("Against published figures", text, pd.DataFrame(rows))


def interval_of(number: Number) -> str | None:
    return None if number.low is None or number.high is None else _spelled((number.low, number.high))
