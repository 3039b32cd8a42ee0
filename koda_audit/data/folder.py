"""A plain folder of images by class."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from koda_audit._files import digest
from koda_audit.data.dataset import IMAGE_ENDINGS, Dataset, Target, decode
from koda_audit.errors import DataError, InputError

FOLDER = "folder/"


@dataclass
class FolderSamples:
    """Images in folders by class; the id of an image is its path below the root."""

    root: Path
    files: list[tuple[str, int]]

    def __len__(self) -> int:
        return len(self.files)

    def read(self, row: int) -> tuple[str, Image.Image, Target]:
        name, label = self.files[row]
        return name, decode((self.root / name).read_bytes(), str(self.root / name)), label


def load_folder(
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
