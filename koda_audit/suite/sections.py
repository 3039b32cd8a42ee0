"""What a reader of an audit sees: one section a question, made of finished cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from koda_audit._stats.clusters import mean_interval
from koda_audit.document import Picture, SampleGrid, Section, escape
from koda_audit.suite.cells import Finished, Number
from koda_audit.suite.gap_quality import gap_against_quality
from koda_audit.suite.plan import Cell, Plan

Cells = Mapping[Cell, Finished]
DRAWS = 999  # of the interval of a change: a report has many
SAMPLE = "sample "  # what the name of a sample's picture begins with
SHOWN_GAP = ("centroid_gap", "raw_gap_rms", "dist_gap_paired", "rmg", "linear_sep", "mix_bias_image", "frechet_cov")


def sections_of(
    plan: Plan, finished: Cells, failures: Mapping[Cell, str]
) -> tuple[list[Section], dict[str, pd.DataFrame]]:
    """The sections of the report, and the tables beside it."""
    made = [cell for cell in finished if cell.step not in ("embed", "align")]
    predicted, everything = gap_against_quality(plan, finished)
    sections = [
        _summary(plan, finished, failures),
        *_failed(failures),
        *_benchmarks(finished),
        *_published(plan, finished),
        *_comparisons(finished),
        *_similarity(finished),
        *_gap(finished),
        *predicted,
        _models(plan, finished),
    ]
    tables = {path: table for cell in made for path, table in _tables(cell, finished[cell])}
    return sections, tables | everything


def _summary(plan: Plan, finished: Cells, failures: Mapping[Cell, str]) -> Section:
    counted = len(finished) + len(failures)
    failed = f"; **{len(failures)} of {counted} steps failed**, see below" if failures else ""
    models, data = (", ".join(f"`{escape(key)}`" for key in keys) for keys in (plan.models, plan.data))
    text = f"Models: {models}. Datasets: {data}{failed}."
    table = strongest(finished)
    if table is None:
        return Section("Summary", text)
    # of a comparison with a finding where there is one: that of others says that there is none
    compared = [done.sections[0] for cell, done in finished.items() if cell.step == "compare"]
    first = max(compared, key=lambda section: "finding" in pd.DataFrame(**section["table"])["verdict"].to_numpy())
    return Section("Summary", f"{text}\n\nThe strongest group of each comparison, both ways. {first['text']}", table)


def strongest(finished: Cells) -> pd.DataFrame | None:
    """The strongest group of samples of each comparison and way, findings first; None without comparisons."""
    tables = [done.sections[0]["table"] for cell, done in finished.items() if cell.step == "compare"]
    if not tables:
        return None
    best = pd.concat([pd.DataFrame(**table).groupby(["groups", "does not"], sort=False).head(1) for table in tables])
    order = best.assign(finding=best["verdict"] == "finding").sort_values(["finding", "excess"], ascending=False)
    return order.drop(columns="finding").reset_index(drop=True)


def _failed(failures: Mapping[Cell, str]) -> Iterator[Section]:
    if failures:
        table = pd.DataFrame([(cell.name, error) for cell, error in failures.items()], columns=["step", "error"])
        yield Section("What failed", "These numbers are missing; run the suite again when it is mended.", table)


def _benchmarks(finished: Cells) -> Iterator[Section]:
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
                        "95 % interval": _interval(number),
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
        yield Section(
            f"Benchmark {task} on {dataset}",
            "Intervals by the bootstrap over images, each drawn with all of its captions." + aligned,
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


def _published(plan: Plan, finished: Cells) -> Iterator[Section]:
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
                "95 % interval": _interval(number),
                "ours minus published": None if number.value is None else number.value - figure.value,
                "source": figure.source,
            }
        )
    text = (
        "What others published of these models, as the suite has it, beside what was measured here without alignment. "
        "A difference beyond the interval is one of protocol (data, prompts, preprocessing, precision) or of weights."
    )
    yield Section("Against published figures", text, pd.DataFrame(rows))


def _comparisons(finished: Cells) -> Iterator[Section]:
    for cell, done in finished.items():
        if cell.step == "compare":
            for section in done.sections[1:]:
                title = f"{section['title']} ({cell.model} against {cell.reference} on {cell.dataset})"
                yield _section(cell, done, {**section, "title": title})


def _similarity(finished: Cells) -> Iterator[Section]:
    rows = [
        {
            "dataset": cell.dataset,
            "model": cell.model,
            "reference": cell.reference,
            "measure": number.metric,
            "value": number.value,
            "95 % interval": _interval(number),
        }
        for cell, done in finished.items()
        if cell.step == "similarity"
        for number in done.numbers
    ]
    if rows:
        text = "How alike two models represent the same samples; rows were brought to length 1."
        yield Section("Similarity", text, pd.DataFrame(rows).dropna(axis="columns", how="all"))


def _gap(finished: Cells) -> Iterator[Section]:
    done = {cell: each for cell, each in finished.items() if cell.step == "gap"}
    if not done:
        return
    rows = [
        {
            "dataset": cell.dataset,
            "model": cell.model,
            "alignment": cell.alignment or "none",
            **{name: value for row in _wanted(each, SHOWN_GAP) for name, value in row.items()},
        }
        for cell, each in done.items()
    ]
    text = (
        "How far apart images and texts of a model lie; in brackets the same between two halves of one modality. "
        "`tables/` has every metric with its definition and interval."
    )
    yield Section("Modality gap", text, pd.DataFrame(rows).dropna(axis="columns", how="all"))
    tables = [
        table.assign(dataset=cell.dataset, model=cell.model, alignment=cell.alignment or "none")
        for cell, each in done.items()
        if (table := each.tables.get("robustness")) is not None
    ]
    if tables:
        first = ["dataset", "model", "alignment", "total_var", "alpha"]
        shown = ["gap", "agreement", "agreement_gain", "clean_accuracy", "noisy_accuracy"]
        text = (
            "Share of images whose nearest text stays the same under noise on the texts, as the gap is closed (alpha)."
        )
        yield Section("Robustness to noise, as the gap is closed", text, pd.concat(tables)[first + shown])


def _wanted(done: Finished, metrics: Iterable[str]) -> Iterator[dict[str, str]]:
    table = done.tables["gap"].set_index("metric")
    for metric in metrics:
        value, null = (pd.to_numeric(table[column])[metric] for column in ("value", "null"))
        if value == value:
            yield {metric: f"{value:.4g}" + (f" ({null:.2g})" if null == null else "")}


def _models(plan: Plan, finished: Cells) -> Section:
    rows: dict[tuple[str, str], str] = {}
    for cell, done in finished.items():
        if cell.step != "embed" or cell.again or cell.alignment:
            continue
        known = done.facts
        data = plan.data[cell.dataset]
        rows[f"dataset {cell.dataset}:{cell.split}", "source"] = f"{data.name}, {known['n']} samples, {known['kind']}"
        rows[f"dataset {cell.dataset}:{cell.split}", "fingerprint"] = known["fingerprint"][:16]
        model = f"model {cell.model}"
        rows[model, "source"] = plan.models[cell.model].written
        rows[model, "weights"] = known["weights"][:16]
        rows[model, "preprocessing"] = known["preprocess"]
        rows[model, "device, precision"] = f"{known['device']}, {known['dtype']}"
        rows |= {("libraries", name): version for name, version in known["libraries"].items() if version}
    table = pd.DataFrame([(*key, value) for key, value in rows.items()], columns=["of", "what", "value"])
    return Section("How this was measured", f"Seed {plan.suite.seed}. `environment.json` has it all.", table)


def _tables(cell: Cell, done: Finished) -> Iterator[tuple[str, pd.DataFrame]]:
    prefix = cell.file
    for name, table in done.tables.items():
        path = PurePosixPath(name)
        folder = path.parent if path.parent.name else PurePosixPath("tables")
        yield f"{folder}/{prefix}-{path.name if path.suffix else f'{path.name}.csv'}", table


def _section(cell: Cell, done: Finished, section: Mapping[str, Any]) -> Section:
    pictures = tuple(
        Picture(f"{cell.file}-{name}", title, done.pictures[name]) for name, title in section["figures"].items()
    )
    grids = tuple(
        SampleGrid(
            f"{cell.file}-{grid['name']}",
            grid["title"],
            tuple(sample_name(cell, sample) for sample in grid["ids"]),
            tuple(grid["captions"]),
        )
        for grid in section["grids"]
    )
    table = None if section["table"] is None else pd.DataFrame(**section["table"])
    return Section(section["title"], section["text"], table, grids, pictures)


def sample_name(cell: Cell, sample: str) -> str:
    """A sample's name in a report: ids are those of a dataset."""
    return f"{cell.dataset}/{sample}"


def sample_pictures(finished: Cells) -> dict[str, bytes]:
    """The picture of each sample that a grid shows, by its name in the report."""
    return {
        sample_name(cell, name.removeprefix(SAMPLE)): picture
        for cell, done in finished.items()
        for name, picture in done.pictures.items()
        if name.startswith(SAMPLE)
    }


def _interval(number: Number) -> str | None:
    ends = number.low, number.high
    return None if None in ends else "{:.4g} to {:.4g}".format(*ends)
