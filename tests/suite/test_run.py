"""Suites as real processes on tiny models and data: finished, resumed, killed, failing in part."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from clip_benchmark.cli import main_build
from conftest import write_tiny_clip, write_webdataset
from PIL import Image, ImageOps
from safetensors.numpy import load_file, save_file

from koda_audit import check, cli, run_suite
from koda_audit.data.load import load_dataset
from koda_audit.embeddings.extract import embed
from koda_audit.embeddings.store import Store
from koda_audit.evaluation.classification import zeroshot_classification
from koda_audit.evaluation.tasks import evaluate
from koda_audit.gates.check import accept
from koda_audit.metrics import described, listed
from koda_audit.models import ModelSpec, load_model
from koda_audit.outcomes import Cell as Place
from koda_audit.outcomes import load_outcomes
from koda_audit.results import COLUMNS
from koda_audit.suite.asked import measured
from koda_audit.suite.benchmark_sections import Benchmark, changes_section
from koda_audit.suite.cells import Cells
from koda_audit.suite.load import load_suite
from koda_audit.suite.plan import Plan
from koda_audit.suite.run import Audit
from koda_audit.tasks.gap_robustness import task as robustness
from koda_audit.tasks.protocol import Inputs

ROOT = Path(__file__).parents[2]
SUITE = """\
suite: tiny
models:
  one: {model: "local-dir:one"}
  two: {model: "local-dir:two"}
datasets:
  pairs: {dataset: wds/pairs, root: pairs}
  kinds: {dataset: wds/kinds, root: kinds}
num_workers: 0
discrepancy: {on: [pairs], directions: 1, halves: 2}
similarity: {on: [pairs], measures: [cka_linear_debiased, mutual_knn], k: 3}
gap: {on: [kinds], alignments: [none, centred], robustness: {trials: 2}}
alignments:
  centred: {operator: center_renorm, fit_on: "pairs:train"}
  closer: {operator: orthogonal_translate}
benchmark:
  tasks: [zeroshot_classification, zeroshot_retrieval, linear_probe, clustering, side_effects]
  probe_C: 1.0
gates:
  - {metric: acc1, dataset: kinds, model: two, against: one, max_drop: 0.9}
  - {metric: koda_findings, dataset: pairs, model: two, against: one, max: 100}
