"""From the host's name of a dataset to its samples."""

from __future__ import annotations

import hashlib
import inspect
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from koda_audit._files import digest, file_sha256
from koda_audit.data.dataset import (
    Dataset,
    Kind,
    Samples,
    Target,
    check_depth,
    digest_of,
    reading,
    sentence,
    some_captions,
)
from koda_audit.data.folder import FOLDER, class_folders, load_folder
from koda_audit.data.prompts import class_prompts, custom_class_names, custom_templates
from koda_audit.data.webdataset import TarSamples, local_shards, read_text, shard_count
from koda_audit.errors import DataError, InputError, unknown

WEBDATASET = "wds/"


def check_dataset(name: str, root: str, split: str = "test") -> None:
    """Find what is wrong with a name and the layout of its folder before anything is loaded.

    Raises:
        InputError: the host does not know the name (near matches shown), or its folder or split does not exist.
        DataError: the folder cannot be read, or lacks shards or class folders.
    """
    if name.startswith((WEBDATASET, FOLDER)):
        remote = name.startswith(WEBDATASET) and "://" in root
        with reading(root):
            if not remote and not Path(root).is_dir():
                raise InputError(f"dataset '{name}': there is no folder {root} (--dataset_root)")
        if name.startswith(FOLDER):
            class_folders(name, Path(root), split)
        elif remote:
            shard_count(root, split)
        else:
            local_shards(root, split, None)
        return
    import clip_benchmark.datasets.builder as builder

    # the host has no list of its names, only one long chain of comparisons
    source = inspect.getsource(builder.build_dataset)
    names = set(re.findall(r"""dataset_name == ["']([^"']+)["']""", source))
    prefixes = tuple(re.findall(r"""dataset_name\.startswith\(["']([^"']+)["']\)""", source))
    if name not in names and not name.startswith(prefixes):
        raise InputError(unknown("dataset", name, names) + f" (or use {WEBDATASET}NAME, {FOLDER}NAME)")


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
        InputError: the split does not exist, or one of the two custom files does not fit the dataset.
        DataError: it cannot be read, or its samples are not single images with captions or classes.
    """
    from clip_benchmark.datasets.builder import build_dataset, get_dataset_default_task

    if name.startswith(WEBDATASET):
        form = (read_text(root, "dataset_type.txt") or "classification").strip().lower()
        task = "zeroshot_retrieval" if form == "retrieval" else "zeroshot_classification"
    else:
        form, task = "", get_dataset_default_task(name)
    if task == "image_caption_selection":
        raise DataError(
            f"dataset '{name}' pairs an image with wrong captions: use the host's own image_caption_selection"
        )
    kind: Kind = "captions" if task == "zeroshot_retrieval" else "classes"
    names = templates = None
    if kind == "classes":
        names, templates = custom_class_names(classname_file, name), custom_templates(template_file, name)
    if name.startswith(FOLDER):
        return _checked(load_folder(name, Path(root), split, language, names, templates, hash_file))
    samples: Samples
    if name.startswith(WEBDATASET):
        shards = local_shards(root, split, cache_dir)
        if kind == "classes":
            _check_texts(root, {"classnames.txt": names, "zeroshot_classification_templates.txt": templates})
        samples = TarSamples(shards, {"retrieval": "txt", "multilabel": "npy"}.get(form, "cls"))
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
        raise DataError(f"dataset '{name}' cannot be built from {root}, split {split}: {sentence(error)}") from error
    classes = tuple(map(str, built.classes)) if kind == "classes" and built.classes is not None else None
    templates = built.templates if kind == "classes" else None
    content: Any
    if name.startswith(WEBDATASET):
        content = [[shard.name, digest_of(shard, hash_file)] for shard in shards]
    else:
        if not hasattr(built, "__len__") or not hasattr(built, "__getitem__"):
            raise DataError(
                f"dataset '{name}' is a stream: export it with clip_benchmark_export_wds and use {WEBDATASET}"
            )
        samples = HostSamples(built, kind, name)
        content = _host_content(samples, Path(root), annotation_file)
    return _checked(Dataset(name, split, language, kind, samples, digest([form, content]), classes, templates))


def _check_texts(root: str, replaced: dict[str, Any]) -> None:
    """The text files of a webdataset that the host reads: each must be there, or a custom one in its place."""
    for file, custom in replaced.items():
        if read_text(root, file) is None and custom is None:
            raise DataError(f"{root}/{file} is missing: write one a line, or use the --custom_… option in its place")


def _checked(dataset: Dataset) -> Dataset:
    """The dataset, if every class has a name and prompts."""
    if dataset.class_names == ():
        raise DataError(f"dataset '{dataset.name}' has no class names (a webdataset has them in classnames.txt)")
    for row, class_name in enumerate(dataset.class_names or ()):
        if not class_name.strip():
            raise DataError(f"dataset '{dataset.name}': the name of class {row} is blank (line {row + 1} of the names)")
        class_prompts(class_name, dataset.templates)
    return dataset


class HostSamples:
    """Any indexed dataset of the host; equal images get the suffixes -2, -3, … in their order."""

    def __init__(self, dataset: Any, kind: Kind, name: str) -> None:
        self.dataset, self.kind, self.name = dataset, kind, name

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, row: int) -> tuple[str, Image.Image, Target]:
        where = f"row {row} of dataset '{self.name}'"
        try:
            item, target = self.dataset[row]
        except Exception as error:  # the host's readers raise whatever they like
            raise DataError(f"{where} cannot be read: {sentence(error)}") from error
        if not isinstance(item, tuple) or not isinstance(item[1], Image.Image):
            raise DataError(f"{where} is a {type(item).__name__}, expected one image")
        sample, image = item
        check_depth(image, where)
        if self.kind == "captions":
            return sample, image, some_captions(map(str, target), where)
        if isinstance(target, torch.Tensor) and target.ndim == 1:
            return sample, image, [int(flag) for flag in target]
        return sample, image, int(target)


def _identify(image: Image.Image) -> tuple[str, Image.Image]:
    """Stands in for the preprocessing in a dataset of the host: the hash of the decoded image, and the image."""
    state = hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes())
    return state.hexdigest()[:20], image


def _host_content(samples: Samples, root: Path, annotation_file: str) -> Any:
    """Names, sizes and times of all files below the root (hashing them could take hours), and 16 samples."""
    files = sorted(path for path in root.rglob("*") if path.is_file()) if root.is_dir() else []
    if annotation_file and Path(annotation_file).is_file():
        files.append(Path(annotation_file))
    listing = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    step = max(1, len(samples) // 16)
    probes = [[sample, target] for sample, _, target in map(samples.read, range(0, len(samples), step))]
    return [len(samples), listing, probes]
