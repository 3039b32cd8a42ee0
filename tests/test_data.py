from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from clip_benchmark.datasets.builder import build_dataset
from conftest import write_webdataset
from PIL import Image

from koda_audit.data.dataset import batches
from koda_audit.data.host import HostSamples
from koda_audit.data.load import check_dataset, load_dataset
from koda_audit.data.prompts import class_prompts, custom_class_names, custom_templates
from koda_audit.data.webdataset import TarSamples, local_shards, read_text
from koda_audit.errors import DataError, InputError, KodaAuditError, KodaAuditWarning, ModelError

# webdataset warns about its own default at every construction, and leaves the shards it read open
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*shardshuffle.*"),
    pytest.mark.filterwarnings("ignore:.*FileIO:pytest.PytestUnraisableExceptionWarning"),
]


def pixels(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image).copy())


@pytest.mark.parametrize("kind", ["captions", "classes"])
def test_a_webdataset_holds_what_the_unmodified_host_reads(kind: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(f"{kind}_wds")
    task = "zeroshot_retrieval" if kind == "captions" else "zeroshot_classification"
    theirs = list(build_dataset("wds/any", root=str(root), transform=pixels, split="test", task=task))
    ours = load_dataset("wds/any", str(root))
    assert ours.kind == kind
    assert len(ours.samples) == len(theirs) == 20
    for row, (image, target) in enumerate(theirs):
        sample, mine, mine_target = ours.samples.read(row)
        assert sample == f"s{(row % 10) * 2 + row // 10:04d}"
        assert torch.equal(pixels(mine), image)
        assert (list(mine_target) if kind == "captions" else mine_target) == target
    if kind == "classes":
        assert ours.class_names == ("cat", "dog", "bird")
        assert ours.templates == ["a photo of a {c}", "a drawing of a {c}"]


def test_batches_keep_the_order_whatever_the_workers(captions_wds: Path) -> None:
    dataset = load_dataset("wds/any", str(captions_wds))
    groups = [range(start, start + 2) for start in range(0, 20, 2)]
    runs = []
    for workers in (0, 2):
        found = list(batches(dataset, groups, pixels, workers))
        runs.append(([i for ids, _, _ in found for i in ids], torch.cat([images for _, images, _ in found])))
    assert runs[0][0] == runs[1][0]
    assert torch.equal(runs[0][1], runs[1][1])


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    first = load_dataset("wds/a", str(write_webdataset(tmp_path / "a"))).fingerprint
    assert load_dataset("wds/b", str(write_webdataset(tmp_path / "b"))).fingerprint == first
    assert load_dataset("wds/c", str(write_webdataset(tmp_path / "c", n=18))).fingerprint != first


def test_a_folder_of_images_by_class(tmp_path: Path) -> None:
    for name, colour in {"t-shirt/x.png": "red", "t-shirt/sub/y.jpg": "blue", "hat/z.webp": "green"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 9), colour).save(tmp_path / name)
    dataset = load_dataset("folder/mine", str(tmp_path))
    assert dataset.class_names == ("hat", "t shirt")
    assert [dataset.samples.read(row)[::2] for row in range(3)] == [
        ("hat/z.webp", 0),
        ("t-shirt/sub/y.jpg", 1),
        ("t-shirt/x.png", 1),
    ]
    with pytest.raises(InputError, match="has no split 'train', its class folders are the split 'test'"):
        load_dataset("folder/mine", str(tmp_path), "train")
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"mine": ["cap", "top"]}))
    assert load_dataset("folder/mine", str(tmp_path), classname_file=str(names)).class_names == ("cap", "top")
    names.write_text(json.dumps({"mine": ["cap"]}))
    with pytest.raises(InputError, match=r"names 1 classes for 'folder/mine', .* has 2 class folders"):
        load_dataset("folder/mine", str(tmp_path), classname_file=str(names))
    (tmp_path / "hat" / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.png is no readable image"):
        list(batches(load_dataset("folder/mine", str(tmp_path)), [[0, 1]], pixels, 0))


def test_any_indexed_dataset_of_the_host_is_known_by_its_images(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    hashes = []
    for number in range(4):
        array = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        path = tmp_path / "test" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
        hashes.append(hashlib.sha256(b"RGB (8, 8)" + array.tobytes()).hexdigest()[:20])
    dataset = load_dataset("fer2013", str(tmp_path))
    assert [dataset.samples.read(row)[0] for row in range(4)] == [hashes[0], hashes[2], hashes[1], hashes[3]]
    assert dataset.class_names is not None
    assert "angry" in dataset.class_names
    images = dataset.images([hashes[2]], [hashes[0], hashes[2], hashes[1], hashes[3]])
    assert images[hashes[2]].size == (8, 8)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar11", "unknown dataset 'cifar11': did you mean .*'cifar10"),
        ("wds/x", "there is no folder .*nowhere"),
        ("folder/x", "there is no folder .*nowhere"),
    ],
)
def test_a_wrong_name_is_found_before_any_work(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_dataset(name, "/nowhere")


@pytest.mark.parametrize(
    "name", ["cifar10", "mscoco_captions", "vtab/cifar100", "wds/x", "sugar_crepe/add_att", "dummy"]
)
def test_the_names_of_the_host_are_known(name: str, tmp_path: Path) -> None:
    check_dataset(name, str(write_webdataset(tmp_path, n=1, shards=1)), "test")


def test_damaged_webdatasets_are_named(tmp_path: Path) -> None:
    root = write_webdataset(tmp_path / "w")
    (root / "test" / "1.tar").unlink()
    with pytest.raises(DataError, match=r"1\.tar is missing: .*there are 2 shards"):
        load_dataset("wds/w", str(root))
    (root / "test" / "1.tar").write_bytes(b"not a tar" * 200)
    with pytest.raises(DataError, match=r"1\.tar cannot be read as a webdataset shard"):
        load_dataset("wds/w", str(root))
    (root / "test" / "nshards.txt").unlink()
    with pytest.raises(DataError, match=r"nshards\.txt"):
        load_dataset("wds/w", str(root))
    with pytest.raises(DataError, match=r"row 0 of dataset 'dummy' is a Tensor, expected one image"):
        load_dataset("dummy", str(tmp_path))


def image_bytes(mode: str = "RGB", form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (8, 9)).save(stream, form)
    return stream.getvalue()


PNG = image_bytes()


def write_shard(path: Path, members: list[tuple[str, bytes]]) -> Path:
    """A dataset of one shard: ``path`` is its root."""
    (path / "test").mkdir(parents=True)
    with tarfile.open(path / "test" / "0.tar", "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    (path / "test" / "nshards.txt").write_text("1")
    return path


GOOD = [("a.png", PNG), ("a.txt", b"caption"), ("b.png", PNG), ("b.txt", b"caption")]
# a.png and a.txt: a header and a block each
FIRST_SAMPLE = 2 * 512 + 512 * -(-len(PNG) // 512) + 512


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (lambda raw: raw[:0], "cannot be read as a webdataset shard: empty file"),
        (lambda raw: raw[:100], "cannot be read as a webdataset shard"),
        (lambda raw: raw[: FIRST_SAMPLE - 1], "cannot be read as a webdataset shard: unexpected end of data"),
        (lambda raw: raw[:FIRST_SAMPLE], "is cut off"),
        (lambda raw: raw[: FIRST_SAMPLE + 100], "is cut off"),
        (lambda raw: raw[: 2 * FIRST_SAMPLE], "is cut off"),
        (lambda raw: raw[:FIRST_SAMPLE] + b"x" * 512 + raw[FIRST_SAMPLE + 512 :], f"is damaged at byte {FIRST_SAMPLE}"),
        (lambda raw: raw + raw, "holds a second archive"),
        (lambda raw: raw[: 2 * FIRST_SAMPLE + 512], None),  # some writers leave out the second block of the mark
        (lambda raw: raw, None),
    ],
)
def test_a_shard_that_is_not_whole_is_named(
    keep: Callable[[bytes], bytes], message: str | None, tmp_path: Path
) -> None:
    shard = write_shard(tmp_path, GOOD) / "test" / "0.tar"
    shard.write_bytes(keep(shard.read_bytes()))
    if message is None:
        assert len(TarSamples([shard], "txt")) == 2
    else:
        with pytest.raises(DataError, match=rf"0\.tar {message}"):
            TarSamples([shard], "txt")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([*GOOD, ("a.PNG", PNG)], r"0\.tar holds 'a\.png' twice: .*before the first dot"),
        ([*GOOD, ("c.gif", PNG), ("c.txt", b"x")], r"'c' of .*0\.tar has no image \(\.webp.*\); it holds \.gif, \.txt"),
        ([*GOOD, ("c.txt", b"x")], r"'c' of .*0\.tar has no image"),
        ([("a.b1.png", PNG), ("a.b1.txt", b"x")], r"'a' of .* holds \.b1\.png, \.b1\.txt \(the key .* first dot"),
        ([*GOOD, ("d/c.png", PNG)], r"'d/c' of .*0\.tar has no \.txt; it holds \.png"),
        ([], "holds no samples .*before the first dot"),
        ([("README", b""), (".png", PNG)], "holds no samples .*before the first dot"),
        (
            [(b"\xe9.png".decode("utf-8", "surrogateescape"), PNG)],
            r"name '\\udce9\.png' in .*0\.tar is not UTF-8: rename",
        ),
    ],
)
def test_no_sample_of_a_shard_is_lost_silently(members: list[tuple[str, bytes]], message: str, tmp_path: Path) -> None:
    root = write_shard(tmp_path, members)
    with pytest.raises(DataError, match=message):
        TarSamples([root / "test" / "0.tar"], "txt")


