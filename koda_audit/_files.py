"""Writing and fingerprinting files: nothing half-written is ever left under its final name."""

from __future__ import annotations

import csv
import errno
import glob
import hashlib
import json
import math
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from koda_audit.errors import InputError, StoreError

if TYPE_CHECKING:
    import pandas as pd

ABANDONED = 3_600  # seconds after which nobody still writes a temporary file or folder
FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r]")  # the wide forms too: some programs take them alike

# what a terminal obeys, and what turns the direction of a text; not tabs and ends of lines
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside ``path``; on success it is flushed to disk and takes the place of ``path``.

    What a link points to is replaced, not the link; a device, a pipe and /dev/stdout are written to as they are.

    Raises:
        StoreError: the disk is full or the folder cannot be written; the temporary file is removed.
    """
    temporary: Path | None = None
    try:
        if _is_stream(path):
            with path.open("ab") as stream:
                yield stream
            return
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as opened:
            temporary = Path(opened.name)
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        # NamedTemporaryFile is private to the user; a store or report may be shared, as any other file
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise StoreError(f"cannot write {path}: {reason(error)}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _is_stream(path: Path) -> bool:
    """Whether it is open already, which may well be to a plain file, or is no file."""
    if str(path) in ("/dev/stdout", "/dev/stderr") or str(path.parent) == "/dev/fd":
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


def checked_folder(place: str | Path) -> Path:
    """A place for files.

    Raises:
        InputError: no path, one that no file system takes, or a file.
    """
    if not isinstance(place, (str, Path)):
        raise InputError(f"{place!r} is of type {type(place).__name__}: expected the path of a folder")
    folder = Path(place)
    try:
        is_file = not stat.S_ISDIR(folder.stat().st_mode)
    except FileNotFoundError:
        return folder
    except (OSError, ValueError) as error:  # a name that is too long, or holds a zero byte
        fault = getattr(error, "strerror", None) or error
        raise InputError(f"{str(place)[:80]!r} can be no folder: {fault}") from error
    if is_file:
        raise InputError(f"{folder} is a file: choose a folder")
    return folder


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_write(path) as stream:
        stream.write(utf8(text))


def utf8(text: str) -> bytes:
    """The text in UTF-8, with half a character, which JSON can name, spelled out.

    >>> utf8(chr(0xD800))
    b'\\\\ud800'
    """
    return text.encode(errors="backslashreplace")


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """A table as CSV, atomically; text in it is made inert."""
    safe = table.copy()
    for column in safe.columns:
        if safe[column].dtype.kind not in "fiub":
            safe[column] = [inert(value) if isinstance(value, str) else value for value in safe[column]]
    text = safe.to_csv(index=False, lineterminator="\n")
    if "\r" in text:  # would end a line for many readers, and is not quoted by itself
        text = safe.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    write_text(path, text)


def inert(text: str) -> str:
    """What neither a spreadsheet nor a terminal obeys: a leading apostrophe, control characters spelled out.

    >>> inert("=1+1"), inert(f"a{chr(27)}[31m")
    ("'=1+1", 'a\\\\x1b[31m')
    """
    text = CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return f"'{text}" if FORMULA.match(text) else text


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON, atomically."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Strict JSON: NaN and infinities become null."""
    return json.dumps(strict(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def strict(value: Any) -> Any:
    """The value in plain JSON types; numbers that JSON does not know become None."""
    if isinstance(value, Mapping):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def replace_folder(new: Path, folder: Path) -> None:
    """``new`` takes the place of ``folder``, which stays as it is where that fails.

    Raises:
        OSError: it failed.
    """
    new.chmod(0o755)  # temporary folders are private to the user
    old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))  # ``remove_abandoned`` knows its name
    replaced = folder.exists()
    try:
        if replaced:
            folder.rename(old)
        new.rename(folder)
    except OSError:
        if replaced and not folder.exists():  # else it never left, or another process has put its own there
            old.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def digest(value: Any) -> str:
    """sha256 of the canonical JSON of ``value``."""
    canonical = json.dumps(strict(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes."""
    state = hashlib.sha256()  # hashlib.file_digest needs Python 3.11
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def cache_folder() -> Path:
    """Where this package keeps what it can make again: $XDG_CACHE_HOME/koda_audit, else ~/.cache/koda_audit."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "koda_audit"


def default_store() -> Path:
    """Where embeddings and finished steps lie: ``koda_store`` in the user's cache folder."""
    return cache_folder().with_name("koda_store")


def slug(name: str) -> str:
    """A file name made from any text: no separators, no leading dot, at most 120 characters."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._").encode()[-120:].decode(errors="ignore") or "unnamed"


def check_writable(folder: Path, what: str) -> None:
    """Create ``folder`` and try a write.

    Raises:
        InputError: it cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{what} {folder} cannot be written: {reason(error)}") from error


def reason(error: OSError) -> str:
    """Why a file could not be written, and what to do about it."""
    if error.errno == errno.ENOSPC:
        return "the disk is full; free some space and run again"
    if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
        return "another process wrote there meanwhile; run again"
    return f"{(error.strerror or str(error)).lower()}; choose another place or mend its permissions"


def remove_abandoned(path: Path) -> None:
    """Temporary files and folders of writes to ``path`` that were killed."""
    for found in path.parent.glob(f".{glob.escape(path.name)}.????????"):
        with suppress(FileNotFoundError):  # another process was faster
            if time.time() - found.stat().st_mtime > ABANDONED:
                shutil.rmtree(found) if found.is_dir() else found.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
