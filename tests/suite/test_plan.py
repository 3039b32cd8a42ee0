"""Which cells a suite has, in which order, and what they need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from koda_audit._stats.clusters import mean_interval
from koda_audit.errors import InputError
from koda_audit.suite.cells import Cells
from koda_audit.suite.load import load_suite
from koda_audit.suite.plan import Plan

HEAD = """\
suite: s
models: {a: {model: "local-dir:a"}, b: {model: "local-dir:b"}, c: {model: "local-dir:c"}}
datasets:
  pairs: {dataset: wds/p, root: p, task: zeroshot_retrieval}
  kinds: {dataset: wds/k, root: k, task: zeroshot_classification}
"""


def planned(tmp_path: Path, text: str, head: str = HEAD) -> list[str]:
    (tmp_path / "suite.yaml").write_text(head + text)
    plan = Plan(load_suite(tmp_path / "suite.yaml"), Cells(tmp_path / "cells"))
    assert all(need in plan.cells[:number] for number, cell in enumerate(plan.cells) for need in cell.needs)
    assert not any(plan.done(cell) for cell in plan.cells)
    return [cell.name for cell in plan.cells]


def test_first_listed_is_the_reference_and_each_model_is_loaded_once(tmp_path):
    found = planned(tmp_path, "similarity: {on: [pairs], floor: none}\n")
    assert found == [
        *(f"embed: {model} on pairs:test" for model in "abc"),
        "koda_similarity: b against a on pairs:test",
        "koda_similarity: c against a on pairs:test",
        "koda_similarity: c against b on pairs:test",
    ]


def test_pairs_are_reference_then_model(tmp_path):
    found = planned(tmp_path, "similarity: {on: [pairs], pairs: [[c, a]]}\n")
    assert found[-1] == "koda_similarity: a against c on pairs:test"


def test_floor_embeds_twice_and_none_does_not(tmp_path):
    text = "discrepancy: {on: [pairs], pairs: [[a, b]]}\n"
    assert sum("in other batches" in name for name in planned(tmp_path, text)) == 2
    assert len(planned(tmp_path, text.replace("}", ", floor: none}"))) == 3


def test_tasks_run_where_the_data_have_what_they_need(tmp_path):
    text = "benchmark: {tasks: [zeroshot_classification, zeroshot_retrieval, linear_probe, clustering]}\n"
    found = [name for name in planned(tmp_path, text) if ": a on" in name]
    assert found == [
        "embed: a on pairs:test",
        "embed: a on kinds:test",
        "embed: a on kinds:train",
        "zeroshot_retrieval: a on pairs:test",
        "zeroshot_classification: a on kinds:test",
        "linear_probe: a on kinds:test",
        "clustering: a on kinds:test",
    ]


def test_clusters_are_counted_where_there_are_no_classes(tmp_path):
    found = planned(tmp_path, "benchmark: {tasks: [clustering], clusters: 3, on: [pairs]}\n")
    assert "clustering: a on pairs:test" in found


def test_alignments_are_fitted_once_a_model(tmp_path):
    text = (
        'alignments: {m: {operator: center, fit_on: "pairs:train"}, t: {operator: orthogonal_translate}}\n'
        "benchmark: {tasks: [zeroshot_retrieval, linear_probe]}\n"
    )
    found = planned(tmp_path, text)
    assert sum(name == "align: a on pairs:train, m" for name in found) == 1
    assert "align: a on pairs:test, t" in found
    assert "linear_probe: a on kinds:test, m" in found
    assert "linear_probe: a on kinds:test, t" not in found  # it would have no rows to train on


def test_a_suite_of_models_and_data_alone_embeds_them(tmp_path):
    assert len(planned(tmp_path, "")) == 6


def test_names_that_would_share_a_file_are_refused(tmp_path):
    head = HEAD.replace("c: {model", "A: {model")
    with pytest.raises(InputError, match="would write the same files"):
        planned(tmp_path, "gap: {on: [pairs]}\n", head)


def test_keys_follow_files_and_options(tmp_path):
    for name in ("a", "p/test"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a" / "open_clip_config.json").write_text("{}")
    (tmp_path / "p" / "test" / "0.tar").write_bytes(b"x")

    def key() -> str | None:
        (tmp_path / "suite.yaml").write_text(HEAD + "gap: {on: [pairs]}\n")
        plan = Plan(load_suite(tmp_path / "suite.yaml"), Cells(tmp_path / "cells"))
        assert plan.key(plan.cells[-1]) is None  # not known before what it needs was embedded
        return plan.key(plan.cells[0])

    first = key()
    assert key() == first
    (tmp_path / "p" / "test" / "0.tar").write_bytes(b"xy")
    second = key()
    (tmp_path / "a" / "weights.bin").write_bytes(b"x")
    assert len({first, second, key()}) == 3


def test_interval_covers_as_often_as_it_says():
    """Clusters of 1 to 3 queries that share much; the oracle draws samples from the truth."""
    random = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        image = np.repeat(np.arange(60), random.integers(1, 4, 60))
        shared = random.uniform(size=60)
        values = (random.uniform(size=len(image)) < shared[image]).astype(float)
        low, high = mean_interval(values, image, seed=trial)
        covered += low <= 0.5 <= high
    assert 0.88 <= covered / 200 <= 0.985


def test_interval_is_wider_where_queries_belong_together():
    values = np.repeat([0.0, 1.0] * 20, 5)
    alone, together = mean_interval(values, np.arange(200)), mean_interval(values, np.repeat(np.arange(40), 5))
    assert together[1] - together[0] > 1.8 * (alone[1] - alone[0])
