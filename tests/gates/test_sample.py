"""The committed sample: its baseline is whole, and passes its own gates."""

from __future__ import annotations

from pathlib import Path

import pytest

from koda_audit.gates.check import check

SAMPLE = Path(__file__).parents[2] / "reports" / "demo"


def test_the_sample_passes_its_gates_against_itself():
    found = check(SAMPLE / "baseline", SAMPLE / "baseline", SAMPLE / "gates.yaml")
    assert [each.verdict for each in found.verdicts] == ["PASS"] * 10


@pytest.mark.parametrize(
    ("gate", "verdict"),
    [
        ({"metric": "acc1", "dataset": "digits", "model": "broken", "against": "colour", "max_drop": 0.02}, "FAIL"),
        ({"metric": "acc1", "dataset": "digits", "model": "colour", "against": "plain", "max_drop": 0.02}, "PASS"),
        ({"metric": "no_such", "dataset": "digits", "model": "colour", "min": 0}, "ERROR"),
    ],
)
def test_and_knows_what_broke(gate, verdict):
    assert [each.verdict for each in check(SAMPLE / "baseline", gates=[gate]).verdicts] == [verdict]
