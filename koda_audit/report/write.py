"""A report on disk: markdown, HTML, figures, the tables of the tasks, results as CSV and JSON. All of it or nothing."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from koda_audit import results as results_table
from koda_audit._files import (
    check_writable,
    file_sha256,
    reason,
    remove_abandoned,
    replace_folder,
    slug,
    write_csv,
    write_json,
    write_text,
)
from koda_audit.document import Picture, SampleGrid, Section
from koda_audit.errors import InputError, StoreError
from koda_audit.report.html import to_html
from koda_audit.report.markdown import to_markdown
from koda_audit.report.measured import environment_section, verdict_section
from koda_audit.report.pictures import draw_grid, wanted_ids

if TYPE_CHECKING:
    import pandas as pd

# What a report was made of, and the digest of each of its files; a folder that holds others is not ours to replace.
LISTING = "files.json"
LONGEST = 200  # bytes of the folder's name, beside which a temporary one has more


def write_report(
    folder: Path,
    title: str,
    sections: Sequence[Section],
    files: Mapping[str, pd.DataFrame],
    results: Sequence[results_table.Result],
    thumbnails: Callable[[Sequence[str]], Mapping[str, bytes]],
    verdicts: pd.DataFrame | None = None,
    environment: Mapping[str, Any] | None = None,
    beside: Callable[[Path], object] = lambda folder: None,
    made_of: str | None = None,
) -> Path:
    """Write a report to ``folder``, replacing an earlier one; returns the path of report.md.

    Args:
        thumbnails: gives the pictures of some sample ids, as ``thumbnail`` makes them.
        verdicts: a row a gate, its ``verdict`` one of PASS, WARN, FAIL and ERROR; shown first.
        environment: what the whole run was made with; shown last.
        beside: writes what else belongs to the report into the folder it is given.
        made_of: a digest of all that the report depends on, for ``is_current``.

    Raises:
        InputError: the folder holds something that no report wrote; two figures of the same name.
        StoreError: it cannot be written.
    """
    check_replaceable(folder)
    figures = [figure for section in sections for figure in section.figures]
    pictures = _paths(figures)
    grids = [figure for figure in figures if isinstance(figure, SampleGrid)]
    shown = thumbnails(wanted_ids(grids)) if grids else {}
    folder = folder.resolve() if folder.is_symlink() else folder
    check_writable(folder.parent, "the folder of the report")
    remove_abandoned(folder)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        for figure in figures:
            target = work / pictures[figure.name]
            target.parent.mkdir(exist_ok=True)
            if isinstance(figure, Picture):
                target.write_bytes(figure.png)
            else:
                draw_grid(figure, shown).save(target, compress_level=1)  # a fifth larger, twice as quick
        for name, table in files.items():
            target = work.joinpath(*(slug(part) for part in PurePosixPath(name).parts))
            if target.exists():
                raise InputError(f"two tables of the report would be written to {target.relative_to(work)}: '{name}'")
            write_csv(target, table)
        numbers = results_table.frame(results)
        write_csv(work / "results.csv", numbers)
        write_json(work / "results.json", results_table.records(results))
        beside(work)
        whole = [*verdict_section(verdicts), *sections, *environment_section(environment)]
        write_text(work / "report.md", to_markdown(title, whole, pictures))
        write_text(work / "report.html", to_html(title, sections, shown, numbers, verdicts, environment))
        write_json(work / LISTING, {"made_of": made_of, "files": _sums(work)})
        replace_folder(work, folder)
    except OSError as error:
        raise StoreError(f"cannot write the report to {folder}: {reason(error)}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder / "report.md"


def is_current(folder: Path, made_of: str) -> bool:
    """Whether the folder holds the report of this digest, each file as it was written."""
    if not (folder / LISTING).is_file():
        return False
    listing = json.loads((folder / LISTING).read_text("utf-8"))
    return bool(listing == {"made_of": made_of, "files": _sums(folder)})


def _sums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / LISTING)
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}


def check_replaceable(folder: Path) -> None:
    """Refuse a folder that holds anything but an earlier report, file by file.

    Raises:
        InputError: names the first foreign file, or says why the folder cannot be read.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: choose a folder for the report")
    if os.path.ismount(folder):
        raise InputError(f"{folder} is a mount point, which no report can replace: choose a folder within it")
    if len(folder.name.encode()) > LONGEST:
        raise InputError(f"the name '{folder.name[:20]}…' is too long for a folder: take at most {LONGEST} bytes")
    try:
        found = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
        listing = folder / LISTING
        ours = set(json.loads(listing.read_text("utf-8"))["files"]) if listing.is_file() else set()
        folders = {place.as_posix() for name in ours for place in PurePosixPath(name).parents}
        links = {name for name in folders if (folder / name).is_symlink()} - {"."}
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}; choose another folder") from error
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise InputError(f"{folder / LISTING} is damaged: remove {folder}, or choose another folder") from error
    foreign = sorted((found - ours - folders - {LISTING}) | links)
    if foreign:
        raise InputError(f"{folder} holds '{foreign[0]}', which no report wrote: choose another folder")


def _paths(figures: Sequence[Picture | SampleGrid]) -> dict[str, str]:
    """Name of each figure -> path of its file within the report."""
    paths: dict[str, str] = {}
    for figure in figures:
        path = f"figures/{slug(figure.name)}.png"
        if path in paths.values():
            raise InputError(f"two figures of the report would be written to {path}: give them other names")
        paths[figure.name] = path
    return paths
