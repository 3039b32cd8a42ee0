from __future__ import annotations

import hashlib
import json
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from clip_benchmark.datasets.builder import build_dataset
from conftest import write_webdataset
from PIL import Image

from koda_audit.data.dataset import batches
from koda_audit.data.load import check_dataset, load_dataset
from koda_audit.data.webdataset import TarSamples, local_shards, read_text
from koda_audit.errors import DataError, InputError

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
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"mine": ["cap", "top"]}))
    assert load_dataset("folder/mine", str(tmp_path), classname_file=str(names)).class_names == ("cap", "top")
    names.write_text(json.dumps({"mine": ["cap"]}))
    with pytest.raises(InputError, match="names 1 classes"):
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
    check_dataset(name, str(tmp_path))


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
    with pytest.raises(DataError, match=r"expected one image"):
        load_dataset("dummy", str(tmp_path))


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
        assert read_text(url, "no such file") is None
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
