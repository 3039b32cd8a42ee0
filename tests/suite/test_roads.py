"""One road: the host, a suite and Python have the same numbers, and a third party's task runs in all three."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_tiny_clip, write_webdataset

from koda_audit import Embeddings, modality_gap, run_suite
from koda_audit.embeddings.store import Store
from koda_audit.gates.check import accept
from koda_audit.suite.cells import Cells
from koda_audit.suite.load import load_suite
from koda_audit.suite.plan import Plan
from koda_audit.tasks.benchmarks import BENCHMARKS
from koda_audit.tasks.protocol import Inputs

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests" / "plugin_sample"
SUITE = """\
suite: roads
models: {one: {model: "local-dir:one"}, two: {model: "local-dir:two"}}
datasets: {pairs: {dataset: wds/pairs, root: pairs}}
num_workers: 0
discrepancy: {directions: 1, halves: 2}
similarity: {measures: [rsa, mutual_knn], k: 3}
gap: {robustness: {trials: 3, queries: 20}}
benchmark: {tasks: [zeroshot_retrieval], recall_at: [1, 5]}
"""
OPTIONS = {
    "koda_discrepancy": ["--koda_directions", "1", "--koda_halves", "2"],
    "koda_similarity": ["--koda_sim_measures", "rsa", "mutual_knn", "--koda_sim_k", "3"],
    "koda_modality_gap": [],
    "koda_gap_robustness": ["--koda_gaprob_trials", "3", "--koda_gaprob_queries", "20"],
}
# a row of the table, but for the names of models and data, and what only the host or a suite has
SAME = ("metric", "value", "ci_low", "ci_high", "chance", "n", "seed", "split", "language", "protocol")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("roads")
    write_tiny_clip(folder / "one")
    write_tiny_clip(folder / "two", seed=1)
    write_webdataset(folder / "pairs", n=24)
    (folder / "suite.yaml").write_text(SUITE)
    return folder


def audited(home: Path, text: str, output: str) -> list[dict[str, Any]]:
    """The rows of a suite."""
    (home / f"{output}.yaml").write_text(text)
    assert run_suite(home / f"{output}.yaml", home / output, store=home / "store").exit_code == 0
    return json.loads((home / output / "results.json").read_text())


@pytest.fixture(scope="module")
def rows(home) -> list[dict[str, Any]]:
    return audited(home, SUITE, "suite")


def python(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [env.pop("MORE", "")])])
    full = {**os.environ, "PYTHONPATH": path, **env}
    return subprocess.run([sys.executable, *words], cwd=folder, env=full, capture_output=True, text=True, timeout=300)


def hosted(home: Path, task: str, *words: str, **env: str) -> list[dict[str, Any]]:
    """The rows that the unmodified runner leaves beside its JSON."""
    models = (
        ["local-dir:one,x", "local-dir:two,x"]
        if task in ("koda_discrepancy", "koda_similarity")
        else ["local-dir:two,x"]
    )
    main = "import sys; from clip_benchmark.cli import main; sys.exit(main())"
    line = ["eval", "--task", task, "--dataset", "wds/pairs", "--dataset_root", "pairs", "--num_workers", "0"]
    line += ["--koda_store", "store", "--output", f"{task}.json", "--pretrained_model", *models, *words]
    done = python(home, "-c", main, *line, **env)
    assert done.returncode == 0, done.stderr
    return json.loads((home / task / "results.json").read_text())


@pytest.mark.parametrize("task", OPTIONS)
def test_host_and_suite_have_the_same_numbers_intervals_and_protocols(home, rows, task):
    ours = [row for row in rows if row["task"] == task and row["model"] == "two"]
    theirs = hosted(home, task, *OPTIONS[task])
    assert len(ours) > 4
    assert [{key: row[key] for key in SAME} for row in ours] == [{key: row[key] for key in SAME} for row in theirs]


def test_python_has_the_same_numbers(home, rows):
    """By the functions that a notebook calls, on the stored embeddings; an exchanged image and text would show."""
    found = {
        row["metric"]: row["value"] for row in rows if row["model"] == "two" and row["task"] == "koda_modality_gap"
    }
    plan = Plan(load_suite(home / "suite.yaml"), Cells(home / "store" / "cells"))
    record = plan.finished.read(plan.key(plan.embed("two", "pairs")))
    two = Store(home / "store").complete(home / "store" / record["facts"]["embedding"])
    gap = modality_gap(np.asarray(two.pairs().image), np.asarray(two.pairs().text))
    for key, value in gap.items():
        assert found[f"gap_{key}"] == pytest.approx(value, nan_ok=True) or (
            found[f"gap_{key}"] is None and value != value
        )


CHANGES = {
    "more trials": (
        ("trials: 3", "trials: 4"),
        lambda row: any(part in row["metric"] for part in ("agreement", "noisy", "best_alpha")),
    ),
    "another measure": (("[rsa, mutual_knn]", "[rsa, mutual_knn, procrustes]"), lambda row: False),
    "another neighbourhood": (("k: 3", "k: 4"), lambda row: "mutual_knn" in row["metric"]),
    "another recall": (("[1, 5]", "[1, 5, 7]"), lambda row: False),
    "another task": (("[zeroshot_retrieval]", "[zeroshot_retrieval, clustering], clusters: 3"), lambda row: False),
    "no interval": (("gap: {", "gap: {interval: false, "), lambda row: False),
    "more alphas": (("trials: 3", "trials: 3, alphas: [0.5]"), lambda row: row["metric"] == "gaprob_best_alpha"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_setting_voids_the_baselines_of_the_numbers_that_depend_on_it_alone(home, rows, change):
    (old, new), depends = CHANGES[change]
    assert old in SUITE
    named = ("model", "reference", "dataset", "task", "alignment", "metric")
    changed = {tuple(row[name] for name in named): row for row in audited(home, SUITE.replace(old, new), "changed")}
    for row in rows:
        now = changed[tuple(row[name] for name in named)]
        assert (now["protocol"] == row["protocol"]) != depends(row), row["metric"]


def test_a_refused_gate_names_the_setting_that_differs(home, rows):
    accept(home / "suite", home / "baseline")
    gate = "gates: [{metric: gaprob_agreement, dataset: pairs, model: two, max_drop: 0.5}]\n"
    (home / "gated.yaml").write_text(SUITE.replace("trials: 3", "trials: 4") + gate)
    done = run_suite(home / "gated.yaml", home / "gated", store=home / "store", baseline=home / "baseline")
    (verdict,) = done.verdicts
    assert verdict.verdict == "ERROR"
    assert "trials is 4 and was 3" in verdict.sentence


@pytest.fixture
def plugin(tmp_path) -> str:
    """The folder of an installed third party's package, and its code's."""
    info = tmp_path / "sample_count-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sample-count\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[clip_benchmark.tasks]\nsample_count = sample_count:task\n")
    return os.pathsep.join([str(tmp_path), str(SAMPLE)])


def test_a_third_partys_task_runs_in_host_suite_and_gate(home, plugin):
    section = "tasks: {sample_count: {min: 5, on: [pairs]}}\n"
    gate = "gates: [{metric: sample_count_n, dataset: pairs, model: two, min: 24}]\n"
    (home / "plugin.yaml").write_text(SUITE + section + gate)
    line = ["-W", "error", "-m", "koda_audit.cli", "run", "plugin.yaml", "--store", "store", "--output", "plugin"]
    done = python(home, *line, MORE=plugin)
    assert done.returncode == 0, done.stderr
    assert "PASS sample_count_n of two on pairs: is 24; min is 24 (compared as it is)" in done.stdout
    report = (home / "plugin" / "report.md").read_text()
    assert "Samples (sample_count of two on pairs)" in report
    ours = [row for row in json.loads((home / "plugin" / "results.json").read_text()) if row["task"] == "sample_count"]
    assert {(row["model"], row["metric"], row["value"]) for row in ours} >= {("two", "sample_count_n", 24)}
    theirs = hosted(home, "sample_count", "--sample_count_min", "5", MORE=plugin)
    of_two = [row for row in ours if row["model"] == "two"]
    assert [{key: row[key] for key in SAME} for row in of_two] == [{key: row[key] for key in SAME} for row in theirs]


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{sample_count: {mni: 5}}", "plugin.yaml:9: tasks.sample_count.mni: unknown key 'mni': did you mean 'min'"),
        ("{sample_count: {min: 0}}", "plugin.yaml:9: tasks.sample_count.min: expected greater than or equal to 1"),
        ("{sample_count: {on: [pears]}}", "did you mean 'pairs'"),
        ("{sample_count: {alignments: [closer]}}", "unknown alignment 'closer'"),
        ("{sample_cuont: {}}", "did you mean 'sample_count'"),
        ("{koda_similarity: {}}", "say it once"),
        ("{koda_aligned_retrieval: {}}", "say alignments and benchmark"),
    ],
)
def test_its_section_is_checked_as_ours_are(home, plugin, section, said):
    (home / "plugin.yaml").write_text(f"{SUITE}tasks: {section}\n")
    done = python(home, "-m", "koda_audit.cli", "validate", "--static", "plugin.yaml", MORE=plugin)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_task_is_given_image_and_text_as_they_are():
    """Recalls of both directions differ where captions are several an image, so an exchange is seen."""
    task = BENCHMARKS["zeroshot_retrieval"]
    found = task.run(Inputs(Embeddings(np.eye(2), [[3.0, 1.0], [2.0, 1.0]])), task.Settings(recall_at=[1])).metrics
    assert found == {"image_retrieval_recall@1": 0.5, "text_retrieval_recall@1": 1.0}