def test_what_the_host_skips_in_a_shard_is_skipped(tmp_path: Path) -> None:
    others = [("._a.png", b""), ("README", b""), ("__meta__/x.json", b"{}"), ("dir/.DS_Store", b"")]
    assert len(TarSamples([write_shard(tmp_path, [*others, *GOOD]) / "test" / "0.tar"], "txt")) == 2


def as_npy(value: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, value, allow_pickle=True)
    return stream.getvalue()


NO_FLAGS = r"the \.npy of sample 's' of .*0\.tar is no row of zeros and ones"


@pytest.mark.parametrize(
    ("ending", "content", "expected"),
    [
        ("txt", b"one\n \n\ntwo \n", ("one", "two ")),
        ("txt", b"", "sample 's' of .*0.tar has no caption"),
        ("txt", b" \n\t\n", "sample 's' of .*0.tar has no caption"),
        ("txt", b"caf\xe9", "the caption of sample 's' of .*0.tar is no UTF-8 text"),
        ("cls", b" 12\n", 12),
        ("cls", b"", r"sample 's' of .*0\.tar has the class b'', expected a number"),
        ("cls", b"-1", r"sample 's' of .*0\.tar has the class b'-1'"),
        ("cls", b"1.0", r"sample 's' of .*0\.tar has the class b'1.0'"),
        ("npy", as_npy(np.array([1, 0, 1])), [1, 0, 1]),
        ("npy", as_npy(np.array([True, False])), [1, 0]),
        ("npy", as_npy(np.array([{}])), NO_FLAGS),
        ("npy", b"", NO_FLAGS),
        ("npy", b"PK\3\4", NO_FLAGS),
        ("npy", as_npy(np.array([])), NO_FLAGS),
        ("npy", as_npy(np.eye(2)), NO_FLAGS),
        ("npy", as_npy(np.array([0, np.nan])), NO_FLAGS),
        ("npy", as_npy(np.array([0, 2])), NO_FLAGS),
        ("npy", as_npy(np.array(1)), NO_FLAGS),
    ],
)
def test_captions_and_labels_are_read_or_named(ending: str, content: bytes, expected: Any, tmp_path: Path) -> None:
    root = write_shard(tmp_path, [("s.png", PNG), (f"s.{ending}", content)])
    samples = TarSamples([root / "test" / "0.tar"], ending)
    if isinstance(expected, str):
        with pytest.raises(DataError, match=expected):
            samples.read(0)
    else:
        assert samples.read(0)[2] == expected


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"no image", r"is no readable image \(webp, png, jpg\)$"),
        (PNG[:43], r"is no readable image \(webp, png, jpg\): \w+"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", r"is no readable image \(webp, png, jpg\)$"),
        (image_bytes(form="GIF"), r"is no readable image \(webp, png, jpg\)$"),
        (image_bytes("I;16"), "is a greyscale of more than 8 bits: convert it to 8 bits a channel"),
    ],
)
def test_what_pillow_cannot_show_as_it_is_is_named(raw: bytes, message: str, tmp_path: Path) -> None:
    shard = write_shard(tmp_path, [("s.png", raw), ("s.txt", b"x")]) / "test" / "0.tar"
    with pytest.raises(DataError, match=rf"sample 's' of .*0\.tar {message}") as caught:
        TarSamples([shard], "txt").read(0)
    assert "BytesIO" not in str(caught.value)