"""
SMALL = """\
suite: small
models: {one: {model: "local-dir:one"}, two: {model: "local-dir:two"}}
datasets: {pairs: {dataset: wds/pairs, root: pairs}}
num_workers: 0
similarity: {measures: [cka_linear]}
benchmark: {tasks: [zeroshot_retrieval]}
"""
TOWER = "operator: kuea, mode: tower, teacher: two, epochs: 4, batch: 8, lr: 1.0e-3, weight: 500, rho_teacher: 100"
BENCHMARKS = ("zeroshot_classification", "zeroshot_retrieval", "linear_probe", "clustering", "side_effects")


def audit(folder: Path, *words: str, suite: str = "suite.yaml") -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-W", "error", "-m", "koda_audit.cli", "run", suite, "--store", "store", *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


def here(folder: Path, output: str, suite: str = "suite.yaml") -> tuple[Audit, list[str]]:
    """The same in this process, and what was said while it computed."""
    said: list[str] = []
    done = run_suite(folder / suite, folder / output, store=folder / "store", say=said.append)
    assert said.pop().endswith(" steps were finished before")
    return done, said


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("suite")
    write_tiny_clip(folder / "one")
    write_tiny_clip(folder / "two", seed=1)
    write_webdataset(folder / "pairs", n=24)
    write_webdataset(folder / "kinds", n=24, kind="classification")
    for name in ("pairs", "kinds"):
        kind = "retrieval" if name == "pairs" else "classification"
        _inverted(write_webdataset(folder / name, n=24, kind=kind, split="train") / "train")
    (folder / "suite.yaml").write_text(SUITE)
    (folder / "small.yaml").write_text(SMALL)
    return folder


def _inverted(split: Path) -> None:
    """Other images than those of the test split, under other names."""
    for shard in split.glob("*.tar"):
        with tarfile.open(shard) as archive:
            members = [(member, archive.extractfile(member).read()) for member in archive.getmembers()]
        with tarfile.open(shard, "w") as archive:
            for member, content in members:
                if member.name.endswith(".png"):
                    stream = io.BytesIO()
                    ImageOps.invert(Image.open(io.BytesIO(content))).save(stream, "PNG")
                    content = stream.getvalue()
                member.name, member.size = f"t{member.name}", len(content)
                archive.addfile(member, io.BytesIO(content))


@pytest.fixture(scope="module")
def done(home) -> Path:
    """The folder of the first run."""
    ran = audit(home, "--output", "first")
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    return home / "first"


def embedding(home: Path, model: str, dataset: str) -> str:
    """The name of its folder in the store."""
    plan = Plan(load_suite(home / "suite.yaml"), Cells(home / "store" / "cells"))
    return str(plan.finished.read(plan.key(plan.embed(model, dataset)))["facts"]["embedding"])


def tables(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_one_tidy_table_without_errors(done):
    table = pd.read_csv(done / "results.csv")
    assert tuple(table.columns) == COLUMNS
    assert set(table["status"]) == {"ok"}
    assert not table.duplicated(["model", "reference", "dataset", "task", "alignment", "metric"]).any()
    assert set(table["alignment"].dropna()) == {"centred", "closer"}
    strict = json.loads((done / "results.json").read_text(), parse_constant=pytest.fail)
    assert len(strict) == len(table)
    for column in ("protocol", "provenance"):
        assert table[column].str.fullmatch("[0-9a-f]{12}").all()


def test_every_metric_is_in_the_table_of_metrics_and_known_before_the_run(home, done):
    metrics = set(pd.read_csv(done / "results.csv")["metric"])
    assert {"acc1", "koda_findings", "gap_rmg", "gaprob_agreement", "sim_image_mutual_knn", "ari"} <= metrics
    assert {"gap_prediction_gini", "aligned_changed_decisions"} <= metrics
    assert [metric for metric in metrics if described(metric) is None] == []
    assert metrics <= measured(load_suite(home / "suite.yaml").suite)


def test_settings_of_a_metric_follow_it(home, done):
    text = SUITE.replace("{trials: 2}", "{trials: 2, total_var: [0.01, 0.1]}").replace("k: 3", "k: 3, permutations: 9")
    (home / "more.yaml").write_text(text)
    ran, _ = here(home, "more", "more.yaml")
    metrics = set(ran.frame["metric"])
    assert {"gaprob_agreement@0.01", "gaprob_agreement@0.1", "sim_image_mutual_knn_p_value"} <= metrics
    assert [metric for metric in metrics if described(metric) is None] == []
    assert metrics <= measured(load_suite(home / "more.yaml").suite)


def test_robustness_is_that_of_the_stock_runners_task(home, done):
    """A number by name and by value: that of the host's task with the same settings."""
    found = Store(home / "store").complete(home / "store" / embedding(home, "one", "kinds"))
    expected = robustness.run(Inputs(found), robustness.Settings(trials=2)).metrics
    table = pd.read_csv(done / "results.csv")
    rows = table[(table["model"] == "one") & table["alignment"].isna() & table["metric"].str.startswith("gaprob_")]
    assert dict(zip(rows["metric"], rows["value"], strict=True)) == pytest.approx(expected, nan_ok=True)


def test_outcomes_lie_beside_the_table_and_are_what_it_is_made_of(done):
    table, kept = pd.read_csv(done / "results.csv"), load_outcomes(done / "outcomes")
    table["alignment"] = table["alignment"].astype(object).where(table["alignment"].notna(), None)
    whole = ["ari", "nmi", "homogeneity", "v_measure", "modality_purity"]  # of all samples at once, no mean
    held = table[table["ci_low"].notna() & table["task"].isin(BENCHMARKS) & ~table["metric"].isin(whole)]
    held = held[(held["task"] != "side_effects") | (held["metric"] == "aligned_changed_decisions")]
    for row in held.itertuples():
        values, samples = kept.of(Place(row.model, row.dataset, row.task, row.metric, row.alignment))
        assert values.mean() == pytest.approx(row.value, abs=1e-6)
        assert len(values) == row.n
        assert set(samples) <= {f"s{number:04d}" for number in range(24)}
    assert {"acc1", "image_retrieval_recall@1", "probe_accuracy", "pair_together"} <= set(held["metric"])
    assert {cell.metric for cell in kept.cells()} >= {"gaprob_agreement", "gaprob_noisy_accuracy_closed"}


