"""A plain folder of images by class."""

from __future__ import annotations

import os
import re
import stat
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from PIL import Image

from koda_audit._files import digest
from koda_audit.data.dataset import IMAGE_ENDINGS, Dataset, Target, check_name, decode, digest_of, reading
from koda_audit.data.webdataset import read_text
from koda_audit.errors import DataError, InputError, KodaAuditWarning

FOLDER = "folder/"
DEFAULT_SPLIT = "test"  # the host's, and what a folder without splits is
_SPLITS = ("train", "val", "valid", "validation", "test", "dev")
_OTHER_IMAGES = ("gif", "bmp", "tif", "tiff", "avif", "heic")
_KNOWN = ", ".join(f".{ending}" for ending in IMAGE_ENDINGS)


@dataclass
class FolderSamples:
    """Images in folders by class; the id of an image is its path below the root."""

    in_order = False  # no annotation: not a field

    root: Path
    files: list[tuple[str, int]]

    def __len__(self) -> int:
        return len(self.files)

    def read(self, row: int) -> tuple[str, Image.Image, Target]:
        name, label = self.files[row]
        path = self.root / name
        with reading(path):
            raw = path.read_bytes()
        return name, decode(raw, str(path)), label


def load_folder(
    name: str,
    root: Path,
    split: str,
    language: str,
    class_names: list[str] | None,
    templates: Any,
    hash_file: Callable[[Path], str],
) -> Dataset:
    """Build the dataset; ``class_names`` and ``templates`` take the place of its own."""
    base, classes = class_images(name, root, split)
    unread = [path for path in _visible(base) if _ending(path) in IMAGE_ENDINGS + _OTHER_IMAGES and not path.is_dir()]
    files: list[tuple[str, int]] = []
    for label, found in enumerate(classes.values()):
        images = [file for file in found if _ending(file) in IMAGE_ENDINGS]
        unread += [file for file in found if _ending(file) in _OTHER_IMAGES]
        files += [(str(image.relative_to(base)), label) for image in images]
    if unread:
        warnings.warn(
            KodaAuditWarning(
                f"{len(unread)} images in {base} are not read, first {unread[0].relative_to(base)}: "
                f"only {_KNOWN} in a class folder are"
            ),
            stacklevel=2,
        )
    for file, _ in files:
        _check_image(base, file)
    content = [[file, digest_of(base / file, hash_file)] for file, _ in files]
    if class_names is not None and len(class_names) != len(classes):
        raise InputError(
            f"--custom_classname_file names {len(class_names)} classes for '{name}', "
            f"{base} has {len(classes)} class folders"
        )
    own_templates = read_text(str(root), "zeroshot_classification_templates.txt")
    if templates is None and own_templates is not None:
        templates = [line.strip() for line in own_templates.splitlines() if line.strip()]
    return Dataset(
        name,
        split,
        language,
        "classes",
        FolderSamples(base, files),
        digest(content),
        tuple(class_names or [re.sub("[_-]+", " ", folder.name) for folder in classes]),
        ["a photo of a {c}"] if templates is None else templates,
    )


def class_images(name: str, root: Path, split: str) -> tuple[Path, dict[Path, list[Path]]]:
    """As ``class_folders``, with the files of each class.

    Raises:
        InputError: as there.
        DataError: as there, or a class holds no images.
    """
    base, folders = class_folders(name, root, split)
    files = {folder: _files_below(folder) for folder in folders}
    for folder, found in files.items():
        if not any(_ending(file) in IMAGE_ENDINGS for file in found):
            raise DataError(f"class folder {folder} holds no images ({_KNOWN}): convert its images, or remove it")
    return base, files


def class_folders(name: str, root: Path, split: str) -> tuple[Path, list[Path]]:
    """The folder of the split (or the root, where there is none) and the folders of its classes, in order.

    Raises:
        InputError: the root holds splits, but not this one; or none, and this is not the default one.
        DataError: there are no class folders, or they cannot be read.
    """
    with reading(root):
        base = root / split if (root / split).is_dir() else root
        folders = [path for path in _visible(base) if path.is_dir()]
        splits = [folder.name for folder in folders if folder.name.lower() in _SPLITS and _holds_folders_only(folder)]
    if base == root and splits:
        raise InputError(f"dataset '{name}': {root} has no split '{split}', choose {' or '.join(splits)} (--split)")
    if base == root and folders and split != DEFAULT_SPLIT:
        raise InputError(
            f"dataset '{name}': {root} has no split '{split}', its class folders are the split '{DEFAULT_SPLIT}': "
            f"make {root / split}/CLASS and {root / DEFAULT_SPLIT}/CLASS for whatever is fitted or trained, a linear "
            "probe too; an alignment may be fitted on a part of it (--koda_fit_share) or on all (transductive)"
        )
    if not folders:
        raise DataError(f"dataset '{name}': {base} has no class folders with images (CLASS/NAME.jpg, .png or .webp)")
    return base, folders


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _holds_folders_only(folder: Path) -> bool:
    inside = _visible(folder)
    return any(path.is_dir() for path in inside) and not any(
        path.is_file() and _ending(path) in IMAGE_ENDINGS for path in inside
    )


def _files_below(folder: Path) -> list[Path]:
    """Everything in a class folder that is neither a folder nor hidden, through links too."""

    def refuse(error: OSError) -> NoReturn:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error

    found, seen = [], set()
    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            raise DataError(f"{place} is a link to a folder that is in class folder {folder} already: remove it")
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in files if not name.startswith(".")]
    return sorted(found)


def _check_image(base: Path, name: str) -> None:
    check_name(name, base)
    with reading(base / name):
        # opening a pipe would wait for ever
        if not stat.S_ISREG((base / name).stat().st_mode):
            raise DataError(f"{base / name} is no regular file: remove it")


def _ending(file: Path) -> str:
    return file.suffix.lower().removeprefix(".")
