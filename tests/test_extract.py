from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clip_benchmark.metrics.zeroshot_classification import zero_shot_classifier

from koda_audit.data.dataset import Dataset
from koda_audit.data.load import load_dataset
from koda_audit.embeddings import extract, store
from koda_audit.embeddings.extract import embed
from koda_audit.embeddings.store import Store
from koda_audit.errors import DataError, InputError, KodaAuditWarning, ModelError
from koda_audit.models import LoadedModel, ModelSpec, load_model

pytestmark = pytest.mark.filterwarnings("ignore:.*shardshuffle.*")


@pytest.fixture(scope="module")
def model(tiny_clip: Path) -> LoadedModel:
    return load_model(ModelSpec(f"local-dir:{tiny_clip}"))


@pytest.fixture
def only_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that count images: leave out the look at the host's precision."""
    monkeypatch.setattr(extract, "_host_precision_turn", lambda model, dataset: 0.0)


@pytest.fixture
def captions(captions_wds: Path) -> Dataset:
    return load_dataset("wds/any", str(captions_wds))


class Counting:
    """The same model, which counts the images it sees and may spoil some of its output."""

    def __init__(self, encoder: Any, spoil: Callable[[torch.Tensor], torch.Tensor] = lambda x: x) -> None:
        self.encoder, self.spoil, self.images = encoder, spoil, 0

    def encode_image(self, batch: torch.Tensor) -> torch.Tensor:
        self.images += len(batch)
        return self.spoil(self.encoder.encode_image(batch))

    def encode_text(self, tokens: torch.Tensor) -> Any:
        return self.encoder.encode_text(tokens)


def counting(model: LoadedModel, **arguments: Any) -> tuple[LoadedModel, Counting]:
    counter = Counting(model.encoder, **arguments)
    return replace(model, encoder=counter), counter


def test_vectors_are_the_models_own(model: LoadedModel, captions: Dataset, tmp_path: Path) -> None:
    a = embed(model, captions, Store(tmp_path), batch_size=7, quiet=True)
    assert a.ids == tuple(f"s{row:04d}" for row in [*range(0, 20, 2), *range(1, 20, 2)])
    assert a.text_image is not None
    assert np.bincount(a.text_image).tolist() == [2] * 10 + [1] * 10
    images = torch.stack([model.preprocess(captions.samples.read(row)[1]) for row in range(20)])
    with torch.no_grad():
        np.testing.assert_allclose(a.image, model.encoder.encode_image(images).numpy(), atol=1e-6)
        texts = model.encoder.encode_text(model.tokenizer(list(a.captions or ())))
        np.testing.assert_allclose(a.text, texts.numpy(), atol=1e-6)
    assert a.image.dtype == np.float32
    norms = np.linalg.norm(a.image, axis=1)
    assert norms.std() > 1e-3  # raw, not normalised


def test_class_prompts_are_the_hosts_ensemble(model: LoadedModel, classes_wds: Path, tmp_path: Path) -> None:
    dataset = load_dataset("wds/any", str(classes_wds))
    a = embed(model, dataset, Store(tmp_path), quiet=True)
    theirs = zero_shot_classifier(
        model.encoder, model.tokenizer, list(dataset.class_names or ()), dataset.templates, "cpu", amp=False
    )
    np.testing.assert_allclose(a.class_text, theirs.T.numpy(), atol=1e-6)
    assert a.labels is not None
    assert a.labels.tolist() == [row % 3 for row in [*range(0, 20, 2), *range(1, 20, 2)]]


@pytest.mark.parametrize(
    ("first", "asked", "expected"),
    [
        pytest.param(8, 8, [6, 6, 6, 2], id="smaller"),
        pytest.param(64, 64, [14, 6], id="all in one batch"),
        pytest.param(6, 8, [4, 4, 4, 4, 4], id="the store has batches of another size"),
        pytest.param(1, 1, [2] * 10, id="one by one"),
    ],
)
def test_other_batches_are_never_those_of_the_first_time(
    model: LoadedModel,
    captions: Dataset,
    tmp_path: Path,
    first: int,
    asked: int,
    expected: list[int],
    only_what_is_needed: None,
) -> None:
    once = embed(model, captions, Store(tmp_path), batch_size=first, quiet=True)
    sizes: list[int] = []
    recording, _ = counting(model, spoil=lambda batch: (sizes.append(len(batch)), batch)[1])
    again = embed(recording, captions, Store(tmp_path), batch_size=asked, quiet=True, other_batches=True)
    assert sizes == expected
    assert again.ids == once.ids
    np.testing.assert_allclose(again.image, once.image, atol=1e-5)