def test_every_number_that_a_gate_can_judge_has_an_interval(done):
    table = pd.read_csv(done / "results.csv")
    without = table[table["ci_low"].isna() & table["value"].notna()]
    judged = [key for key in set(without["metric"]) if (known := listed(key)) and not known.bare and not known.exact]
    assert set(judged) <= {"gap_centroid_gap_sq_unbiased"}  # of sides that are no pairs


def test_signatures_tell_tasks_and_models_apart(done):
    table = pd.read_csv(done / "results.csv")
    acc = table[(table["metric"] == "acc1") & table["alignment"].isna()].set_index("model")
    assert acc["protocol"].nunique() == 1  # comparable
    assert acc["provenance"].nunique() == 2  # of different weights
    assert table.groupby(["task", "dataset", "metric", table["alignment"].fillna("")])["protocol"].nunique().max() <= 1


def test_numbers_are_those_of_the_functions(home, done):
    found = Store(home / "store").complete(home / "store" / embedding(home, "two", "kinds"))
    expected = zeroshot_classification(found.image, found.class_text, found.labels).values["acc1"]
    table = pd.read_csv(done / "results.csv")
    row = table[(table["model"] == "two") & (table["metric"] == "acc1") & table["alignment"].isna()].iloc[0]
    assert row["value"] == expected
    assert row["ci_low"] <= expected <= row["ci_high"]
    assert row["n"] == 24


def test_rerun_is_the_same_and_imports_no_torch(home, done):
    line = [sys.executable, "-X", "importtime", "-m", "koda_audit.cli", "run", "suite.yaml", "--store", "store"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [*line, "--output", "again"], cwd=home, env=env, capture_output=True, text=True, timeout=60, check=True
    )
    modules = [line.rpartition("|")[2].strip() for line in ran.stderr.splitlines()]
    assert not {"torch", "open_clip", "sklearn", "clip_benchmark.cli"} & set(modules)
    assert tables(home / "again") == tables(done)
    page = home / "again" / "report.html"
    written = page.stat().st_mtime_ns
    used = os.times()
    subprocess.run([*line[:1], *line[3:], "--output", "again"], cwd=home, env=env, capture_output=True, check=True)
    spent = os.times()
    assert (spent.children_user + spent.children_system) - (used.children_user + used.children_system) < 5
    assert page.stat().st_mtime_ns == written  # the same report is not written again
    page.write_text("edited")
    subprocess.run([*line[:1], *line[3:], "--output", "again"], cwd=home, env=env, capture_output=True, check=True)
    assert tables(home / "again") == tables(done)


