"""The gap against quality, and published figures, in a report of cells whose numbers are made up here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

from koda_audit.suite.asked import GAP
from koda_audit.suite.cells import Cells, Finished
from koda_audit.suite.gap_quality import FILE, GAPS, TITLE, gap_against_quality
from koda_audit.suite.load import load_suite
from koda_audit.suite.plan import Cell, Plan
from koda_audit.suite.sections import sections_of
from koda_audit.tasks.benchmarks import BENCHMARKS
from koda_audit.tasks.protocol import Number

DATA = """\
  pairs: {dataset: wds/p, root: p, task: zeroshot_retrieval}
  kinds: {dataset: wds/k, root: k, task: zeroshot_classification}
"""
TWO = 'alignments: {m: {operator: center, fit_on: "pairs:train"}, t: {operator: orthogonal_translate}}\n'
TASKS = "benchmark: {tasks: [zeroshot_classification, zeroshot_retrieval, side_effects]}\n"
METRICS = {
    "zeroshot_classification": ("acc1", "acc5"),
    "zeroshot_retrieval": ("image_retrieval_recall@1", "image_retrieval_recall@5"),
    "side_effects": ("prediction_gini",),
}


def planned(folder: Path, models: int, rest: str) -> Plan:
    named = ", ".join(f'm{number}: {{model: "local-dir:m{number}"}}' for number in range(models))
    (folder / "suite.yaml").write_text(f"suite: s\nmodels: {{{named}}}\ndatasets:\n{DATA}{rest}")
    return Plan(load_suite(folder / "suite.yaml"), Cells(folder / "cells"))


def measured(plan: Plan) -> dict[Cell, Finished]:
    """Numbers drawn for each cell; benchmarks follow the raw gap of the pairs, and half of what they are is noise."""
    random = np.random.default_rng(0)
    gaps = {(model, under): random.uniform(0.2, 1.2) for model in plan.models for under in (None, "m", "t")}
    found = {}
    for cell in plan.cells:
        raw = gaps[cell.model, cell.alignment]
        if cell.task == GAP:
            values = {key: raw if key == "raw_gap_rms" else random.normal() for key in GAPS}
            numbers = [*(Number(f"gap_{key}", value) for key, value in values.items()), Number("gaprob_agreement", 0.5)]
            found[cell] = Finished(
                tuple(numbers),
                tables={"tables/gap.csv": pd.DataFrame(values.items(), columns=["metric", "value"]).assign(null=None)},
            )
        elif cell.task in BENCHMARKS:
            numbers = [Number(key, raw + random.normal() / 4, 0.1, 0.9, 24) for key in METRICS[cell.task]]
            found[cell] = Finished(tuple(numbers))
    return found


def r2(
    cells: dict[Cell, Finished], on: str, metric: str, dataset: str, leave_out: tuple[str, ...] = ()
) -> tuple[float, int]:
    """The oracle: points by model and alignment, the line by scikit-learn."""
    sides: list[dict[tuple[str, str | None], float]] = [{}, {}]
    for cell, done in cells.items():
        for number in done.numbers:
            if (cell.task, cell.dataset, number.metric) == (GAP, on, "gap_raw_gap_rms"):
                sides[0][cell.model, cell.alignment] = number.value
            if (cell.task in BENCHMARKS, cell.dataset, number.metric) == (True, dataset, metric):
                sides[1][cell.model, cell.alignment] = number.value
    points = [
        (sides[0][point], value) for point, value in sides[1].items() if point in sides[0] and point[1] not in leave_out
    ]
    x, y = np.array(points).T
    return LinearRegression().fit(x[:, None], y).score(x[:, None], y), len(x)


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (f"gap: {{on: [pairs]}}\n{TWO}{TASKS}", {None, "m", "t"}),
        (
            f"gap: {{on: [pairs]}}\n{TWO}{TASKS.replace('side_effects]', 'side_effects], alignments: [none, m, t]')}",
            {None, "m", "t"},
        ),
        (f"gap: {{on: [pairs], alignments: [none, m]}}\n{TWO}{TASKS}", {None, "m"}),
        ("gap: {on: [pairs]}\n", {None}),
    ],
)
def test_the_gap_is_measured_under_the_alignments_of_the_benchmark(rest, expected, tmp_path):
    cells = [cell for cell in planned(tmp_path, 2, rest).cells if cell.task == GAP]
    assert {cell.alignment for cell in cells} == expected
    assert len(cells) == 2 * len(expected)
    for cell in cells:
        fitted = [need for need in cell.needs if need.step == "align"]
        # made of the rows whose gap is measured, or of those it was told
        assert [(need.dataset, need.split) for need in fitted] == {
            None: [],
            "m": [("pairs", "train")],
            "t": [("pairs", "test")],
        }[cell.alignment]


def test_r2_is_that_of_all_points_of_the_same_dataset(tmp_path):
    plan = planned(tmp_path, 6, f"gap: {{}}\n{TWO}{TASKS}")
    cells = measured(plan)
    sections, tables = gap_against_quality(plan, cells)
    table = tables[FILE].set_index(["dataset", "benchmark", "gap"])
    assert set(table["task"]) == {"zeroshot_classification", "zeroshot_retrieval"}
    assert (table["gap_on"] == table.index.get_level_values("dataset")).all()
    assert set(table.index.get_level_values("gap")) == set(GAPS)
    for dataset, metric in (("kinds", "acc1"), ("kinds", "acc5"), ("pairs", "image_retrieval_recall@5")):
        row = table.loc[dataset, metric, "raw_gap_rms"]
        expected, n = r2(cells, dataset, metric, dataset)
        assert n == row["n"] == 18
        assert row["r2"] == pytest.approx(expected, rel=1e-9)
        assert row["low"] <= row["r2"] <= row["high"]
        assert row["models"] == 6
    shown = sections[0].table
    assert set(shown["benchmark"]) == {"acc1 on kinds", "image_retrieval_recall@1 on pairs"}
    assert shown["95 % interval"].str.fullmatch(r"[01]\.\d{3} to [01]\.\d{3}").all()
    assert [picture.png[1:4] for picture in sections[0].pictures] == [b"PNG", b"PNG"]
    assert gap_against_quality(plan, cells)[0][0].pictures == sections[0].pictures


def test_where_the_gap_was_not_measured_that_of_another_dataset_stands_in(tmp_path):
    """But not under an alignment that is another one on each dataset."""
    plan = planned(tmp_path, 6, f"gap: {{on: [pairs]}}\n{TWO}{TASKS}")
    cells = measured(plan)
    sections, tables = gap_against_quality(plan, cells)
    table = tables[FILE].set_index(["dataset", "benchmark", "gap"])
    row = table.loc["kinds", "acc1", "raw_gap_rms"]
    expected, n = r2(cells, "pairs", "acc1", "kinds", leave_out=("t",))
    assert (row["gap_on"], row["n"], n) == ("pairs", 12, 12)
    assert row["r2"] == pytest.approx(expected, rel=1e-9)
    assert table.loc["pairs", "image_retrieval_recall@1", "raw_gap_rms"]["n"] == 18
    assert "raw_gap_rms on pairs" in set(sections[0].table["gap"])


def test_what_failed_is_no_point(tmp_path):
    plan = planned(tmp_path, 6, f"gap: {{}}\n{TWO}{TASKS}")
    cells = {cell: done for cell, done in measured(plan).items() if (cell.task, cell.model) != (GAP, "m3")}
    table = gap_against_quality(plan, cells)[1][FILE]
    assert set(table["n"]) == {15}
    assert set(table["models"]) == {5}


def test_few_models_have_no_interval_and_the_report_says_why(tmp_path):
    plan = planned(tmp_path, 3, f"gap: {{}}\n{TWO}{TASKS}")
    (section,), tables = gap_against_quality(plan, measured(plan))
    assert "An interval needs 5 models, and there are 3" in section.text
    assert "95 % interval" not in section.table
    assert tables[FILE]["r2"].notna().all()


@pytest.mark.parametrize(("models", "rest", "points"), [(2, TWO, 6), (7, "", 7)])
def test_fewer_than_8_points_are_one_sentence(models, rest, points, tmp_path):
    plan = planned(tmp_path, models, f"gap: {{}}\n{rest}{TASKS}")
    sections, tables = sections_of(plan, measured(plan), {})
    section = next(section for section in sections if section.title == TITLE)
    assert section.text.endswith(
        f"This suite has {points} points, a model under one alignment each; at least 8 are needed."
    )
    assert (section.table, section.pictures, FILE in tables) == (None, (), False)


def test_without_a_benchmark_nothing_is_asked(tmp_path):
    plan = planned(tmp_path, 3, "gap: {}\n")
    assert gap_against_quality(plan, measured(plan)) == ([], {})


PUBLISHED = """\
published:
  - {metric: acc1, dataset: kinds, model: m0, value: 0.5, source: "A. Author, table 1"}
  - {metric: acc1, dataset: kinds, model: m0, value: 0.25, source: another}
  - {metric: acc5, dataset: pairs, model: m1, value: 0.5, source: another}
