"""Whether models and data are still the files that were embedded, without loading or reading any of them.

Names, sizes and times of change are compared, those of the inodes too, which no program can set back. Where one differs
everything is looked at again, and the content decides: a copied checkpoint is not embedded twice. What lies on a hub,
behind an address, or in what a user's loader imports is taken for unchanged; the versions of the libraries are part of
the comparison.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import koda_audit
from koda_audit.embeddings.store import library_versions
from koda_audit.suite.names import LOCAL, PYTHON, WEBDATASET, DataName, ModelName

Stamp = tuple[str, int, int, int]  # path, bytes, times of the last write and of the last change of any kind


def model_source(model: ModelName) -> Any:
    """Plain types that change when the model's files do."""
    files: list[Path] = [Path(model.pretrained)]
    if model.folder is not None:
        files += _below(model.folder)
    elif model.name.startswith(PYTHON):
        files += _user_file(model.name.removeprefix(PYTHON).rpartition(":")[0])
        files += _below(Path(model.pretrained)) if model.pretrained else ()
    return [model.name, None if model.name.startswith(LOCAL) else model.pretrained, model.model_type, stamps(files)]


def data_source(data: DataName) -> Any:
    """Plain types that change when the files of the dataset do."""
    root, files = Path(data.root), [Path(data.annotation_file), Path(data.classname_file or "")]
    files.append(Path(data.template_file or ""))
    if not data.remote:
        files += _below(root, only=(data.split if data.name.startswith(WEBDATASET) else None))
    choices = [data.annotation_file, data.classname_file, data.template_file]
    return [data.name, data.root, data.split, data.language, choices, stamps(files)]


@lru_cache(maxsize=1)  # reading the metadata of packages anew for each cell took most of a rerun
def libraries() -> Mapping[str, str | None]:
    """What can change an embedding or a number without any file of the suite being touched."""
    return {**library_versions(), "koda-audit": koda_audit.__version__}


def stamps(files: Iterable[Path]) -> list[Stamp]:
    """Of those that exist, sorted.

    >>> stamps([Path("/nowhere/at/all")])
    []
    """
    found = set()
    for file in files:
        try:
            stat = file.stat()
        except (OSError, ValueError):
            continue
        if not os.path.isdir(file):
            found.add((str(file), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    return sorted(found)


def _below(folder: Path, only: str | None = None) -> Iterator[Path]:
    """Files in a folder and below, through links too, hidden ones left out; below ``only`` and directly in it where
    that is given."""
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder above
            folders.clear()
        seen.add(real)
        if only is not None and Path(place) == folder:
            folders[:] = [name for name in folders if name == only]
        yield from (Path(place, name) for name in files if not name.startswith("."))


def _user_file(module: str) -> list[Path]:
    if module.endswith(".py"):
        return [Path(module)]
    top = find_spec(module.split(".")[0])  # of a package its __init__, and what lies beside it
    if top is None or top.origin is None:
        return []
    return [Path(top.origin), *(Path(top.origin).parent.rglob("*.py") if "." in module else ())]
