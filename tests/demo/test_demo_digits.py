"""The demo's drawings, and their export as webdatasets that the unmodified host reads."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from clip_benchmark.datasets.builder import build_dataset

from koda_audit.demo.digits import CAPTION, CLASS_TEMPLATES, COLOURS, DIGITS, draw, scans, write_webdatasets

# the host leaves shardshuffle to webdataset's default, which warns, and webdataset leaves its shards open
host_warns = pytest.mark.filterwarnings("ignore:.*shardshuffle.*:UserWarning", "ignore:unclosed file:ResourceWarning")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_webdatasets(tmp_path_factory.mktemp("demo"))


def test_test_captions_are_all_distinct() -> None:
    samples = draw("test")
    assert len(samples) == 397
    assert len({sample.caption for sample in samples}) == 397
    assert len({sample.key for sample in samples}) == 397
    assert samples[17].key == "test-0017"


@pytest.mark.parametrize("split", ["train", "test"])
def test_captions_say_what_is_drawn_and_groups_are_balanced(split) -> None:
    samples = draw(split)
    for s in samples:
        assert s.ink != s.ground
        assert s.caption == CAPTION.format(ink=s.ink, digit=DIGITS[s.digit], ground=s.ground)
    for group in ("ink", "ground"):
        sizes = Counter(getattr(s, group) for s in samples)
        assert set(sizes) == set(COLOURS)
        assert max(sizes.values()) <= 1.3 * min(sizes.values())


def test_drawings_show_the_colours_they_name() -> None:
    for s in draw("test")[:40]:
        pixels = np.asarray(s.image).astype(int)
        assert tuple(pixels[0, 0]) == COLOURS[s.ground]
        assert np.abs(pixels - np.array(COLOURS[s.ink])).sum(axis=2).min() < 30


def test_no_scan_is_in_both_splits() -> None:
    train, test = ({scan.tobytes() for scan in scans(split)[0]} for split in ("train", "test"))
    assert not train & test


def test_another_seed_draws_other_colours() -> None:
    assert [s.caption for s in draw("test", seed=1)] != [s.caption for s in draw("test")]


def test_two_exports_are_byte_identical_and_a_complete_one_is_reused(exported, tmp_path) -> None:
    def contents(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    again = write_webdatasets(tmp_path)
    assert set(tmp_path.iterdir()) == set(again.values())  # nothing temporary is left
    assert contents(exported["digits"].parent) == contents(tmp_path)

    shard = again["digits"] / "test" / "0.tar"
    written = shard.stat().st_mtime_ns
    write_webdatasets(tmp_path)
    assert shard.stat().st_mtime_ns == written

    shard.unlink()
    write_webdatasets(tmp_path)
    assert contents(exported["digits"].parent) == contents(tmp_path)


@host_warns
@pytest.mark.parametrize(("split", "size"), [("train", 1400), ("test", 397)])
def test_the_host_reads_the_captions(exported, split, size) -> None:
    images, texts = zip(*_host_rows("digits_captions", "zeroshot_retrieval", exported, split), strict=True)
    samples = draw(split)
    assert len(images) == size
    assert [text for (text,) in texts] == [s.caption for s in samples]
    assert all(np.array_equal(image, s.image) for image, s in zip(images, samples, strict=True))


@host_warns
@pytest.mark.parametrize(("split", "size"), [("train", 1400), ("test", 397)])
def test_the_host_reads_the_classes(exported, split, size) -> None:
    images, digits = zip(*_host_rows("digits", "zeroshot_classification", exported, split), strict=True)
    samples = draw(split)
    assert len(images) == size
    assert list(digits) == [s.digit for s in samples]
    assert all(np.array_equal(image, s.image) for image, s in zip(images, samples, strict=True))


@host_warns
def test_the_host_reads_class_names_and_templates(exported) -> None:
    dataset = build_dataset("wds/digits", root=str(exported["digits"]), split="test")
    assert dataset.classes == list(DIGITS)
    assert dataset.templates == list(CLASS_TEMPLATES)


def _host_rows(name: str, task: str, exported: dict[str, Path], split: str) -> list[tuple]:
    """(image array, captions or digit) of each sample, in the order the host's own loader gives them."""
    dataset = build_dataset(f"wds/{name}", root=str(exported[name]), split=split, transform=np.asarray, task=task)
    loader = torch.utils.data.DataLoader(dataset.batched(64), batch_size=None, num_workers=0)
    return [row for images, labels in loader for row in zip(images.numpy(), _plain(labels), strict=True)]


def _plain(labels: object) -> list:
    return labels.tolist() if hasattr(labels, "tolist") else list(labels)
