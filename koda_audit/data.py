"""Datasets as indexed samples with stable ids: webdatasets, folders of images by class, or whatever the host builds.

The host's own pipelines drop ``__key__`` and interleave workers, so an index there is not an identity. Here every
sample can be read alone by its row, in a fixed order, and has an id: its key, its path, or a hash of its image.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import multiprocessing
import re
import tarfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from PIL import Image

from koda_audit._files import atomic_write, cache_folder, digest, file_sha256
from koda_audit.errors import DataError, InputError, KodaAuditError, unknown

Target = Any  # tuple of captions, class index, or list of zeros and ones
Kind = Literal["captions", "classes"]
WEBDATASET, FOLDER = "wds/", "folder/"
# the host's order of preference
IMAGE_ENDINGS = ("webp", "png", "jpg", "jpeg")


class Samples(Protocol):
    """Rows of a dataset."""

    def __len__(self) -> int: ...
    def read(self, row: int) -> tuple[str, Image.Image, Target]:
        """(id, decoded image, captions or label) of one row."""


@dataclass(frozen=True)
class Dataset:
    """A dataset, ready to be read. ``fingerprint`` is a digest of its files."""

    name: str
    split: str
    language: str
    kind: Kind
    samples: Samples
    fingerprint: str
    class_names: tuple[str, ...] | None = None
    templates: Any = None  # list of templates, or one list of prompts a class name

    def images(self, wanted: Sequence[str], ids: Sequence[str]) -> dict[str, Image.Image]:
        """The decoded images of some samples; ``ids`` are those of all rows, in order."""
        row_of = {sample: row for row, sample in enumerate(ids)}
        return {sample: self.samples.read(row_of[sample])[1].convert("RGB") for sample in dict.fromkeys(wanted)}


class _Rows(torch.utils.data.Dataset[tuple[str, torch.Tensor, Target]]):
    """What the workers see: the samples, preprocessed. At module level, so that it pickles under spawn."""

    def __init__(self, samples: Samples, preprocess: Callable[[Image.Image], torch.Tensor]) -> None:
        self.samples, self.preprocess = samples, preprocess

    def __getitem__(self, row: int) -> tuple[str, torch.Tensor, Target]:
        sample, image, target = self.samples.read(row)
        return sample, self.preprocess(image), target


def _as_lists(items: list[tuple[str, torch.Tensor, Target]]) -> tuple[list[str], torch.Tensor, list[Target]]:
    ids, images, targets = zip(*items, strict=True)
    return list(ids), torch.stack(images), list(targets)


def batches(
    dataset: Dataset, groups: Sequence[Sequence[int]], preprocess: Callable[[Image.Image], torch.Tensor], workers: int
) -> Iterator[tuple[list[str], torch.Tensor, list[Target]]]:
    """Read groups of rows in order, a batch a group: (ids, images (b, 3, h, w), targets)."""
    loader: Any = torch.utils.data.DataLoader(
        _Rows(dataset.samples, preprocess),
        batch_sampler=list(map(list, groups)),
        num_workers=_useful_workers(workers, len(groups), preprocess),
        collate_fn=_as_lists,
    )
    try:
        yield from loader
    except KodaAuditError as error:
        # a worker's error comes wrapped in its traceback; the sentence is what follows the name of its class
        raise type(error)(str(error).rsplit(f"{type(error).__name__}: ", 1)[-1].strip()) from error


def _useful_workers(asked: int, groups: int, preprocess: Callable[[Image.Image], torch.Tensor]) -> int:
    """A worker costs more to start than a few batches; a user's own function cannot be sent to a spawned one."""
    unsendable = (
        multiprocessing.get_start_method() != "fork" and type(preprocess).__module__.split(".")[0] != "torchvision"
    )
    return 0 if unsendable else min(asked, groups // 8)


@dataclass
class TarSamples:
    """The members of a webdataset's shards, indexed by header: any row is read alone, without a pass over the shard."""

    shards: Sequence[Path]
    target: str  # "txt", "cls" or "npy"
    rows: list[tuple[int, str, tuple[int, int], tuple[int, int]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for number, shard in enumerate(self.shards):
            self.rows.extend(self._index(number, shard))
        keys = [key for _, key, _, _ in self.rows]
        self.unique = len(set(keys)) == len(keys)
        if not self.rows:
            raise DataError(f"{self.shards[0]} holds no samples with an image ({', '.join(IMAGE_ENDINGS)})")

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, row: int) -> tuple[str, Image.Image, Target]:
        number, key, image_at, target_at = self.rows[row]
        sample = key if self.unique else f"{self.shards[number].stem}/{key}"
        raw = []
        with self.shards[number].open("rb") as stream:
            for start, size in (image_at, target_at):
                stream.seek(start)
                raw.append(stream.read(size))
        return (
            sample,
            _decode(raw[0], f"sample '{sample}' of {self.shards[number]}"),
            self._decode_target(raw[1], sample),
        )

    def _index(self, number: int, shard: Path) -> Iterator[tuple[int, str, tuple[int, int], tuple[int, int]]]:
        members: dict[str, dict[str, tuple[int, int]]] = {}
        try:
            with tarfile.open(shard, "r:") as archive:
                for member in archive:
                    if member.isfile():
                        folder, _, file = member.name.rpartition("/")
                        stem, _, ending = file.partition(".")
                        key = f"{folder}/{stem}" if folder else stem
                        members.setdefault(key, {})[ending.lower()] = (member.offset_data, member.size)
        except (tarfile.TarError, OSError) as error:
            raise DataError(f"{shard} cannot be read as a webdataset shard: {error}") from error
        for key, parts in members.items():
            image = next((parts[ending] for ending in IMAGE_ENDINGS if ending in parts), None)
            if image is None:
                continue
            if self.target not in parts:
                raise DataError(f"sample '{key}' of {shard} has no .{self.target}; it holds {', '.join(sorted(parts))}")
            yield number, key, image, parts[self.target]

    def _decode_target(self, raw: bytes, sample: str) -> Target:
        if self.target == "txt":
            captions = tuple(raw.decode("utf-8", "replace").splitlines())
            if not captions:
                raise DataError(f"sample '{sample}' has an empty caption")
            return captions
        if self.target == "cls":
            try:
                return int(raw)
            except ValueError as error:
                raise DataError(f"sample '{sample}' has the class '{raw[:20]!r}', expected a number") from error
        import numpy as np

        return [int(flag) for flag in np.load(io.BytesIO(raw), allow_pickle=False)]


@dataclass
class FolderSamples:
    """Images in folders by class; the id of an image is its path below the root."""

    root: Path
    files: list[tuple[str, int]]

    def __len__(self) -> int:
        return len(self.files)

    def read(self, row: int) -> tuple[str, Image.Image, Target]:
        name, label = self.files[row]
        return name, _decode((self.root / name).read_bytes(), str(self.root / name)), label


class HostSamples:
    """Any indexed dataset of the host; equal images get the suffixes -2, -3, … in their order."""

    def __init__(self, dataset: Any, kind: Kind, name: str) -> None:
        self.dataset, self.kind, self.name = dataset, kind, name

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, row: int) -> tuple[str, Image.Image, Target]:
        item, target = self.dataset[row]
        if not isinstance(item, tuple) or not isinstance(item[1], Image.Image):
            raise DataError(f"dataset '{self.name}' gives {type(item).__name__} for row {row}, expected one image")
        sample, image = item
        if self.kind == "captions":
            return sample, image, tuple(str(caption) for caption in target)
        if isinstance(target, torch.Tensor) and target.ndim == 1:
            return sample, image, [int(flag) for flag in target]
        return sample, image, int(target)


def load_dataset(
    name: str,
    root: str,
    split: str = "test",
    *,
    language: str = "en",
    annotation_file: str = "",
    classname_file: str | None = None,
    template_file: str | None = None,
    cache_dir: str | None = None,
    hash_file: Callable[[Path], str] = file_sha256,
) -> Dataset:
    """Build a dataset by the host's name: `wds/NAME`, `folder/NAME` (ours: images in folders by class), or any other.

    Raises:
        InputError: the host does not know the name (near matches shown), or the root does not exist.
        DataError: it cannot be read, or its samples are not single images with captions or classes.
    """
    if name.startswith(FOLDER):
        return _folder(name, Path(root), split, language, classname_file, template_file, hash_file)
    from clip_benchmark.datasets.builder import build_dataset, get_dataset_default_task

    short = name.removeprefix(WEBDATASET)
    if name.startswith(WEBDATASET):
        form = (_read_text(root, "dataset_type.txt") or "classification").strip().lower()
        task = "zeroshot_retrieval" if form == "retrieval" else "zeroshot_classification"
    else:
        form, task = "", get_dataset_default_task(short)
    if task == "image_caption_selection":
        raise DataError(
            f"dataset '{name}' pairs an image with wrong captions: use the host's own image_caption_selection"
        )
    kind: Kind = "captions" if task == "zeroshot_retrieval" else "classes"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*shardshuffle.*")  # webdataset warns at every construction
            built = build_dataset(
                dataset_name=name,
                root=root,
                transform=_identify,
                split=split,
                annotation_file=annotation_file,
                download=True,
                language=language,
                task=task,
                custom_template_file=template_file,
                custom_classname_file=classname_file,
                wds_cache_dir=cache_dir,
            )
    except (Exception, SystemExit) as error:  # the host's builders raise whatever they like, and some exit
        raise DataError(f"dataset '{name}' cannot be built from {root}, split {split}: {_sentence(error)}") from error
    classes = tuple(built.classes) if kind == "classes" and built.classes is not None else None
    templates = built.templates if kind == "classes" else None
    samples: Samples
    if name.startswith(WEBDATASET):
        shards = _local_shards(root, split, cache_dir)
        samples = TarSamples(shards, {"retrieval": "txt", "multilabel": "npy"}.get(form, "cls"))
        content: Any = [[shard.name, hash_file(shard)] for shard in shards]
    else:
        if not hasattr(built, "__len__") or not hasattr(built, "__getitem__"):
            raise DataError(
                f"dataset '{name}' is a stream: export it with clip_benchmark_export_wds and use {WEBDATASET}"
            )
        samples = HostSamples(built, kind, name)
        content = _host_content(samples, Path(root), annotation_file)
    return Dataset(name, split, language, kind, samples, digest([form, content]), classes, templates)


def check_dataset(name: str, root: str) -> None:
    """Find what is wrong with a name before anything is loaded.

    Raises:
        InputError: the host does not know the name (near matches shown), or its folder does not exist.
    """
    if name.startswith((WEBDATASET, FOLDER)):
        if "://" not in root and not Path(root).is_dir():
            raise InputError(f"dataset '{name}': there is no folder {root} (--dataset_root)")
        return
    import clip_benchmark.datasets.builder as builder

    # the host has no list of its names, only one long chain of comparisons
    source = inspect.getsource(builder.build_dataset)
    names = set(re.findall(r"""dataset_name == ["']([^"']+)["']""", source))
    prefixes = tuple(re.findall(r"""dataset_name\.startswith\(["']([^"']+)["']\)""", source))
    if name not in names and not name.startswith(prefixes):
        raise InputError(unknown("dataset", name, names) + f" (or use {WEBDATASET}NAME, {FOLDER}NAME)")


def _folder(
    name: str,
    root: Path,
    split: str,
    language: str,
    classname_file: str | None,
    template_file: str | None,
    hash_file: Callable[[Path], str],
) -> Dataset:
    base = root / split if (root / split).is_dir() else root
    folders = sorted(path for path in base.iterdir() if path.is_dir() and not path.name.startswith("."))
    files = [
        (str(file.relative_to(base)), label)
        for label, folder in enumerate(folders)
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower().lstrip(".") in IMAGE_ENDINGS
    ]
    if not files:
        raise DataError(f"dataset '{name}': {base} holds no images in class folders (CLASS/NAME.jpg, .png or .webp)")
    class_names = [re.sub("[_-]+", " ", folder.name) for folder in folders]
    chosen = _custom(classname_file, name)
    if chosen is not None and len(chosen) != len(class_names):
        raise InputError(f"{classname_file} names {len(chosen)} classes, {base} has {len(class_names)} class folders")
    templates = _custom(template_file, name) or _read_lines(root / "zeroshot_classification_templates.txt")
    content = [[file, hash_file(base / file)] for file, _ in files]
    return Dataset(
        name,
        split,
        language,
        "classes",
        FolderSamples(base, files),
        digest(content),
        tuple(chosen or class_names),
        templates or ["a photo of a {c}"],
    )


def _custom(path: str | None, name: str) -> Any:
    """The entry of a dataset in the host's --custom_classname_file or --custom_template_file."""
    if not path:
        return None
    try:
        table = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from error
    return table.get(name) or table.get(name.removeprefix(FOLDER))


def _read_lines(path: Path) -> list[str] | None:
    return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()] if path.is_file() else None


