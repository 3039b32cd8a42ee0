"""From the host's name of a dataset to its samples."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path

from koda_audit._files import digest, file_sha256
from koda_audit.data.address import check_plain, is_remote
from koda_audit.data.dataset import (
    Dataset,
    Kind,
    digest_of,
    reading,
    sentence,
)
from koda_audit.data.folder import FOLDER, class_images, load_folder
from koda_audit.data.host import host_content, identify, indexed
from koda_audit.data.prompts import class_prompts, custom_class_names, custom_templates
from koda_audit.data.webdataset import TarSamples, local_shards, read_text, shard_count
from koda_audit.errors import DataError, InputError, unknown

WEBDATASET = "wds/"


def check_dataset(name: str, root: str, split: str = "test") -> None:
    """Find what is wrong with a name and the layout of its folder before anything is loaded.

    Raises:
        InputError: the host does not know the name (near matches shown), its folder or split does not exist, or its
            address or path is one that a shell would obey.
        DataError: the folder cannot be read, or lacks shards, class folders or images in one.
    """
    if name.startswith((WEBDATASET, FOLDER)):
        remote = name.startswith(WEBDATASET) and is_remote(root)
        with reading(root):
            if not remote and not Path(root).is_dir():
                raise InputError(f"dataset '{name}': there is no folder {root} (--dataset_root)")
        if name.startswith(FOLDER):
            class_images(name, Path(root), split)
        elif remote:
            shard_count(root, split)
        else:
            local_shards(root, split, None)
        return
    _check_downloads(root, split)
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
        task = get_dataset_default_task(name)
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
    if name.startswith(WEBDATASET):
        shards = local_shards(root, split, cache_dir)
        if kind == "classes":
            names = tuple(names or _lines(root, "classnames.txt"))
            templates = templates or _lines(root, "zeroshot_classification_templates.txt")
        members = TarSamples(shards, {"retrieval": "txt", "multilabel": "npy"}.get(form, "cls"))
        sums = [[shard.name, digest_of(shard, hash_file)] for shard in shards]
        return _checked(Dataset(name, split, language, kind, members, digest([form, sums]), names, templates))
    _check_downloads(root, split, annotation_file, language)
    try:
        built = build_dataset(
            dataset_name=name,
            root=root,
            transform=identify,
            split=split,
            annotation_file=annotation_file,
            download=True,
            language=language,
            task=task,
            custom_template_file=template_file,
            custom_classname_file=classname_file,
        )
    except (Exception, SystemExit) as error:  # the host's builders raise whatever they like, and some exit
        raise DataError(f"dataset '{name}' cannot be built from {root}, split {split}: {sentence(error)}") from error
    classes = tuple(map(str, built.classes)) if kind == "classes" and built.classes is not None else None
    templates = built.templates if kind == "classes" else None
    samples = indexed(built, kind, name)
    content = host_content(samples, Path(root), annotation_file)
    return _checked(Dataset(name, split, language, kind, samples, digest(["", content]), classes, templates))


def _check_downloads(root: str, split: str, annotation_file: str = "", language: str = "en") -> None:
    """Raises InputError for what the host would put into a shell's command line, and should not."""
    for what, text in {
        "the root": root,
        "the split": split,
        "the annotation file": annotation_file,
        "the language": language,
    }.items():
        check_plain(what, text)


def _lines(root: str, file: str) -> list[str]:
    """The lines of a text file of a webdataset, as the host reads them."""
    text = read_text(root, file)
    if text is None:
        raise DataError(f"{root}/{file} is missing: write one a line, or use the --custom_… option in its place")
    return [line.strip() for line in text.splitlines()]


def _checked(dataset: Dataset) -> Dataset:
    """The dataset, if every class has a name and prompts."""
    if dataset.class_names == ():
        raise DataError(f"dataset '{dataset.name}' has no class names (a webdataset has them in classnames.txt)")
    for row, class_name in enumerate(dataset.class_names or ()):
        if not class_name.strip():
            raise DataError(f"dataset '{dataset.name}': the name of class {row} is blank (line {row + 1} of the names)")
        class_prompts(class_name, dataset.templates)
    return dataset
