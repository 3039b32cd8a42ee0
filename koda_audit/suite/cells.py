"""Finished cells on disk, each under a digest of all that its numbers depend on.

A cell's folder appears under its name when it is whole; nothing in it is ever changed.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from koda_audit._files import file_sha256, reason, write_json, write_text
from koda_audit.errors import StoreError
from koda_audit.tasks.protocol import Number, Queries

if TYPE_CHECKING:
    import pandas as pd

RECORD, SUM = "cell.json", "cell.sha256"
LARGE = 1 << 26  # bytes; of larger files, such as the weights of a trained tower, only the size is looked at
FORM = 7  # of cells; another one where the same version of the package writes or computes them otherwise


@dataclass(frozen=True)
class Finished:
    """What a cell came to.

    ``sections`` have title, text, table, figures (title by name) and grids; ``pictures`` has the figures by name, and
    the samples of the grids as "sample ID". ``save`` writes what else belongs to it into the folder of the cell, before
    that appears under its name.
    """

    numbers: tuple[Number, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    sections: tuple[Mapping[str, Any], ...] = ()
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    outcomes: Mapping[str, Queries] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    save: Callable[[Path], object] = lambda folder: None


class Cells:
    """A folder of finished cells, beside the store of embeddings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        return self.folder / key

    def read(self, key: str) -> dict[str, Any] | None:
        """The record of a finished cell; None where there is none, or a damaged one."""
        try:
            content = (self.path(key) / RECORD).read_bytes()
            if sha256(content).hexdigest() != (self.path(key) / SUM).read_text("utf-8"):
                return None
            found: dict[str, Any] = json.loads(content)
            return found
        except (OSError, ValueError):
            return None

    def load(self, key: str) -> Finished | None:
        """All of a finished cell; None where there is none, or a part of it is damaged."""
        import pandas as pd

        record, path = self.read(key), self.path(key)
        if record is None:
            return None
        try:
            if any(_signed(path / name) != signed for name, signed in record["files"].items()):
                return None
            with np.load(path / "outcomes.npz", allow_pickle=False) as arrays:
                outcomes = {name: (arrays[f"{name}.values"], arrays[f"{name}.image"]) for name in record["outcomes"]}
            return Finished(
                tuple(Number(**number) for number in record["numbers"]),
                record["settings"],
                tuple(record["sections"]),
                {name: pd.DataFrame(**table) for name, table in record["tables"].items()},
                {name: (path / file).read_bytes() for name, file in record["pictures"].items()},
                outcomes,
                record["facts"],
            )
        except OSError:
            return None

    def write(self, key: str, cell: Finished) -> None:
        """Put a cell there, whole or not at all.

        Raises:
            StoreError: it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(dir=self.folder, prefix=f".{key[:8]}."))
        except OSError as error:
            raise StoreError(f"cannot write to {self.folder}: {reason(error)}") from error
        try:
            files = {name: f"picture-{number:04d}" for number, name in enumerate(cell.pictures)}
            for name, picture in cell.pictures.items():
                (work / files[name]).write_bytes(picture)
            arrays: dict[str, Any] = {}
            for name, (values, image) in cell.outcomes.items():
                arrays |= {f"{name}.values": values, f"{name}.image": image}
            np.savez(work / "outcomes.npz", **arrays)
            cell.save(work)
            parts = [file for file in work.rglob("*") if file.is_file()]
            for file in parts:
                _flushed(file)
            write_json(
                work / RECORD,
                {
                    "numbers": [vars(number) for number in cell.numbers],
                    "settings": cell.settings,
                    "sections": list(cell.sections),
                    "tables": {name: as_plain(table) for name, table in cell.tables.items()},
                    "pictures": files,
                    "files": {file.relative_to(work).as_posix(): _signed(file) for file in parts},
                    "outcomes": list(cell.outcomes),
                    "facts": cell.facts,
                },
            )
            write_text(work / SUM, file_sha256(work / RECORD))
            target = self.path(key)
            if target.exists() and self.load(key) is None:
                shutil.rmtree(target)  # damaged
            if not target.exists():  # else another process put the same there
                os.replace(work, target)
        except OSError as error:
            raise StoreError(f"cannot write to {self.folder}: {reason(error)}") from error
        finally:
            shutil.rmtree(work, ignore_errors=True)


def as_plain(table: pd.DataFrame) -> dict[str, Any]:
    """A table as plain lists, which ``pandas.DataFrame(**…)`` takes back."""
    columns = list(table.columns)
    return {"data": [list(row) for row in table.itertuples(index=False, name=None)], "columns": columns}


def _signed(file: Path) -> list[Any]:
    """Its size, and its digest unless it is ``LARGE``."""
    size = file.stat().st_size
    return [size, None if size > LARGE else file_sha256(file)]


def _flushed(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