def test_no_image_of_a_host_dataset_starts_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow, which the host opens files with, would start Ghostscript for an EPS under any name."""
    program, started = tmp_path / "gs", tmp_path / "started"
    program.write_text(f"#!/bin/sh\ntouch {started}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n%%EndComments\n%%EOF\n")
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "EPS"
        with pytest.raises(OSError, match="Ghostscript"):
            image.load()
    assert not started.exists()


def test_a_host_dataset_is_held_to_the_same() -> None:
    deep = ("id", Image.new("I;16", (2, 2)))
    rows = HostSamples([(deep, 0), (("id", Image.new("L", (2, 2))), ["a", " "])], "captions", "theirs")
    assert rows.read(1)[2] == ("a",)
    with pytest.raises(DataError, match="row 0 of dataset 'theirs' is a greyscale"):
        rows.read(0)
    with pytest.raises(DataError, match="row 2 of dataset 'theirs' cannot be read: IndexError: list index"):
        rows.read(2)


class Rows:
    """Images without files; row 5 fails."""

    in_order = False

    def __len__(self) -> int:
        return 20

    def read(self, row: int) -> tuple[str, Image.Image, int]:
        if row == 5:
            raise DataError("sample 'DataError: x' is odd")
        return str(row), Image.new("RGB", (2, 2)), 0


def die(image: Image.Image) -> torch.Tensor:
    os._exit(1)


def stumble(image: Image.Image) -> torch.Tensor:
    raise ZeroDivisionError("by zero")


@pytest.mark.parametrize(
    ("preprocess", "workers", "error", "message"),
    [
        *[(pixels, workers, DataError, "^sample 'DataError: x' is odd$") for workers in (0, 2)],
        *[(stumble, workers, ModelError, "preprocessing fails on sample '0': ZeroDivisionError") for workers in (0, 2)],
        (die, 2, DataError, "a process that reads the images died.*--num_workers 0"),
    ],
)
def test_errors_of_workers_arrive_as_they_were(
    preprocess: Any, workers: int, error: type[KodaAuditError], message: str, classes_wds: Path
) -> None:
    dataset = replace(load_dataset("wds/any", str(classes_wds)), samples=Rows())
    with pytest.raises(error, match=message):
        list(batches(dataset, [[row] for row in range(20)], preprocess, workers))


@pytest.mark.parametrize(
    ("file", "content", "error", "message"),
    [
        ("test/nshards.txt", b"abc", DataError, r"test/nshards\.txt holds 'abc', expected the number of shards"),
        ("test/nshards.txt", b"", DataError, r"test/nshards\.txt holds ''"),
        ("test/nshards.txt", b"1.0", DataError, r"test/nshards\.txt holds '1\.0'"),
        ("test/nshards.txt", b"0", DataError, r"test/nshards\.txt holds '0'"),
        ("test/nshards.txt", b"\xff", DataError, r"test/nshards\.txt is no UTF-8 text"),
        ("test/nshards.txt", None, DataError, r"test/nshards\.txt is missing: write the number"),
        ("test/nshards.txt", b"9999999", DataError, r"/1\.tar is missing: .*9999999 shards"),
        ("dataset_type.txt", b"\xff", DataError, r"dataset_type\.txt is no UTF-8 text"),
        ("classnames.txt", b"caf\xe9", DataError, r"classnames\.txt is no UTF-8 text"),
        ("classnames.txt", None, DataError, r"classnames\.txt is missing"),
        ("classnames.txt", b"", DataError, "has no class names"),
        ("classnames.txt", b"cat\n\ndog\n", DataError, r"the name of class 1 is blank \(line 2"),
        ("zeroshot_classification_templates.txt", b"\xff", DataError, r"templates\.txt is no UTF-8 text"),
        ("zeroshot_classification_templates.txt", None, DataError, r"templates\.txt is missing"),
        ("zeroshot_classification_templates.txt", b"", DataError, "has no prompt templates"),
        ("zeroshot_classification_templates.txt", b"a {x}", DataError, r"template 'a \{x\}' must hold \{c\}"),
    ],
)
def test_the_text_files_of_a_webdataset_are_checked_before_the_host_reads_them(
    file: str, content: bytes | None, error: type[KodaAuditError], message: str, tmp_path: Path
) -> None:
    root = write_webdataset(tmp_path, n=2, shards=1, kind="classification")
    if content is None:
        (root / file).unlink()
    else:
        (root / file).write_bytes(content)
    with pytest.raises(error, match=message):
        load_dataset("wds/w", str(root))
    if "nshards" in file:
        with pytest.raises(error, match=message):
            check_dataset("wds/w", str(root), "test")


def test_a_missing_split_is_found_before_any_work(tmp_path: Path) -> None:
    root = write_webdataset(tmp_path, n=2, shards=1)
    for found in (lambda: check_dataset("wds/w", str(root), "val"), lambda: load_dataset("wds/w", str(root), "val")):
        with pytest.raises(InputError, match=r"has no split 'val' \(--split\); it has test"):
            found()


def refuse(*arguments: Any, **more: Any) -> Any:
    raise PermissionError(13, "Permission denied", str(arguments[0]))


def test_what_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_webdataset(tmp_path / "w", n=2, shards=1)
    shard = root / "test" / "0.tar"
    samples = TarSamples([shard], "txt")
    write_folder(tmp_path / "f", {"cat/x.png": PNG})
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        with pytest.raises(DataError, match="cat cannot be read: Permission denied"):
            load_dataset("folder/f", str(tmp_path / "f"))
    shard.unlink()
    with pytest.raises(DataError, match=r"0\.tar cannot be read: No such file"):
        samples.read(0)
    for name, call in {
        "w": lambda: load_dataset("wds/w", str(root)),
        "f": lambda: load_dataset("folder/f", str(tmp_path / "f"), hash_file=refuse),
    }.items():
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_text", refuse)
            with pytest.raises(DataError, match=f"/{name}/.* cannot be read: Permission denied"):
                call()


def write_folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


ONE = {"cat/x.png": PNG}


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ({}, DataError, "has no class folders"),
        ({"x.png": PNG}, DataError, "has no class folders"),
        ({**ONE, "dog/x.gif": PNG}, DataError, r"class folder .*/dog holds no images \(\.webp, .*convert .*or remove"),
        ({"train/cat/x.png": PNG}, InputError, r"has no split 'test', choose train \(--split\)"),
        ({"train/cat/x.png": PNG, "Val/cat/x.png": PNG}, InputError, "choose Val or train"),
    ],
)
def test_folders_that_are_no_classes_are_named(
    files: dict[str, bytes], error: type[KodaAuditError], message: str, tmp_path: Path
) -> None:
    root = str(write_folder(tmp_path, files))
    with pytest.raises(error, match=message):
        load_dataset("folder/f", root)
    if "class folder " not in message:
        with pytest.raises(error, match=message):
            check_dataset("folder/f", root, "test")


@pytest.mark.parametrize("files", [{**ONE, "train/y.png": PNG}, {"test/cat/x.png": PNG, "train/cat/x.png": PNG}])
def test_splits_and_classes_are_told_apart(files: dict[str, bytes], tmp_path: Path) -> None:
    names = load_dataset("folder/f", str(write_folder(tmp_path, files))).class_names
    assert names == (("cat", "train") if "cat/x.png" in files else ("cat",))


def test_images_of_a_folder_that_are_not_read_are_counted(tmp_path: Path) -> None:
    ignored = {"cat/Thumbs.db": b"", "cat/note.txt": b"", "cat/._x.jpg": b"", "cat/.thumbs/x.jpg": b"", "y.txt": b""}
    root = write_folder(tmp_path, {**ONE, **ignored})
    assert load_dataset("folder/f", str(root)).samples.files == [("cat/x.png", 0)]  # type: ignore[attr-defined]
    write_folder(tmp_path, {"y.png": PNG, "cat/a.gif": b"", "cat/in/b.TIFF": b""})
    with pytest.warns(KodaAuditWarning, match=r"^3 images in .* are not read, first y\.png: only \.webp,") as caught:
        load_dataset("folder/f", str(root))
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.symlink_to("nowhere"), r"odd\.png cannot be read: No such file"),
        (lambda path: path.symlink_to("odd.png"), r"odd\.png cannot be read: Too many levels"),
        (lambda path: os.mkfifo(path), r"odd\.png is no regular file"),
        (lambda path: path.symlink_to("."), r"odd\.png is a link to a folder that is in class folder .*cat already"),
        (lambda path: path.with_name("caf\udce9.png").write_bytes(PNG), r"'cat/caf\\udce9\.png' in .* is not UTF-8"),
        (lambda path: path.mkdir(), None),
        (lambda path: path.symlink_to("x.png"), ["cat/odd.png", "cat/x.png"]),
        (lambda path: path.symlink_to("../outside"), ["cat/odd.png/o.png", "cat/x.png"]),
    ],
)
def test_only_regular_files_are_opened(make: Callable[[Path], Any], message: Any, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "root", ONE)
    write_folder(tmp_path / "root", {".hidden/z.png": PNG})
    write_folder(tmp_path / "root" / "outside", {"o.png": PNG})
    make(root / "cat" / "odd.png")
    if isinstance(message, str):
        with pytest.raises(DataError, match=message):
            load_dataset("folder/f", str(root))
    else:
        dataset = load_dataset("folder/f", str(root))
        ids = [dataset.samples.read(row)[0] for row in range(len(dataset.samples))]
        assert ids == [*(message or ["cat/x.png"]), "outside/o.png"]


@pytest.mark.parametrize("dataset", ["folder/pets", "wds/pets"])
@pytest.mark.parametrize(
    ("read", "content", "expected"),
    [
        (custom_class_names, {"pets": ["cat"]}, ["cat"]),
        (custom_templates, {"pets": ["a {c}"], "imagenet1k": ["no"]}, ["a {c}"]),
        (custom_templates, {"imagenet1k": ["a {c}"]}, ["a {c}"]),
        (custom_templates, {"pets": {"cat": ["a furry cat"]}}, {"cat": ["a furry cat"]}),
        (custom_class_names, {"imagenet1k": ["cat"]}, "unknown key 'pets': choose one of imagenet1k"),
        (custom_class_names, {"pats": ["cat"]}, "has no entry for '.*/pets': unknown key 'pets': did you mean 'pats'"),
        (custom_templates, {"pats": ["a {c}"]}, "has no entry for '.*/pets': unknown key 'pets': did you mean 'pats'"),
        *[(custom_class_names, wrong, "must be a JSON object") for wrong in ([], None, 5, "abc", ["cat"], {})],
        *[
            (custom_class_names, {"pets": wrong}, "entry 'pets' must be a list of class names")
            for wrong in ([], None, 5, "abc", [["cat"]], {"cat": "x"}, ["cat", " "])
        ],
        *[
            (custom_templates, {"pets": wrong}, "entry 'pets' must be a list of templates, or an object")
            for wrong in ([], None, 5, "abc", [["a {c}"]], {}, {"cat": "x"}, {"cat": []}, {"cat": [5]})
        ],
    ],
)
def test_custom_files_have_the_hosts_shape(
    dataset: str, read: Callable[[str, str], Any], content: Any, expected: Any, tmp_path: Path
) -> None:
    file = tmp_path / "custom.json"
    file.write_text(json.dumps(content))
    if isinstance(expected, str):
        with pytest.raises(InputError, match=rf"custom\.json.*{expected}"):
            read(str(file), dataset)
    else:
        assert read(str(file), dataset) == expected


def test_custom_files_replace_those_of_any_dataset(tmp_path: Path) -> None:
    roots = {
        "wds/pets": write_webdataset(tmp_path / "w", n=2, shards=1, kind="classification"),
        "folder/pets": write_folder(tmp_path / "f", ONE),
        "fer2013": write_folder(tmp_path / "h", {"test/0/x.png": PNG}),
    }
    (roots["wds/pets"] / "classnames.txt").unlink()
    custom = {key: tmp_path / f"{key}.json" for key in ("classname_file", "template_file")}
    custom["template_file"].write_text(json.dumps({"imagenet1k": ["my {c}"]}))
    for name, root in roots.items():
        custom["classname_file"].write_text(json.dumps({name.split("/")[-1]: ["kitten"]}))
        dataset = load_dataset(name, str(root), **{key: str(path) for key, path in custom.items()})
        assert (dataset.class_names, dataset.templates) == (("kitten",), ["my {c}"])
        custom["classname_file"].write_text("[]")
        with pytest.raises(InputError, match=r"classname_file\.json must be a JSON object"):
            load_dataset(name, str(root), classname_file=str(custom["classname_file"]))
    with pytest.raises(DataError, match="no prompts for class 'cat'"):  # the host's own file, of ImageNet's classes
        load_dataset("folder/pets", str(roots["folder/pets"]), template_file="cupl_prompts.json")
    with pytest.raises(InputError, match=r"nowhere\.json cannot be read as JSON: No such file"):
        custom_templates("nowhere.json", "folder/pets")


@pytest.mark.parametrize(
    "template",
    ["{0}", "{x}", "{", "{}", "a", "", "{c:d}", "{c[100]}", "{c.__class__}", "{c:>10000000}", "{c} {x}", "{{c}}"],
)
def test_templates_are_text_around_the_name(template: str) -> None:
    with pytest.raises(DataError, match=r"must hold \{c\} for the class name, and no other braces") as caught:
        class_prompts("cat", ["a {c}", template])
    assert f"template '{template}'" in str(caught.value)
    assert class_prompts("{x}", ["a {c}, {c}"]) == ["a {c}, {c}".format(c="{x}")]
    assert class_prompts("cat", {"cat": ["as {it} is"]}) == ["as {it} is"]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_remote_webdataset_is_downloaded_once(tmp_path: Path) -> None:
    root = write_webdataset(tmp_path / "served" / "w")
    handler = partial(Quiet, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/w"
        assert read_text(url, "dataset_type.txt") == "retrieval"
        assert read_text(url, "no_such_file") is None
        shards = local_shards(url, "test", str(tmp_path / "cache"))
        assert [shard.read_bytes() for shard in shards] == [
            (root / "test" / f"{number}.tar").read_bytes() for number in range(2)
        ]
        (root / "test" / "1.tar").unlink()
        assert local_shards(url, "test", str(tmp_path / "cache")) == shards
        shards[1].unlink()
        with pytest.raises(DataError, match=r"1\.tar cannot be read: 404"):
            local_shards(url, "test", str(tmp_path / "cache"))
        assert not shards[1].exists()
        server.shutdown()
    with pytest.raises(DataError, match="cannot be read"):
        read_text("http://127.0.0.1:9/w", "dataset_type.txt")
    assert TarSamples([shards[0]], "txt").read(0)[0] == "s0000"


class Stream(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    """As the host's vtab/ and tfds/ datasets are: a length, and no way to one row."""

    classes, templates = ("cat", "dog"), ["a photo of a {c}"]

    def __init__(self, transform, n=5, length=5):
        self.transform, self.n, self.length, self.started = transform, n, length, 0

    def __len__(self):
        return self.length

    def __iter__(self):
        self.started += 1
        for row in range(self.n):
            yield self.transform(Image.new("RGB", (4, 4), (row, 0, 0))), row % 2


