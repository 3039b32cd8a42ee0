"""What a reader sees of benchmarks: before and after alignments, and against what others published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from koda_audit._stats.clusters import mean_interval
from koda_audit.document import Section
from koda_audit.suite.cells import Finished, Number
from koda_audit.suite.plan import Cell, Plan

INTERVALS = (
    "Intervals of means are those of the bootstrap over images, each drawn with all of its captions; those of other "
    "numbers leave out a twentieth of the images at a time (jackknife)."
)
DRAWS = 999  # of the interval of a change: a report has many


def benchmark_sections(plan: Plan, finished: Mapping[Cell, Finished]) -> Iterator[Section]:
    done = {cell: each for cell, each in finished.items() if cell.step == "evaluate"}
    plain = {(cell.model, cell.dataset, cell.task): each for cell, each in done.items() if cell.alignment is None}
    for dataset, task in dict.fromkeys((cell.dataset, cell.task) for cell in done):
        rows = []
        for cell, each in done.items():
            if (cell.dataset, cell.task) != (dataset, task):
                continue
            before = plain.get((cell.model, dataset, task)) if cell.alignment else None
            for number in each.numbers:
                change, span = _change(before, each, number.metric)
                rows.append(
                    {
                        "metric": number.metric,
                        "model": cell.model,
                        "alignment": cell.alignment or "none",
                        "value": number.value,
                        "95 % interval": interval_of(number),
                        "change": change,
                        "95 % interval of it": span,
                        "chance": each.facts["chance"].get(number.metric),
                        "n": number.n,
                    }
                )
        table = pd.DataFrame(rows)
        order = {metric: place for place, metric in enumerate(dict.fromkeys(table["metric"]))}
        table = table.sort_values("metric", key=lambda column: column.map(order), kind="stable")
        aligned = ""
        if table["change"].notna().any():
            aligned = " *Change* is against the same model without alignment, its interval that of the same images."
        unprobed = [name for name in plan.suite.alignments if task == "linear_probe" and plan.gallery_bound(name)]
        if unprobed:
            aligned += f" No probe of {', '.join(unprobed)}: made from the evaluated rows, it leaves none to train on."
        yield Section(
            f"Benchmark {task} on {dataset}",
            f"{INTERVALS}{aligned}",
            table.dropna(axis="columns", how="all"),
        )


def _change(before: Finished | None, after: Finished, metric: str) -> tuple[float | None, str | None]:
    """What an alignment changes of a number, and the interval of the change, query by query."""
    values = [
        {number.metric: number.value for number in each.numbers}.get(metric)
        for each in (before, after)
        if each is not None
    ]
    if len(values) < 2 or values[0] is None or values[1] is None:
        return None, None
    assert before is not None
    change = values[1] - values[0]
    if metric not in before.outcomes or metric not in after.outcomes:
        return change, None
    (earlier, image), (later, _) = before.outcomes[metric], after.outcomes[metric]
    low, high = mean_interval(later.astype(np.float64) - earlier, image, draws=DRAWS)
    return change, f"{low:.4g} to {high:.4g}"


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
    ends = number.low, number.high
    return None if None in ends else "{:.4g} to {:.4g}".format(*ends)
