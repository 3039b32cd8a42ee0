"""What the version before one road wrote (tests/historic): it still loads, or says why not."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from koda_audit import Embeddings, check, load_alignment
from koda_audit.embeddings.store import Store
from koda_audit.errors import InputError
from koda_audit.gates.gate import Gate
from koda_audit.gates.judge import judge
from koda_audit.gates.run import Run
from koda_audit.report.write import check_replaceable

HISTORIC = Path(__file__).parent / "historic"
GATE = Gate("image_retrieval_recall@1", "pairs", "two", max_drop=0.5)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(Path(shutil.copytree(HISTORIC / "store", tmp_path / "store")))


def test_embeddings_load(store):
    folders = [path.parent for path in store.folder.glob("*/manifest.json")]
    found = [store.complete(folder) for folder in folders]
    assert len(found) == 2
    assert all(one is not None and one.image.shape == (24, 16) and np.isfinite(one.image).all() for one in found)


def test_an_audit_is_judged_by_its_own_gates_and_may_be_replaced():
    assert check(HISTORIC / "audit").exit_code == 0
    check_replaceable(HISTORIC / "audit")


def test_an_audit_is_held_against_a_baseline_of_its_time():
    (verdict,) = judge([GATE], HISTORIC / "audit", HISTORIC / "baseline")
    assert verdict.verdict == "PASS"


def test_a_number_of_today_is_not_compared_with_one_that_was_signed_otherwise():
    then = Run.read(HISTORIC / "audit")
    now = Run([{**row, "protocol": "0" * 12} for row in then.rows], then.load, protocols={"0" * 12: {"task": "x"}})
    (verdict,) = judge([GATE], now, HISTORIC / "baseline")
    assert verdict.verdict == "ERROR"
    assert "measured by another protocol" in verdict.sentence
    assert "accept a new baseline" in verdict.sentence


def test_an_alignment_loads_and_is_applied(store):
    fitted = load_alignment(HISTORIC / "alignment")
    rows = [store.complete(path.parent) for path in store.folder.glob("*/manifest.json")]
    one = next(each for each in rows if each.meta["ingredients"]["model"]["weights"].startswith("91292034e7d61b65"))
    assert (fitted.name, fitted.info["samples"]) == ("center", 24)
    with pytest.raises(InputError, match="24 of 24 samples were used to fit"):
        fitted.apply(one)
    halved = Embeddings(2 * one.image, 2 * one.text, text_image=one.text_image, meta=one.meta)
    assert fitted.apply(halved).image.shape == (24, 16)