def test_a_template_that_cannot_be_filled_is_found_before_embedding(
    model: LoadedModel, classes_wds: Path, tmp_path: Path
) -> None:
    dataset = replace(load_dataset("wds/any", str(classes_wds)), templates={"cat": ["a cat"], "dog": ["a dog"]})
    seen: list[torch.Tensor] = []
    encoder, counter = counting(model)
    with pytest.raises(DataError, match="no prompts for class 'bird'"):
        embed(replace(encoder, tokenizer=seen.append), dataset, Store(tmp_path), quiet=True)
    assert not seen
    assert counter.images == 0


def test_host_precision_is_another_entry_and_other_numbers(
    model: LoadedModel, captions: Dataset, tmp_path: Path
) -> None:
    exact = embed(model, captions, Store(tmp_path), quiet=True)
    mixed = embed(model, captions, Store(tmp_path), dtype="host", quiet=True)
    cosine = F.cosine_similarity(torch.tensor(exact.image).double(), torch.tensor(mixed.image).double())
    turn = float((1 - cosine).max())
    assert 1e-7 < turn < 1e-2  # bfloat16 on a CPU
    assert exact.meta["host_precision_turn"] == pytest.approx(turn, rel=0.2)


@pytest.mark.usefixtures("only_what_is_needed")
def test_what_is_there_is_not_computed_again(
    model: LoadedModel, captions: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, counter = counting(model)
    a = embed(first, captions, Store(tmp_path), quiet=True)
    b = embed(first, captions, Store(tmp_path), quiet=True)
    assert counter.images == 20
    np.testing.assert_array_equal(a.image, b.image)
    upgraded = {**store.library_versions(), "pillow": "99.0"}
    monkeypatch.setattr(extract, "library_versions", lambda: upgraded)
    embed(first, captions, Store(tmp_path), quiet=True)
    assert counter.images == 40  # an upgraded library is another key


@pytest.mark.usefixtures("only_what_is_needed")
def test_an_entry_under_another_ones_name_is_not_served(model: LoadedModel, captions: Dataset, tmp_path: Path) -> None:
    counted, counter = counting(model)
    before = np.array(embed(counted, captions, Store(tmp_path), quiet=True).image)
    embed(counted, captions, Store(tmp_path), dtype="host", quiet=True)
    exact, mixed = (Store(tmp_path).path(extract.ingredients(model, captions, dtype)) for dtype in ("fp32", "host"))
    shutil.rmtree(exact)
    shutil.copytree(mixed, exact)
    with pytest.warns(KodaAuditWarning, match="belongs to other embeddings; it is extracted again"):
        after = embed(counted, captions, Store(tmp_path), quiet=True)
    assert counter.images == 60
    np.testing.assert_array_equal(before, after.image)


@pytest.mark.parametrize("change", ["weights", "preprocess", "tokenizer", "architecture"])
def test_every_part_of_the_model_is_in_the_key(model: LoadedModel, captions: Dataset, change: str) -> None:
    other = replace(model, identity={**model.identity, change: "different"})
    assert extract.ingredients(model, captions, "fp32") != extract.ingredients(other, captions, "fp32")


@pytest.mark.parametrize("change", ["fingerprint", "split", "language", "templates", "class_names", "name", "kind"])
def test_every_part_of_the_data_is_in_the_key(model: LoadedModel, captions: Dataset, change: str) -> None:
    other = replace(captions, **{change: "different"})
    assert extract.ingredients(model, captions, "fp32") != extract.ingredients(model, other, "fp32")


@pytest.mark.usefixtures("only_what_is_needed")
def test_a_damaged_shard_is_named_and_extracted_again(
    model: LoadedModel,
    captions: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(extract, "ROWS_PER_SHARD", 8)
    counted, counter = counting(model)
    before = np.array(embed(counted, captions, Store(tmp_path), quiet=True).image)
    damaged = next(tmp_path.glob("*/00001-image.npy"))
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with pytest.warns(KodaAuditWarning, match=r"00001-image\.npy differs from its checksum; it is extracted again"):
        after = embed(counted, captions, Store(tmp_path), quiet=True)
    assert counter.images == 20 + 8
    np.testing.assert_array_equal(before, after.image)


@pytest.mark.parametrize(("value", "fault"), [(float("nan"), "not finite"), (0.0, "all zero")])
def test_a_bad_row_names_its_sample_and_leaves_nothing(
    model: LoadedModel, captions: Dataset, tmp_path: Path, value: float, fault: str
) -> None:
    def spoil(vectors: torch.Tensor) -> torch.Tensor:
        return vectors.index_fill(0, torch.tensor([3]), value)

    with pytest.raises(DataError, match=f"image embedding of sample 's0006' is {fault}"):
        embed(counting(model, spoil=spoil)[0], captions, Store(tmp_path), quiet=True)
    assert not list(tmp_path.glob("*/*.npy"))


def test_a_model_that_fails_is_named(model: LoadedModel, captions: Dataset, tmp_path: Path) -> None:
    flat, _ = counting(model, spoil=lambda x: x.sum(1))
    with pytest.raises(ModelError, match=r"'tiny': encode_image gives \(20,\), expected \(20, width\)"):
        embed(flat, captions, Store(tmp_path), quiet=True)
    wrong, _ = counting(model, spoil=lambda x: x @ x)
    with pytest.raises(ModelError, match=r"'tiny, images of s0000 … s0019' fails: RuntimeError: .*20x16"):
        embed(wrong, captions, Store(tmp_path), quiet=True)


def test_an_unwritable_store_is_found_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"the embedding store .* cannot be written"):
        Store(tmp_path / "file" / "store")


SLOW = """
import sys, time
from pathlib import Path
from dataclasses import replace
from koda_audit.data.load import load_dataset
from koda_audit.embeddings import extract
from koda_audit.embeddings.store import Store
from koda_audit.models import ModelSpec, load_model

extract.ROWS_PER_SHARD = 4
extract._host_precision_turn = lambda model, dataset: 0.0
model = load_model(ModelSpec("local-dir:" + sys.argv[1]))

class Slow:
    encode_text = model.encoder.encode_text
    images = 0
    def encode_image(self, batch):
        time.sleep(float(sys.argv[4]))
        Slow.images += len(batch)
        return model.encoder.encode_image(batch)

a = extract.embed(replace(model, encoder=Slow()), load_dataset("wds/any", sys.argv[2]), Store(Path(sys.argv[3])),
                  batch_size=4)
print("computed", Slow.images, "sum", a.image.sum())
"""


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-c", SLOW, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)


def computed(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    found = re.search(r"computed (\d+) sum (\S+)", out)
    assert found, err
    return int(found[1]), found[2], err


def test_killed_and_run_again_does_only_what_is_missing(tiny_clip: Path, captions_wds: Path, tmp_path: Path) -> None:
    whole = computed(start(tiny_clip, captions_wds, tmp_path / "whole", 0))
    assert whole[0] == 20
    killed = start(tiny_clip, captions_wds, tmp_path / "store", 1)
    deadline = time.monotonic() + 100
    while len(list((tmp_path / "store").glob("*/0*.json"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    images, total, _ = computed(start(tiny_clip, captions_wds, tmp_path / "store", 0))
    assert images in (12, 8)  # two or three of the five shards were there
    assert total == whole[1]
    assert not list(tmp_path.glob("store/*/.*"))  # what the kill cut off is cleared away


def test_two_audits_on_one_store(tiny_clip: Path, captions_wds: Path, tmp_path: Path) -> None:
    both = [start(tiny_clip, captions_wds, tmp_path, 0.3) for _ in range(2)]
    results = [computed(process) for process in both]
    assert sorted(images for images, _, _ in results) == [0, 20]
    assert results[0][1] == results[1][1]
