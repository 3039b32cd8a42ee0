"""The published schema, the tables that stand for code, and the suites that come with the project."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import yaml

import koda_audit.demo
from koda_audit import cli
from koda_audit.registry import alignments
from koda_audit.suite import names, publish
from koda_audit.suite.command import STARTER
from koda_audit.suite.load import load_suite
from koda_audit.suite.schema import Discrepancy, Similarity

ROOT = Path(__file__).parents[2]
TASKS = sorted((ROOT / "tasks").glob("*.yaml"))


def test_published_schema_is_that_of_the_models():
    assert publish.FILE.read_text("utf-8") == publish.published(), "run python -m koda_audit.suite.publish"


def test_table_of_operators_is_that_of_the_operators():
    found = {}
    for name, method in alignments().usable():
        parameters = list(inspect.signature(method.fit).parameters)[1 if method.fitted_on == "images" else 2 :]
        # rows of a set, and a folder: not for a suite
        given = tuple(name for name in parameters if name not in ("focus", "share", "checkpoints"))
        found[name] = (method.fitted_on, given)
    assert {name: found.get(name) for name in names.OPERATORS} == dict(names.OPERATORS)


def test_table_of_towers_is_that_of_their_training():
    from koda_audit.alignment.tower_choice import TRAINERS, settings_of

    # share is of members, which no suite names
    found = {name: {*settings_of(name)} - {"share"} for name in TRAINERS}
    assert {name: {*settings} - {"teacher"} for name, settings in names.TOWERS.items()} == found


def test_defaults_are_those_of_the_functions():
    from koda_audit._similarity.measure import DEFAULT
    from koda_audit.discrepancy.choices import N_FEATURES
    from koda_audit.discrepancy.findings import MIN_STABILITY
    from koda_audit.discrepancy.stability import HALVES

    part = Discrepancy()
    assert (part.n_features, part.min_stability, part.halves) == (N_FEATURES, MIN_STABILITY, HALVES)
    assert tuple(Similarity().measures) == DEFAULT


def test_kernels_and_features_are_those_of_the_functions():
    from koda_audit._kernels.rbf import MODALITIES
    from koda_audit._kernels.table import KERNELS
    from koda_audit.discrepancy.choices import FEATURES

    kinds = {name: get_args(field.annotation) for name, field in Discrepancy.model_fields.items()}
    assert (kinds["kernel"], kinds["features"], kinds["modality"]) == (tuple(KERNELS), FEATURES, tuple(MODALITIES))


def test_collections_and_captioned_datasets_are_the_hosts():
    from clip_benchmark.datasets import builder

    assert names.collections() == builder.dataset_collection
    assert all(builder.get_dataset_default_task(name) == "zeroshot_retrieval" for name in names.CAPTIONED)


def test_a_collection_is_all_of_its_datasets(tmp_path):
    (tmp_path / "suite.yaml").write_text(
        "suite: s\nmodels: {a: {model: ViT-B-32, pretrained: openai}}\n"
        "datasets: {vt: {dataset: vtab, root: 'https://host/wds_{dataset_cleaned}/tree/main'}}\n"
    )
    loaded = load_suite(tmp_path / "suite.yaml")
    found = names.all_data(loaded.suite, loaded.base)["vt"]
    assert len(found) == len(names.collections()["vtab"])
    assert (found[0].key, found[0].root) == ("vt/vtab-caltech101", "https://host/wds_vtab-caltech101/tree/main")


@pytest.mark.parametrize("file", [*TASKS, STARTER], ids=lambda path: path.name)
def test_suites_that_come_with_the_project_are_right(file, capsys):
    code = ["--allow-code"] if "py:" in file.read_text("utf-8").split("models:")[1].split("datasets:")[0] else []
    assert cli.main(["validate", "--static", str(file), *(code if file != STARTER else [])]) == 0
    assert "schema and names are right" in capsys.readouterr().out


def test_there_are_suites():
    assert len(TASKS) >= 6


def test_static_validation_imports_no_torch_and_is_quick():
    line = [sys.executable, "-X", "importtime", "-W", "error", "-m", "koda_audit.cli", "validate", "--static"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*line, str(TASKS[-1])], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    modules = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines()]
    assert not {"torch", "pandas", "open_clip", "clip_benchmark.cli"} & set(modules)
    # microseconds of the interpreter's own account; wall time depends on who else uses the machine
    total = sum(
        int(line.split(":")[1].split("|")[0])
        for line in done.stderr.splitlines()
        if line.startswith("import time:") and "self" not in line
    )
    assert total < 3e6


@pytest.mark.parametrize("file", [*TASKS, STARTER], ids=lambda path: path.name)
def test_a_gate_on_findings_stands_beside_one_on_similarity(file):
    """A fault that moves every sample a little leaves no finding."""
    metrics = {gate["metric"] for gate in yaml.safe_load(file.read_text("utf-8")).get("gates") or ()}
    if {"koda_findings", "koda_reverse_findings"} & metrics:
        assert any(metric.startswith("sim_") for metric in metrics)


def test_init_writes_the_starter_once(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init"]) == 0
    assert (tmp_path / "suite.yaml").read_bytes() == STARTER.read_bytes()
    assert cli.main(["validate", "--static", "suite.yaml"]) == 0
    assert cli.main(["init"]) == 2
    assert "suite.yaml exists" in capsys.readouterr().err


def test_init_writes_the_demo_with_all_it_needs(tmp_path):
    assert cli.main(["init", "--demo", str(tmp_path / "demo")]) == 0
    loaded = load_suite(tmp_path / "demo" / "suite.yaml")
    assert loaded.missing == ()
    assert Path(koda_audit.demo.__file__).with_name("suite.yaml").is_file()