def test_a_report_of_what_is_finished_computes_nothing(home, done):
    (home / "more.yaml").write_text(SUITE.replace("k: 3", "k: 4"))
    line = [sys.executable, "-X", "importtime", "-m", "koda_audit.cli", "report", "more.yaml", "--store", "store"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([*line, "--output", "part"], cwd=home, env=env, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert " torch\n" not in ran.stderr
    table, whole = pd.read_csv(home / "part" / "results.csv"), pd.read_csv(done / "results.csv")
    failed = table[table["status"] == "error"]
    assert set(failed["task"]) == {"koda_similarity"}
    assert set(failed["error"]) == {"not measured yet: koda-audit run"}
    assert "steps are not measured yet: koda-audit run\n" in ran.stderr
    report = (home / "part" / "report.md").read_text()
    assert "steps are not measured yet**, see below" in report
    assert "## Not measured yet" in report
    assert "failed" not in report
    assert len(table) - len(failed) == len(whole) - (whole["task"] == "koda_similarity").sum()


def test_dry_run_says_what_is_cached(home, done):
    ran = audit(home, "--dry-run")
    assert ran.returncode == 0
    assert "embeddings: 0 to extract" in ran.stdout
    assert " 0 to compute" in ran.stdout
    assert "Report" not in ran.stdout


# the host leaves the files open that it reads
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_clip_benchmark_builds_one_table_and_keeps_alignments_apart(done, tmp_path):
    files = [str(path) for path in sorted((done / "json").glob("*.json"))]
    main_build(Namespace(files=files, output=str(tmp_path / "all.csv")))
    with (tmp_path / "all.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["task"] == "zeroshot_classification"]
    assert {(row["model"], row["alignment"]) for row in rows} == {
        (model, alignment) for model in ("one", "two") for alignment in ("none", "centred", "closer")
    }
    assert all(0 <= float(row["acc1"]) <= 1 for row in rows)


def test_report_and_what_lies_beside_it(done):
    report = (done / "report.md").read_text()
    assert next(line for line in report.splitlines() if line.startswith("## ")) == "## Verdicts"
    verdicts = report.split("## Verdicts")[1].split("##")[0]
    assert "2 PASS." in verdicts
    assert "max_drop 0.9" in verdicts
    page = (done / "report.html").read_text()
    assert page.index("Verdicts") < page.index("Benchmark linear_probe")
    classification = report.split("## Benchmark zeroshot_classification")[1].split("##")[0]
    assert "chance" in classification
    assert "0.3333" in classification  # of three classes
    for title in ("Summary", "Benchmark linear_probe on kinds", "Similarity", "Modality gap", "How this was measured"):
        assert f"## {title}" in report
    assert str(Path.cwd()) not in report
    environment = json.loads((done / "environment.json").read_text())
    assert set(environment["models"]) == {"one", "two"}
    assert environment["datasets"]["kinds:test"]["n"] == 24
    assert len(list((done / "figures").glob("*.png"))) >= 2
    assert (done / "tables").is_dir()


def test_a_change_redoes_what_depends_on_it_and_nothing_else(home, done):
    changed = SUITE.replace("measures: [cka_linear_debiased, mutual_knn]", "measures: [cka_linear_debiased]")
    (home / "changed.yaml").write_text(changed)
    ran, said = here(home, "changed", "changed.yaml")
    assert ran.exit_code == 0
    assert [line.split("] ")[1] for line in said] == ["koda_similarity: two against one on pairs:test"]


def test_a_copied_checkpoint_is_not_embedded_twice(home, done):
    write_tiny_clip(home / "copy", seed=1)
    (home / "copied.yaml").write_text(SMALL.replace("local-dir:two", "local-dir:copy"))
    before = {path.name for path in (home / "store").glob("*") if path.is_dir()}
    assert here(home, "copied", "copied.yaml")[0].exit_code == 0
    assert {path.name for path in (home / "store").glob("*") if path.is_dir()} == before


def test_a_missing_model_fails_alone_and_is_filled_in_later(home, done):
    (home / "part.yaml").write_text(SMALL.replace("local-dir:two", "local-dir:later"))
    ran = audit(home, "--output", "part", suite="part.yaml")
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
    assert "there is no folder" in ran.stderr
    table = pd.read_csv(home / "part" / "results.csv")
    failed = table[table["status"] == "error"]
    assert set(failed["task"]) == {"embed", "koda_similarity", "zeroshot_retrieval"}
    assert failed["error"].str.contains("later").all()
    assert failed["value"].isna().all()
    assert set(table[(table["status"] == "ok") & (table["task"] == "zeroshot_retrieval")]["model"]) == {"one"}
    assert "What failed" in (home / "part" / "report.md").read_text()
    write_tiny_clip(home / "later", seed=3)
    ran, _ = here(home, "part", "part.yaml")
    assert (ran.exit_code, ran.failures) == (0, {})
    assert set(ran.frame["status"]) == {"ok"}


def test_a_damaged_cell_is_made_again(home, done):
    plan = Plan(load_suite(home / "suite.yaml"), Cells(home / "store" / "cells"))
    first, last = (plan.finished.path(plan.key(cell)) for cell in (plan.cells[0], plan.cells[-1]))
    fitted = next(plan.finished.path(plan.key(cell)) for cell in plan.cells if cell.step == "align")
    numbers = next(plan.finished.path(plan.key(cell)) for cell in plan.cells if cell.task == "zeroshot_retrieval")
    (first / "cell.json").write_bytes(b'{"numbers"')
    (last / "outcomes.npz").write_bytes(b"PK")
    with next(fitted.glob("alignment/*.safetensors")).open("ab") as stream:
        stream.write(b"zz")
    record = (numbers / "cell.json").read_text()
    (numbers / "cell.json").write_text(record.replace('"value": 0.', '"value": 1.', 1))
    assert (numbers / "cell.json").read_text() != record
    ran, said = here(home, "mended")
    assert (ran.exit_code, len(said)) == (0, 4)
    assert (home / "mended" / "results.csv").read_bytes() == (done / "results.csv").read_bytes()


def test_killed_at_any_moment_it_ends_with_the_same_table(home, done):
    """Of a store of its own, ten times: while it embeds, fits, computes, and a moment after it began."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-u", "-m", "koda_audit.cli", "run", "suite.yaml", "--store", "killed", "--output", "end"]
    random = np.random.default_rng(0)
    for step in np.sort(random.integers(1, 40, size=10)):
        with subprocess.Popen(line, cwd=home, env=env, stdout=subprocess.PIPE, text=True) as running:
            for text in running.stdout:
                if text.startswith("[") and int(text[1:].split("/")[0]) >= step:
                    break
            time.sleep(float(random.uniform(0, 0.3)))
            running.send_signal(signal.SIGKILL)
        assert not (home / "end").exists()
    ran = subprocess.run(line, cwd=home, env=env, capture_output=True, text=True, timeout=300, check=True)
    first = next(text for text in ran.stdout.splitlines() if text.startswith("["))
    assert int(first[1:].split("/")[0]) >= step, "what was finished was done again"
    assert tables(home / "end") == tables(done)


def test_values_that_a_formula_refuses_stop_a_suite_before_any_work(home, done, capsys):
    far = '  far: {operator: ridge, fit_on: "pairs:train", lam: -1}\n'
    bad = SUITE.replace(
        "  closer: {operator: orthogonal_translate}",
        f"{far}  closer: {{operator: orthogonal_translate, alpha: 1.0e+200}}",
    )
    (home / "bad.yaml").write_text(bad)
    before = sorted(path.name for path in (home / "store").rglob("*"))
    place = [str(home / "bad.yaml"), "--store", str(home / "store")]
    for words in (["run", *place, "--output", str(home / "bad")], ["validate", *place]):
        assert cli.main(words) == 2
        said = capsys.readouterr().err
        assert "alignments.far: lam is -1: expected a number from 0" in said
        assert "alignments.closer: alpha is 1e+200: expected a number from -1e+06 to 1e+06" in said
    assert sorted(path.name for path in (home / "store").rglob("*")) == before
    assert not (home / "bad").exists()


def test_the_store_is_no_place_for_the_report(home, done, capsys):
    for store in (home / "store", home / "store" / "within"):
        given = ["--store", str(store), "--output", str(home / "store")]
        assert cli.main(["run", str(home / "suite.yaml"), *given]) == 2
        assert f"holds the store {store}: choose another folder" in capsys.readouterr().err
    (home / "loop").symlink_to(home / "loop")
    assert cli.main(["run", str(home / "suite.yaml"), "--output", str(home / "loop")]) == 2
    assert "can be no folder: Too many levels of symbolic links" in capsys.readouterr().err


def test_the_demo_replaces_no_files(tmp_path, capsys):
    (tmp_path / "models").mkdir()
    assert cli.main(["init", "--demo", str(tmp_path)]) == 2
    assert "models exists: name another place" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [tmp_path / "models"]


def test_output_that_is_not_ours_is_refused_before_any_work(home, done):
    (home / "mine").mkdir()
    (home / "mine" / "thesis.txt").write_text("years")
    ran = audit(home, "--output", "mine")
    assert ran.returncode == 2
    assert "holds 'thesis.txt', which no report wrote" in ran.stderr
    assert ran.stdout == ""


def gated(home: Path, *gates: str) -> str:
    (home / "gated.yaml").write_text(SUITE.split("gates:")[0] + "gates:\n" + "".join(f"  - {{{g}}}\n" for g in gates))
    return "gated.yaml"


PASSES = "metric: acc1, dataset: kinds, model: two, against: one, max_drop: 0.9"
FAILS = "metric: probe_accuracy, dataset: kinds, model: two, alignment: centred, min: 1.1"
NEEDS_BASELINE = "metric: image_retrieval_recall@5, dataset: pairs, model: two, max_drop: 0.5"


@pytest.mark.parametrize(
    ("gates", "words", "code"),
    [
        ([PASSES], ["PASS"], 0),
        ([PASSES, FAILS], ["PASS", "FAIL"], 1),
        ([FAILS, NEEDS_BASELINE], ["FAIL", "ERROR"], 2),
    ],
)
def test_gates_are_judged_shown_and_decide_the_exit_code(home, done, gates, words, code):
    ran = audit(home, "--output", "judged", "--quiet", suite=gated(home, *gates))
    assert ran.returncode == code
    assert [line.split()[0] for line in ran.stdout.splitlines()[2 : 2 + len(words)]] == words
    rows = json.loads((home / "judged" / "verdicts.json").read_text())
    assert [row["verdict"] for row in rows] == words
    assert ("no baseline is given" in ran.stdout) == ("ERROR" in words)
    checked = check(home / "judged")  # the same from the folder alone
    assert checked.exit_code == code
    strict = json.loads(json.dumps([verdict.record() for verdict in checked.verdicts]))
    assert [{**row, "sentence": ""} for row in strict] == [{**row, "sentence": ""} for row in rows]


def test_a_gate_without_against_is_held_against_the_baseline(home, done):
    accept(done, home / "baseline")
    suite = gated(home, NEEDS_BASELINE)
    ran = audit(home, "--output", "based", "--baseline", "baseline", suite=suite)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "stayed 0." in ran.stdout
    (home / "baseline" / "results.json").write_text("[]")
    ran = audit(home, "--output", "edited", "--baseline", "baseline", suite=suite)
    assert ran.returncode == 2
    assert "was changed after it was accepted" in ran.stderr
    assert not (home / "edited").exists()


def test_a_gate_on_what_failed_says_so(home, done):
    gate = "gates: [{metric: image_retrieval_recall@5, dataset: pairs, model: two, min: 0.1}]\n"
    (home / "lost.yaml").write_text(SMALL.replace("local-dir:two", "local-dir:nowhere") + gate)
    ran, _ = here(home, "lost", "lost.yaml")
    assert ran.exit_code == 2
    assert "failed there: " in ran.verdicts[0].sentence
    assert "nowhere" in ran.verdicts[0].sentence


def test_the_report_says_what_was_fitted_on_evaluated_samples_and_what_may_be_guessed(home, done):
    text = SMALL + 'alignments: {near_it: {operator: center, fit_on: "pairs:test", transductive: true}}\n'
    (home / "met.yaml").write_text(text)
    assert here(home, "met", "met.yaml")[0].exit_code == 0
    report = (home / "met" / "report.md").read_text()
    assert "Fitted on samples that are evaluated (transductive): near_it." in report
    assert "**Not above chance, as far as these samples tell: " in report
    assert "transductive" not in (done / "report.md").read_text()


def test_what_is_measurably_worse_or_better():
    def row(metric, change=None, ends=None, against="no alignment"):
        of = {"metric": metric, "model": "two", "alignment": "centred", "value": 0.5}
        return {**of, "against": against, "change": change, "95 % of the change": ends}

    rows = [
        row("acc1", 0.2, (0.1, 0.3)),
        row("acc1", -0.1, (-0.2, -0.05), "one"),
        row("acc5", -0.1, (-0.2, 0.0)),
        row("mean_per_class_recall", -0.3),
        row("aligned_changed_decisions", 0.3, (0.1, 0.4)),  # no merit, no fault
    ]
    (section,) = changes_section([Benchmark("kinds", "zeroshot_classification", {}, {}, "one", rows)])
    table = section.table[["verdict", "metric", "against", "change", "95 % of the change"]]
    assert table.values.tolist() == [
        ["worse", "acc1", "one", -0.1, "-0.2 to -0.05"],
        ["better", "acc1", "no alignment", 0.2, "0.1 to 0.3"],
    ]
    assert not list(changes_section([Benchmark("kinds", "zeroshot_classification", {}, {}, "one", rows[2:])]))


def test_a_folder_with_one_class_and_a_wrong_template_file_are_found_before_a_run(home, capsys):
    for name in ("inner/cat", "inner/dog"):
        (home / "outer" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(home / "outer" / name / "1.png")
    (home / "list.json").write_text('["a {c}"]')
    text = """\
suite: classes
models: {one: {model: "local-dir:one"}}
datasets:
  high: {dataset: folder/high, root: outer}
  right: {dataset: folder/right, root: outer/inner, template_file: list.json}
benchmark: {tasks: [zeroshot_classification]}
"""
    (home / "classes.yaml").write_text(text)
    assert cli.main(["validate", str(home / "classes.yaml")]) == 2
    said = capsys.readouterr().err
    assert "classes.yaml:4: datasets.high, split test: " in said
    assert "outer has a single class, inner, and nothing is to be told apart" in said
    assert "classes.yaml:5: datasets.right, split test: " in said
    assert "list.json must be a JSON object with datasets as keys" in said


def test_trained_alignments_take_another_model_as_teacher(home, done):
    text = SMALL.replace("similarity: {measures: [cka_linear]}\n", "").replace("}\nbenchmark", "}\nbenchmark")
    text += 'alignments: {near: {operator: kuea, teacher: two, fit_on: "pairs:train", epochs: 1, rank: 2}}\n'
    (home / "taught.yaml").write_text(text)
    ran, said = here(home, "taught", "taught.yaml")
    assert ran.exit_code == 0, ran.failures
    assert next(line.split("] ")[1] for line in said if "near" in line) == "align: one on pairs:train, near"
    aligned = ran.frame[(ran.frame["model"] == "one") & (ran.frame["alignment"] == "near")]
    assert aligned["value"].between(0, 1).all()


def test_an_aligned_tower_is_evaluated_as_a_model_of_its_own(home, done):
    start, end = SUITE.index("discrepancy"), SUITE.index("gap")
    text = SUITE[:start] + SUITE[end : SUITE.index("gates")].replace(
        "centred: {operator: center_renorm", f"near: {{{TOWER}"
    )
    text = text.replace("centred", "near").replace("  closer: {operator: orthogonal_translate}\n", "")
    (home / "tower.yaml").write_text(text)
    ran, said = here(home, "tower", "tower.yaml")
    assert ran.exit_code == 0, ran.failures
    steps = [line.split("] ")[1] for line in said if ", near" in line]
    assert steps.index("align: one on pairs:train, near") < steps.index("embed: one on kinds:test, near")
    assert "embed: one on kinds:train, near" in steps  # of the probe
    kinds = ran.frame[(ran.frame["model"] == "one") & (ran.frame["dataset"] == "kinds")]
    near = kinds[kinds["alignment"] == "near"].set_index("metric")["value"]
    plain = kinds[kinds["alignment"].isna()].set_index("metric")["value"]
    assert "near" not in ran.frame.loc[ran.frame["model"] == "two", "alignment"].unique()  # it is the teacher
    folder = next((home / "store" / "cells").glob("*/alignment/open_clip_config.json")).parent
    assert not (folder / "checkpoints").exists()
    assert not list((home / "store" / "towers").iterdir())
    model, data = load_model(ModelSpec(f"local-dir:{folder}")), load_dataset("wds/kinds", str(home / "kinds"))
    aligned = evaluate(embed(model, data, Store(home / "other"), workers=0), "zeroshot_classification").values
    assert near["acc1"] == pytest.approx(aligned["acc1"], abs=1e-9)
    assert near["gap_centroid_gap"] != plain["gap_centroid_gap"]
    assert {"probe_accuracy", "aligned_changed_decisions"} <= {*near.index}
    weights = json.loads((home / "tower" / "environment.json").read_text())["models"]["one"]["weights"]
    assert weights == load_model(ModelSpec(f"local-dir:{home / 'one'}")).identity["weights"]
    again, said = here(home, "tower again", "tower.yaml")
    assert not [line for line in said if line.startswith("[")]
    assert again.frame.equals(ran.frame)


def _rounded(source: Path, target: Path) -> None:
    target.mkdir()
    (target / "open_clip_config.json").write_bytes((source / "open_clip_config.json").read_bytes())
    weights = load_file(source / "open_clip_model.safetensors")
    rounded = {name: each.astype(np.float16).astype(each.dtype) for name, each in weights.items()}
    save_file(rounded, target / "open_clip_model.safetensors")


def test_the_demos_suite_runs_and_its_gates_tell_what_broke_from_the_control(tmp_path, capsys):
    """With a control in place of one of its models: colour with its weights rounded to half precision."""
    assert cli.main(["init", "--demo", str(tmp_path)]) == 0
    _rounded(tmp_path / "models" / "colour", tmp_path / "models" / "control")
    text = (tmp_path / "suite.yaml").read_text().replace("[[colour, broken]]", "[[colour, broken], [colour, control]]")
    text = text.replace("plain", "control").replace("on: [captions]}", "on: [captions], directions: 3, halves: 10}", 1)
    gates = text[text.index("  - {metric") : text.index("num_workers")]
    (tmp_path / "part.yaml").write_text(text.replace(gates, gates + gates.replace("broken", "control")))
    ran = run_suite(tmp_path / "part.yaml", tmp_path / "out", store=tmp_path / "store")
    assert (ran.exit_code, ran.failures) == (1, {})
    words = {(each.gate.model, each.gate.metric): each.verdict for each in ran.verdicts}
    assert {word for (model, _), word in words.items() if model == "control"} == {"PASS"}
    assert words["broken", "acc1"] == words["broken", "image_retrieval_recall@1"] == "FAIL"
    assert len(words) == 9
    capsys.readouterr()
    assert cli.main(["check", str(tmp_path / "out")]) == 1
    said = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL acc1 of broken on"))
    failed = ran.verdicts[0]
    assert f"fell by {failed.estimate:.4g}, " in said
    assert f"fall of at least {failed.bound:.4g} with " in said
    assert "max_drop is 0.02" in said
    assert 0.02 < failed.bound < failed.estimate < 0.3
    plain = ran.frame[ran.frame["alignment"].isna()].set_index(["model", "metric"])["value"]
    assert plain["colour", "acc1"] > 0.95
    assert plain["broken", "acc1"] < 0.85
    assert plain["broken", "image_retrieval_recall@1"] < plain["colour", "image_retrieval_recall@1"]
    gaps = ran.frame[(ran.frame["task"] == "koda_modality_gap") & (ran.frame["metric"] == "gap_raw_gap_rms")]
    suite = load_suite(tmp_path / "part.yaml").suite
    points = len(suite.models) * (1 + len(suite.alignments))
    assert len(gaps) == points
    predicted = pd.read_csv(ran.folder / "tables" / "gap_against_quality.csv")
    assert predicted.groupby("benchmark")["n"].max()["text_retrieval_recall@1"] == points
    report = (ran.folder / "report.md").read_text()
    assert "## Groups on which broken and colour differ most in accuracy, on captions" in report
    assert report.index("differ most in accuracy") < report.index("## Benchmark ")
    hits = load_outcomes(ran.folder / "outcomes").of(Place("broken", "digits", "zeroshot_classification", "acc1"))[0]
    classes = pd.read_csv(ran.folder / "tables" / "zeroshot_classification_broken_on_digits_test-by_class.csv")
    assert classes["samples"].sum() == len(hits) == 397
    assert (classes["recall"] * classes["samples"]).sum() == pytest.approx(hits.sum())
    frequent = classes["samples"].max() / 397
    assert f"Always guessing the most frequent class would be right for {frequent:.3g} of the images." in report
    assert list((ran.folder / "figures").glob("koda_modality_gap_broken_on_captions_test-gap.png"))
    assert list((ran.folder / "figures").glob("similarity-captions-1.png"))
    assert list((ran.folder / "figures").glob("robustness-captions-0.02.png"))
    assert list((ran.folder / "figures").glob("discrepancy-captions.png"))
    assert "An interval needs 5 models, and there are 4" in report
    assert len(list((ran.folder / "figures").glob("gap-quality-captions-*.png"))) == 2
