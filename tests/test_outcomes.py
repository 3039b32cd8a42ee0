"""Per-sample outcomes on disk: what is written comes back, and nothing damaged does."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koda_audit._files import file_sha256
from koda_audit.errors import InputError, StoreError
from koda_audit.outcomes import Cell, Outcomes, load_outcomes, save_outcomes

ACC = Cell("a", "cifar", "zeroshot_classification", "acc1")
ACC5 = Cell("a", "cifar", "zeroshot_classification", "acc5")
ALIGNED = Cell("a", "cifar", "zeroshot_classification", "acc1", "centred")
RECALL = Cell("a", "../coco | \x1b[31m", "zeroshot_retrieval", "image_retrieval_recall@1")
IDS = {"cifar": ["x", "y", "z"], RECALL.dataset: ["x", "p"]}
WHOLE = {
    ACC: ([1.0, 0.0, 1.0], [0, 1, 2]),
    ACC5: ([1.0, 1.0, 1.0], [0, 1, 2]),
    ALIGNED: ([0.25, 0.0, 1.0], [0, 1, 2]),
    RECALL: ([1.0, 0.0, 0.5], [1, 0, 1]),
}


def test_what_is_written_comes_back(tmp_path):
    folder = tmp_path / "outcomes"
    save_outcomes(folder, WHOLE, IDS)
    found = load_outcomes(folder)
    assert found.cells() == tuple(WHOLE)
    values, samples = found.of(RECALL)
    assert (values.tolist(), samples.tolist()) == ([1.0, 0.0, 0.5], ["p", "x", "p"])
    assert found.of(ALIGNED)[0].tolist() == [0.25, 0.0, 1.0]
    # one file a dataset and the index, all inside, whatever a dataset is called
    assert sorted(path.name[:4] for path in folder.iterdir()) == ["000-", "001-", "inde"]
    assert list(tmp_path.iterdir()) == [folder]


def test_cells_of_the_same_samples_share_their_rows(tmp_path):
    n = 5000
    ids = {"cifar": [str(i) for i in range(n)]}
    save_outcomes(tmp_path / "1", {ACC: (np.ones(n), np.arange(n))}, ids)
    save_outcomes(tmp_path / "2", {ACC: (np.ones(n), np.arange(n)), ACC5: (np.ones(n), np.arange(n))}, ids)
    sizes = [next((tmp_path / name).glob("*.safetensors")).stat().st_size for name in "12"]
    assert sizes[1] - sizes[0] < 4 * n + 500  # four bytes a query


def test_a_folder_that_does_not_exist_has_none(tmp_path):
    assert load_outcomes(tmp_path / "none").cells() == ()


def test_writing_again_replaces(tmp_path):
    save_outcomes(tmp_path, WHOLE, IDS)
    save_outcomes(tmp_path, {ACC: ([0.0], [2])}, IDS)
    assert load_outcomes(tmp_path).cells() == (ACC,)


BAD = [
    ([1.0, -0.5], [0, 1], "finite numbers from 0"),
    ([1.0, float("nan")], [0, 1], "finite numbers from 0"),
    ([1.0, float("inf")], [0, 1], "finite numbers from 0"),
    (["1", "0"], [0, 1], "finite numbers from 0"),
    ([1.0, 0.0], [0, 3], "below 3"),
    ([1.0, 0.0], [0, -1], "below 3"),
    ([1.0, 0.0], [0.0, 1.0], "below 3"),
    ([1.0], [0, 1], "expected"),
    ([], [], "expected"),
    ([[1.0]], [[0]], "expected"),
]


@pytest.mark.parametrize(("values", "rows", "said"), BAD)
def test_bad_outcomes_are_refused_before_anything_is_written(tmp_path, values, rows, said):
    with pytest.raises(InputError, match=f"acc1, model 'a', dataset 'cifar': .*{said}"):
        save_outcomes(tmp_path / "outcomes", {ACC: (values, rows)}, IDS)
    assert not (tmp_path / "outcomes").exists()


@pytest.mark.parametrize("ids", [{"cifar": ["x", "x", "z"]}, {"cifar": ["x", "y", 3]}])
def test_ids_are_unique_texts(ids):
    with pytest.raises(InputError, match="sample ids of dataset 'cifar'"):
        Outcomes({ACC: WHOLE[ACC]}, ids)


def test_a_dataset_without_ids_is_refused():
    with pytest.raises(InputError, match="below 0"):
        Outcomes({ACC: WHOLE[ACC]}, {})


def edit(folder, change):
    record = json.loads((folder / "index.json").read_text("utf-8"))
    change(record)
    (folder / "index.json").write_text(json.dumps(record), "utf-8")


def shorten(folder):
    path = next(folder.glob("000*.safetensors"))
    path.write_bytes(path.read_bytes()[:-2])


def shorten_and_sign(folder):
    shorten(folder)
    path = next(folder.glob("000*.safetensors"))
    edit(folder, lambda record: record["datasets"]["cifar"].update(sha256=file_sha256(path)))


DAMAGE = {
    "file cut": (shorten, "differs from its checksum"),
    "file cut, checksum as well": (shorten_and_sign, "is damaged"),
    "file gone": (lambda folder: next(folder.glob("*.safetensors")).unlink(), "missing"),
    "index gone": (lambda folder: (folder / "index.json").unlink(), "cannot be read"),
    "index no JSON": (lambda folder: (folder / "index.json").write_text("{"), "is damaged"),
    "index binary": (lambda folder: (folder / "index.json").write_bytes(b"\xff\xfe"), "is damaged"),
    "index a list": (lambda folder: (folder / "index.json").write_text("[]"), "is damaged"),
    "index deep": (lambda folder: (folder / "index.json").write_text("[" * 100_000), "is damaged"),
    "other format": (lambda folder: edit(folder, lambda record: record.update(format="2")), "has format '2'"),
    "an id less": (lambda folder: edit(folder, lambda r: r["datasets"]["cifar"]["ids"].pop()), "below 2"),
    "no ids": (lambda folder: edit(folder, lambda r: r["datasets"]["cifar"].pop("ids")), "is damaged"),
    "tensor unknown": (lambda folder: edit(folder, lambda r: r["cells"][0].update(values="no")), "is damaged"),
    "rows as values": (lambda folder: edit(folder, lambda r: r["cells"][0].update(values="rows-0")), "are int32"),
    "cell key unknown": (lambda folder: edit(folder, lambda r: r["cells"][0].update(x=1)), "is damaged"),
    "file elsewhere": (
        lambda folder: edit(folder, lambda r: r["datasets"]["cifar"].update(file="../../etc/passwd")),
        "not beside it",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_one_sentence_that_names_the_file(tmp_path, name):
    harm, said = DAMAGE[name]
    save_outcomes(tmp_path, WHOLE, IDS)
    harm(tmp_path)
    with pytest.raises(StoreError, match=said) as raised:
        load_outcomes(tmp_path)
    assert str(tmp_path) in str(raised.value)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.integers(0, 4)), min_size=1, max_size=20), st.text(min_size=1))
def test_any_outcomes_of_any_names_come_back(tmp_path_factory, queries, name):
    name = name.encode("utf-8", "replace").decode()
    cell = Cell(name, name, name, name, name)
    values, rows = zip(*queries, strict=True)
    folder = tmp_path_factory.mktemp("outcomes")
    save_outcomes(folder, {cell: (values, rows)}, {name: list("abcde")})
    found, samples = load_outcomes(folder).of(cell)
    assert found.tolist() == list(values)
    assert samples.tolist() == ["abcde"[row] for row in rows]
