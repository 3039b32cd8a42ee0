"""The functions of a notebook: embeddings or arrays, a suite as a mapping, an audit read again."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import write_tiny_clip, write_webdataset

import koda_audit
from koda_audit import (
    Embeddings,
    InputError,
    SuiteError,
    embed,
    evaluate,
    gap_robustness,
    load_audit,
    modality_gap,
    run_suite,
    similarity,
)

RANDOM = np.random.default_rng(0)
A, B = (
    Embeddings(RANDOM.normal(size=(20, 5)), RANDOM.normal(size=(20, 5)), ids=[f"s{row}" for row in range(20)])
    for _ in range(2)
)


def units(values):
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_every_public_name_is_there_and_none_imports_torch_before_it_is_used():
    assert all(getattr(koda_audit, name) is not None for name in koda_audit.__all__)
    assert set(koda_audit.__all__) <= set(dir(koda_audit))
    code = "import sys, koda_audit; from koda_audit import KodaAuditError, SuiteError; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_embeddings_are_what_their_arrays_are():
    assert modality_gap(A) == pytest.approx(modality_gap(A.image, A.text), nan_ok=True)
    again = B.take(RANDOM.permutation(20))  # rows are joined on their ids
    for modality, rows in {"image": (A.image, B.image), "text": (A.text, B.text)}.items():
        expected = similarity(*map(units, rows), ["rsa"])
        pd.testing.assert_frame_equal(similarity(A, again, ["rsa"], modality=modality), expected)
    captions = np.arange(20)
    expected = gap_robustness(A.text, A.image, captions, classes=captions, trials=3).frame
    pd.testing.assert_frame_equal(gap_robustness(A, trials=3).frame, expected)
    assert repr(evaluate(A, "zeroshot_retrieval", at=[1])).startswith("Scores(image_retrieval_recall@1 ")


@pytest.mark.parametrize(
    ("call", "key"),
    [
        (lambda: modality_gap(A, A.text), "text beside"),
        (lambda: gap_robustness(A, A.image), "queries beside"),
        (lambda: similarity(A, B, modality="texts"), "modality"),
        (lambda: modality_gap(Embeddings(A.image)), "neither captions nor classes"),
        (lambda: embed("local-dir:/nowhere", "wds/any"), "/nowhere"),
    ],
)
def test_what_does_not_fit_is_one_sentence(call, key):
    with pytest.raises(InputError, match=key) as refused:
        call()
    assert "\n" not in str(refused.value)


def test_a_suite_is_a_mapping_and_its_audit_is_read_again(tmp_path):
    write_tiny_clip(tmp_path / "one")
    write_webdataset(tmp_path / "pairs", n=12)
    gate = {"metric": "image_retrieval_recall@1", "dataset": "pairs", "model": "one", "min": 0.0}
    suite = {
        "suite": "mapping",
        "models": {"one": {"model": f"local-dir:{tmp_path / 'one'}"}, "lost": {"model": "local-dir:/nowhere"}},
        "datasets": {"pairs": {"dataset": "wds/pairs", "root": str(tmp_path / "pairs")}},
        "benchmark": {"tasks": ["zeroshot_retrieval"], "recall_at": [1]},
        "gates": [gate],
        "num_workers": 0,
    }
    done = run_suite(suite, tmp_path / "audit", store=tmp_path / "store")
    again = load_audit(tmp_path / "audit")
    assert done.exit_code == again.exit_code == 2
    assert len(again.failures) == len(done.failures) == 2
    assert again.verdicts == done.verdicts
    assert again.frame["value"].dropna().tolist() == done.frame["value"].dropna().tolist()
    assert repr(again) == repr(done)
    assert "1 PASS" in repr(done)
    assert "<table" in done._repr_html_()
    with pytest.raises(SuiteError, match=r"^suite: benchmark.tasks\[0\]: unknown value 'retrieval': did you mean"):
        run_suite({**suite, "benchmark": {"tasks": ["retrieval"]}})
    vectors = embed(f"local-dir:{tmp_path / 'one'}", "wds/pairs", tmp_path / "pairs", store=tmp_path / "store")
    recall = done.frame.query("model == 'one' and metric == 'text_retrieval_recall@1'")["value"].iloc[0]
    assert evaluate(vectors, "zeroshot_retrieval", at=[1]).values["text_retrieval_recall@1"] == recall
