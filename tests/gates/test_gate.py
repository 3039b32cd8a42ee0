"""Gates from plain records and from files: what is wrong is named, all of it, with its line."""

from __future__ import annotations

import json

import pytest

from koda_audit.errors import InputError
from koda_audit.gates.gate import Gate, gate_of, read_gates

GOOD = {"metric": "acc1", "dataset": "cifar", "model": "new", "against": "old", "max_drop": 0.01}


def test_a_record_is_a_gate():
    gate = gate_of(GOOD)
    assert gate == Gate("acc1", "cifar", "new", against="old", max_drop=0.01)
    assert (gate.kind, gate.tolerance, gate.level, gate.compares) == ("max_drop", 0.01, 0.05, True)
    assert not gate_of({"metric": "a", "dataset": "b", "model": "c", "min": -1}).compares


BAD = {
    "unknown key": ({"max_dorp": 0.1}, "unknown key of a gate 'max_dorp': did you mean 'max_drop'"),
    "two tolerances": ({"min": 0.5}, "exactly one of max_drop, max_rise, min, max, found max_drop and min"),
    "no tolerance": ({"max_drop": None}, "found none"),
    "points of 100": ({"max_drop": 2}, "is never exceeded: acc1 changes by at most 1; write 0.02 for 2 points of 100"),
    "negative": ({"max_drop": -0.1}, "a number of 0 or more, found -0.1"),
    "not a number": ({"max_drop": "1 %"}, "a number of 0 or more, found '1 %'"),
    "truth": ({"max_drop": True}, "a number of 0 or more, found True"),
    "nan": ({"max_drop": float("nan")}, "a number of 0 or more, found nan"),
    "infinite": ({"max_drop": None, "max": float("inf")}, "max must be a number, found inf"),
    "level 0": ({"level": 0}, "level must be 0.0001 or more and below 0.5"),
    "level a half": ({"level": 0.5}, "level must be 0.0001 or more and below 0.5"),
    "level a text": ({"level": "5 %"}, "level must be 0.0001 or more and below 0.5"),
    "metric a number": ({"metric": 1}, "metric must be a text, found 1"),
    "empty model": ({"model": ""}, "model must be a text"),
    "empty task": ({"task": ""}, "task must be a text"),
    "against itself": ({"against": "new"}, "nothing to compare"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_record_says_what_is_wrong(name):
    change, said = BAD[name]
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        gate_of({**GOOD, **change})


@pytest.mark.parametrize("name", ["metric", "dataset", "model"])
def test_what_is_missing_is_named(name):
    with pytest.raises(InputError, match=f"{name} is missing"):
        gate_of({key: value for key, value in GOOD.items() if key != name})


@pytest.mark.parametrize("record", [5, None, "acc1", [GOOD]])
def test_a_gate_is_a_mapping(record):
    with pytest.raises(InputError, match="must be a mapping"):
        gate_of(record)


def test_a_suite_a_list_and_json_hold_the_same_gates(tmp_path):
    text = "  - {metric: acc1, dataset: no, model: new, against: old, max_drop: 1e-2}\n"
    (tmp_path / "suite.yaml").write_text("suite: s\nmodels: {}\ngates:\n" + text)
    (tmp_path / "list.yaml").write_text(text)
    (tmp_path / "gates.json").write_text(json.dumps([{**GOOD, "dataset": "no"}], indent=1))
    # words and numbers as in suites: no is a name, and 1e-2 a number
    expected = [Gate("acc1", "no", "new", against="old", max_drop=0.01)]
    assert [read_gates(tmp_path / name) for name in ("suite.yaml", "list.yaml", "gates.json")] == [expected] * 3


def test_all_faults_of_a_file_with_their_lines(tmp_path):
    file = tmp_path / "gates.yaml"
    file.write_text(
        "gates:\n"
        "  - {metric: acc1, dataset: cifar, model: new, max_dorp: 0.1}\n"
        "  - {metric: acc1, dataset: cifar, model: new, max: 1}\n"
        "  - metric: acc1\n    dataset: cifar\n    max: 1\n"
    )
    with pytest.raises(InputError) as raised:
        read_gates(file)
    first, second = str(raised.value).splitlines()
    assert first.startswith(f"{file}:2: gates[0]: unknown key of a gate 'max_dorp': did you mean 'max_drop'")
    assert second.startswith(f"{file}:4: gates[2]: a gate needs metric, dataset and model: model is missing")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gates: []\n", "holds no gates"),
        ("suite: s\n", "holds no gates"),
        ("[]", "holds no gates"),
        ("5", "holds no gates"),
        ("gates: {acc1: 1}\n", "holds no gates"),
        ("gates: [\n", ":2: no YAML"),
        ("gates: !!python/object/apply:os.system [ls]\n", "plain values only"),
        ("", "is empty"),
    ],
)
def test_files_that_hold_no_gates(tmp_path, text, said):
    (tmp_path / "gates.yaml").write_text(text)
    with pytest.raises(InputError, match=said):
        read_gates(tmp_path / "gates.yaml")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"nope\.yaml cannot be read"):
        read_gates(tmp_path / "nope.yaml")