def _identify(image: Image.Image) -> tuple[str, Image.Image]:
    """Stands in for the preprocessing in a dataset of the host: the hash of the decoded image, and the image."""
    state = hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes())
    return state.hexdigest()[:20], image


def _decode(raw: bytes, where: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(raw)).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{where} is no readable image: {error}") from error


def _host_content(samples: Samples, root: Path, annotation_file: str) -> Any:
    """Names, sizes and times of all files below the root (hashing them could take hours), and 16 samples."""
    files = sorted(path for path in root.rglob("*") if path.is_file()) if root.is_dir() else []
    if annotation_file and Path(annotation_file).is_file():
        files.append(Path(annotation_file))
    listing = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    step = max(1, len(samples) // 16)
    probes = [[sample, target] for sample, _, target in map(samples.read, range(0, len(samples), step))]
    return [len(samples), listing, probes]


def _metadata_root(root: str) -> str:
    # on the hub the small files lie under "raw", the shards under "resolve"
    return re.sub(r"(://huggingface\.co/datasets/[^/]+/[^/]+/)[^/]+/", r"\1raw/", root)


def _read_text(root: str, name: str) -> str | None:
    """A small text file of a webdataset, or None where it does not exist."""
    if "://" not in root:
        path = Path(root) / name
        return path.read_text("utf-8") if path.is_file() else None
    import requests

    answer = requests.get(f"{_metadata_root(root)}/{name}", timeout=60)
    if answer.status_code == 404:
        return None
    answer.raise_for_status()
    return answer.text


def _local_shards(root: str, split: str, cache_dir: str | None) -> list[Path]:
    """The shards of a webdataset as local files; remote ones are downloaded once.

    Raises:
        DataError: a shard is missing.
    """
    count = int(_read_text(root, f"{split}/nshards.txt") or 0)
    if "://" not in root:
        shards = [Path(root) / split / f"{number}.tar" for number in range(count)]
        for shard in shards:
            if not shard.is_file():
                raise DataError(f"{shard} is missing: {split}/nshards.txt says that there are {count} shards")
        return shards
    import requests
    from tqdm import tqdm

    source = re.sub(r"(://huggingface\.co/datasets/[^/]+/[^/]+/)[^/]+/", r"\1resolve/", root)
    folder = Path(cache_dir or cache_folder() / "webdatasets") / digest(root)[:16] / split
    shards = [folder / f"{number}.tar" for number in range(count)]
    for shard in tqdm(shards, desc="download shards", disable=None):
        if not shard.is_file():
            with requests.get(f"{source}/{split}/{shard.name}", stream=True, timeout=60) as answer:
                answer.raise_for_status()
                with atomic_write(shard) as stream:
                    for block in answer.iter_content(1 << 20):
                        stream.write(block)
    return shards


def _sentence(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]