"""


def test_published_figures_stand_beside_ours_with_their_source(tmp_path):
    plan = planned(tmp_path, 2, f"{TWO}{TASKS}{PUBLISHED}")
    cells = measured(plan)
    ours = next(
        done.numbers[0].value
        for cell, done in cells.items()
        if (cell.model, cell.task, cell.alignment) == ("m0", "zeroshot_classification", None)
    )
    sections, _ = sections_of(plan, cells, {})
    table = next(section.table for section in sections if section.title == "Against published figures")
    assert table["published"].tolist() == [0.5, 0.25, 0.5]
    assert table["source"].tolist() == ["A. Author, table 1", "another", "another"]
    np.testing.assert_allclose(table["ours"][:2].astype(float), ours)
    np.testing.assert_allclose(table["ours minus published"][:2].astype(float), [ours - 0.5, ours - 0.25])
    assert table["95 % interval"][:2].tolist() == ["0.1 to 0.9", "0.1 to 0.9"]
    assert table.loc[2, ["ours", "95 % interval", "ours minus published"]].isna().all()


def test_no_figure_no_section(tmp_path):
    plan = planned(tmp_path, 2, f"{TWO}{TASKS}")
    assert "Against published figures" not in [section.title for section in sections_of(plan, measured(plan), {})[0]]


def test_a_dataset_runs_only_the_tasks_that_it_names(tmp_path):
    tasks = "benchmark: {tasks: [zeroshot_classification, zeroshot_retrieval, linear_probe]}\n"
    plan = planned(tmp_path, 1, tasks)
    assert {cell.task for cell in plan.cells if cell.dataset == "kinds" and cell.task in BENCHMARKS} == {
        "zeroshot_classification",
        "linear_probe",
    }
    text = (
        (tmp_path / "suite.yaml")
        .read_text()
        .replace("task: zeroshot_classification", "task: zeroshot_classification, only: [linear_probe]")
    )
    (tmp_path / "suite.yaml").write_text(
        text.replace(
            "[zeroshot_classification, zeroshot_retrieval, linear_probe]", "[zeroshot_retrieval, linear_probe]"
        )
    )
    plan = Plan(load_suite(tmp_path / "suite.yaml"), Cells(tmp_path / "cells"))
    assert [(cell.task, cell.dataset) for cell in plan.cells if cell.task in BENCHMARKS] == [
        ("zeroshot_retrieval", "pairs"),
        ("linear_probe", "kinds"),
    ]