def stream(monkeypatch: pytest.MonkeyPatch, **arguments: int) -> list[Stream]:
    built: list[Stream] = []

    def build_dataset(transform, **_):
        built.append(Stream(transform, **arguments))
        return built[0]

    monkeypatch.setattr("clip_benchmark.datasets.builder.build_dataset", build_dataset)
    return built


def test_a_stream_of_the_host_is_read_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    built = stream(monkeypatch)
    dataset = load_dataset("vtab/any", str(tmp_path))
    found = list(batches(dataset, [[0, 1], [2], [4]], pixels, workers=4))
    assert [int(image[0, 0, 0]) for _, images, _ in found for image in images] == [0, 1, 2, 4]
    assert [target for _, _, targets in found for target in targets] == [0, 1, 0, 0]
    assert built[0].started == 2  # once for the fingerprint, once for the batches
    ids = [dataset.samples.read(row)[0] for row in range(5)]
    images = dataset.images([ids[3], ids[1]], ids)
    assert images[ids[3]].getpixel((0, 0)) == (3, 0, 0)
    assert built[0].started == 4


def test_a_stream_that_ends_early_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stream(monkeypatch, length=7)
    with pytest.raises(DataError, match="'vtab/any' ends after 5 of 7 samples"):
        load_dataset("vtab/any", str(tmp_path))
