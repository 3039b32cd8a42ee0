from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from koda_audit import Embeddings
from koda_audit._files import write_text
from koda_audit.embeddings.files import ALONE, read_shard
from koda_audit.embeddings.rows import Rows
from koda_audit.errors import InputError, StoreError


def sample(n: int = 6) -> Embeddings:
    random = np.random.default_rng(0)
    return Embeddings(
        random.normal(size=(n, 4)).astype(np.float32),
        random.normal(size=(2 * n, 3)).astype(np.float32),
        ids=[f"id {i}/ü" for i in range(n)],
        text_image=np.repeat(np.arange(n), 2),
        captions=[f"caption\t<{i}>\n" for i in range(2 * n)],
        labels=np.arange(n) % 2,
        class_text=random.normal(size=(2, 3)).astype(np.float32),
        class_names=["x", "y"],
        meta={"model": "m"},
    )


def test_round_trip(tmp_path: Path) -> None:
    a = sample()
    a.save(tmp_path / "e")
    b = Embeddings.load(tmp_path / "e")
    assert isinstance(b.image, Rows)
    for name in ("image", "text", "text_image", "labels", "class_text"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert (a.ids, a.captions, a.class_names, a.meta) == (b.ids, b.captions, b.class_names, b.meta)
    sample(3).save(tmp_path / "e")
    assert len(Embeddings.load(tmp_path / "e")) == 3


def test_what_cannot_be_written_leaves_what_is_there(tmp_path: Path) -> None:
    sample().save(tmp_path)
    with pytest.raises(InputError, match="plain JSON types"):
        Embeddings([[1.0]], meta={"a": object()}).save(tmp_path)
    assert len(Embeddings.load(tmp_path)) == 6
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text('{"name": "an app"}')
    with pytest.raises(InputError, match="is not of embeddings"):
        sample().save(tmp_path / "other")
    with pytest.raises(StoreError):
        Embeddings.load(tmp_path / "other" / "manifest.json")


def test_embeddings_under_another_key_are_not_taken(tmp_path: Path) -> None:
    sample().save(tmp_path)
    with pytest.raises(StoreError, match=r"manifest\.json belongs to other embeddings"):
        Embeddings.load(tmp_path, key="a key of a store")
    with pytest.raises(StoreError, match=r"00000\.json belongs to other embeddings"):
        read_shard(tmp_path, 0, "a key of a store")


FILES = ["00000-image.npy", "00000-text.npy", "00000.json", "classes.npy", "manifest.json"]


@pytest.mark.parametrize(
    ("name", "damage"),
    [(name, damage) for name in FILES for damage in ("flip", "truncate", "delete")],
)
def test_damage_is_named(tmp_path: Path, name: str, damage: str) -> None:
    sample().save(tmp_path)
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    if damage == "delete":
        path.unlink()
    else:
        # the last quarter: data, not the header
        content[-len(content) // 4] ^= 1
        path.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    with pytest.raises(StoreError, match=name.replace(".", r"\.")):
        Embeddings.load(tmp_path)


def test_nothing_half_written_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StoreError, match="the disk is full; free some space"):
        sample().save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    sample().save(tmp_path)
    evil = np.array([print], dtype=object)
    np.save(tmp_path / "00000-image.npy", evil, allow_pickle=True)
    record = json.loads((tmp_path / "00000.json").read_text())
    sha256 = hashlib.sha256((tmp_path / "00000-image.npy").read_bytes()).hexdigest()
    record["files"]["00000-image.npy"]["sha256"] = sha256
    (tmp_path / "00000.json").write_text(json.dumps(record))
    with pytest.raises(StoreError, match=r"damaged: .*Python objects"):
        read_shard(tmp_path, 0, ALONE)


def test_loaded_vectors_are_those_that_were_loaded(tmp_path: Path) -> None:
    sample().save(tmp_path)
    loaded = Embeddings.load(tmp_path)
    time.sleep(0.01)
    Embeddings([[1.0]]).save(tmp_path)
    with pytest.raises(StoreError, match=r"00000-image\.npy was written to after .* load them again"):
        np.asarray(loaded.image)
    (tmp_path / "00000-text.npy").unlink()
    with pytest.raises(StoreError, match=r"00000-text\.npy cannot be read: No such file"):
        np.asarray(loaded.text)


def test_a_save_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    sample().save(tmp_path / "source")
    sample(4).save(tmp_path / "good")
    loaded = Embeddings.load(tmp_path / "source")
    (tmp_path / "source" / "00000-image.npy").unlink()
    with pytest.raises(StoreError, match=r"00000-image\.npy cannot be read"):
        loaded.save(tmp_path / "good")
    for wrong in (1e100, 1e-60):
        with pytest.raises(InputError, match="image vectors do not fit into float32"):
            Embeddings([[wrong, wrong]]).save(tmp_path / "good")
    assert len(Embeddings.load(tmp_path / "good")) == 4
    with pytest.raises(InputError, match=r"manifest\.json is a file: choose a folder"):
        sample().save(tmp_path / "good" / "manifest.json")


def test_temporary_files_of_killed_writes_go_and_those_of_others_stay(tmp_path: Path) -> None:
    old, young, other = (tmp_path / name for name in (".a.json.abcdefgh", ".a.json.12345678", ".b.json.abcdefgh"))
    for file in (old, young, other):
        file.touch()
    for file in (old, other):
        os.utime(file, (0, 0))
    write_text(tmp_path / "a.json", "{}")
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([young.name, other.name, "a.json"])
