"""What a reader of an audit sees: one section a question, made of finished cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from koda_audit.document import Picture, SampleGrid, Section, escape
from koda_audit.suite.asked import DISCREPANCY, ROBUSTNESS, SECTIONS
from koda_audit.suite.benchmark_sections import (
    benchmark_sections,
    benchmarks_of,
    changes_section,
    published_section,
)
from koda_audit.suite.cells import Finished
from koda_audit.suite.gap_quality import gap_against_quality
from koda_audit.suite.gap_sections import gap_sections, similarity_section
from koda_audit.suite.pictures import model_maps
from koda_audit.suite.plan import NOT_YET, Cell, Plan
from koda_audit.tasks.benchmarks import BENCHMARKS
from koda_audit.tasks.discrepancy import DIFFER

Cells = Mapping[Cell, Finished]
OURS = (*SECTIONS.values(), ROBUSTNESS, *BENCHMARKS)  # whose sections hold all cells side by side
SAMPLE = "sample "  # what the name of a sample's picture begins with


def sections_of(
    plan: Plan, finished: Cells, failures: Mapping[Cell, str]
) -> tuple[list[Section], dict[str, pd.DataFrame]]:
    """The sections of the report, and the tables beside it."""
    made = [cell for cell in finished if cell.step not in ("embed", "align")]
    benchmarks = list(benchmarks_of(plan, finished))
    predicted, everything = gap_against_quality(plan, finished)
    sections = [
        _summary(plan, finished, failures),
        *_failed(failures),
        *changes_section(benchmarks),
        *_comparisons(finished, first=True),
        *benchmark_sections(plan, benchmarks),
        *published_section(plan, finished),
        *_comparisons(finished, first=False),
        *similarity_section(finished),
        *gap_sections(finished),
        *predicted,
        *_of_others(finished),
        _models(plan, finished),
    ]
    tables = {path: table for cell in made for path, table in _tables(cell, finished[cell])}
    best = strongest(finished)
    return sections, tables | everything | ({} if best is None else {"tables/strongest_groups.csv": best})


def _summary(plan: Plan, finished: Cells, failures: Mapping[Cell, str]) -> Section:
    counted = len(finished) + len(failures)
    waiting = sum(error.endswith(NOT_YET) for error in failures.values())
    missing = {"failed": len(failures) - waiting, "are not measured yet": waiting}
    failed = "".join(f"; **{n} of {counted} steps {what}**, see below" for what, n in missing.items() if n)
    models, data = (", ".join(f"`{escape(key)}`" for key in keys) for keys in (plan.models, plan.data))
    text = f"Models: {models}. Datasets: {data}{failed}."
    table = strongest(finished)
    if table is None:
        return Section("Summary", text)
    # of a comparison with a finding where there is one: that of others says that there is none
    compared = [done.sections[0] for cell, done in finished.items() if cell.task == DISCREPANCY]
    first = max(compared, key=lambda section: "finding" in pd.DataFrame(**section["table"])["verdict"].to_numpy())
    said = f"{text}\n\nThe first group of each comparison, both ways. {first['text']}"
    return Section("Summary", said, table, pictures=tuple(_who_sees_what(finished)))


def strongest(finished: Cells) -> pd.DataFrame | None:
    """The strongest group of samples of each comparison and way, findings first; None without comparisons."""
    tables = [table for _, table in _strongest_of_each(finished)]
    if not tables:
        return None
    best = pd.concat(tables)
    order = best.assign(finding=best["verdict"] == "finding").sort_values(["finding", "excess"], ascending=False)
    return order.drop(columns="finding").reset_index(drop=True)


def _strongest_of_each(finished: Cells) -> Iterator[tuple[Cell, pd.DataFrame]]:
    for cell, done in finished.items():
        if cell.task == DISCREPANCY:
            table = pd.DataFrame(**done.sections[0]["table"])
            ways = table.groupby(["groups", "does not"], sort=False)
            count = ways["verdict"].transform(lambda verdicts: (verdicts == "finding").sum())
            table.insert(2, "findings", count)
            yield cell, table.groupby(["groups", "does not"], sort=False).head(1)


def _who_sees_what(finished: Cells) -> Iterator[Picture]:
    """A map of the excesses on each dataset where there are more than two models."""
    found: dict[str, dict[tuple[str, str], float]] = {}
    for cell, table in _strongest_of_each(finished):
        pairs = zip(table["groups"], table["does not"], table["excess"], strict=True)
        found.setdefault(cell.dataset, {}).update({(a, b): max(float(excess), 0.0) for a, b, excess in pairs})
    for dataset, excess in found.items():
        if len({model for pair in excess for model in pair}) > 2:
            title = f"Excess of the first group that one model holds and the other does not, on {dataset}"
            picture = model_maps({"": excess}, title, "groups", "does not", highest=None)
            yield Picture(f"discrepancy-{dataset}", title, picture)


def _failed(failures: Mapping[Cell, str]) -> Iterator[Section]:
    failed = [(cell.name, error) for cell, error in failures.items() if not error.endswith(NOT_YET)]
    if failed:
        table = pd.DataFrame(failed, columns=["step", "error"])
        yield Section("What failed", "These numbers are missing; run the suite again when it is mended.", table)
    waiting = [cell.name for cell, error in failures.items() if error.endswith(NOT_YET)]
    if waiting:
        yield Section("Not measured yet", "`koda-audit run` does these.", pd.DataFrame({"step": waiting}))


def _comparisons(finished: Cells, first: bool) -> Iterator[Section]:
    """What each task says of a comparison but for its summary: the groups that models differ most on come first."""
    for cell, done in finished.items():
        if cell.task != DISCREPANCY:
            continue
        for section in done.sections[1:]:
            if (section["key"] == DIFFER) == first:
                title = f"{section['title']} ({cell.model} against {cell.reference} on {cell.dataset})"
                if first:
                    title = f"{section['title']}, on {cell.dataset}"
                yield _section(cell, done, {**section, "title": title})


def _of_others(finished: Cells) -> Iterator[Section]:
    """What tasks of other packages say, cell by cell."""
    for cell, done in finished.items():
        if cell.step == "task" and cell.task not in OURS:
            against = f" against {cell.reference}" if cell.reference else ""
            aligned = f", {cell.alignment}" if cell.alignment else ""
            of = f"({cell.task} of {cell.model}{against} on {cell.dataset}{aligned})"
            for section in done.sections:
                yield _section(cell, done, {**section, "title": f"{section['title']} {of}"})


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
    rows |= dict(_settings(finished))
    table = pd.DataFrame([(*key, value) for key, value in rows.items()], columns=["of", "what", "value"])
    return Section("How this was measured", f"Seed {plan.suite.seed}. `environment.json` has it all.", table)


def _settings(finished: Cells) -> Iterator[tuple[tuple[str, str], str]]:
    """What each kind of step was set to; where cells differ, all of their values."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for cell, done in finished.items():
        of = cell.task or (f"alignment {cell.alignment}" if cell.step == "align" else cell.step)
        for name, value in done.settings.items():
            if value is not None and not isinstance(value, Mapping):
                spelled = f"{value:.6g}" if isinstance(value, float) else str(value)
                found.setdefault((of, name.replace("_", " ")), {})[spelled] = None
    for key, values in found.items():
        yield key, ", ".join(values)


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
    return Section(section["title"], section["text"], table, grids, pictures, section["folded"], section["key"])


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
