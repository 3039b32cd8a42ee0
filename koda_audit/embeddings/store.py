"""The store: each (model, dataset) is embedded once, under a key made of every ingredient that can change a vector."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from koda_audit._files import check_writable, digest, file_sha256, write_json
from koda_audit.embeddings import files
from koda_audit.embeddings.container import Embeddings
from koda_audit.errors import KodaAuditError, KodaAuditWarning, StoreError

# the libraries that decode, preprocess, tokenise and embed: an upgrade of one of them is another key
LIBRARIES = ("clip-benchmark", "open_clip_torch", "torch", "torchvision", "pillow", "transformers", "timm", "numpy")


def library_versions() -> dict[str, str | None]:
    """Installed versions of the libraries that can change an embedding."""
    found: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


class Store:
    """A folder of embeddings that several processes may share.

    Args:
        folder: created where it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        check_writable(folder, "the embedding store")

    def path(self, ingredients: Mapping[str, Any]) -> Path:
        """The folder of the embeddings with these ingredients."""
        return self.folder / digest(ingredients)[:32]

    @contextmanager
    def locked(self, path: Path) -> Iterator[None]:
        """Hold one entry alone; another audit that is at work on it is waited for. A killed process leaves no lock."""
        lock = FileLock(path.with_suffix(".lock"))
        try:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                _warn(f"another process is embedding {path.name}: waiting for it")
                lock.acquire()
        except OSError as error:
            raise StoreError(f"{lock.lock_file} cannot be locked: {error.strerror or error}; remove it") from error
        try:
            for cut_off in path.glob(".*"):  # what a killed run was writing; nobody else can be, under the lock
                cut_off.unlink()
            yield
        finally:
            lock.release()

    def complete(self, path: Path) -> Embeddings | None:
        """What was embedded before, verified; None where something is missing or damaged (named in a warning)."""
        if not (path / files.MANIFEST).is_file():
            return None
        try:
            return Embeddings.load(path, path.name)
        except KodaAuditError as error:
            _warn(f"{error}; it is extracted again")
            # without a manifest the entry is unfinished, and the rerun mends the damaged shard alone
            (path / files.MANIFEST).unlink(missing_ok=True)
            return None

    def shard(self, path: Path, index: int) -> files.Shard | None:
        """One shard of an unfinished entry; None where it is missing or damaged."""
        try:
            return files.read_shard(path, index, path.name)
        except KodaAuditError as error:
            _warn(f"{error}; it is extracted again")
            return None

    def file_sha256(self, path: Path) -> str:
        """sha256 of a data file, remembered by its size and times of change, so that a rerun does not read it again."""
        stat = path.stat()
        record = self.folder / "hashes" / f"{digest(str(path.resolve()))[:32]}.json"
        seen = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        try:
            known = json.loads(record.read_text("utf-8"))
            if known["stat"] == seen:
                return str(known["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # never hashed, or an unreadable record: hash again
        sha256 = file_sha256(path)
        write_json(record, {"path": str(path), "stat": seen, "sha256": sha256})
        return sha256


def _warn(message: str) -> None:
    warnings.warn(message, KodaAuditWarning, stacklevel=3)
