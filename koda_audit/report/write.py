"""A report on disk: report.md, figures, the tables of the tasks, results as CSV and JSON. All of it or nothing."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from PIL import Image

from koda_audit import results as results_table
from koda_audit._files import slug, write_json, write_text
from koda_audit.document import Section
from koda_audit.errors import InputError, StoreError
from koda_audit.report.markdown import to_markdown
from koda_audit.report.pictures import draw_grid, wanted_ids

if TYPE_CHECKING:
    import pandas as pd

# what a report consists of; a folder that holds anything else is not ours to replace
PARTS = {"report.md", "results.csv", "results.json", "figures", "subsets", "tables"}


def write_report(
    folder: Path,
    title: str,
    sections: Sequence[Section],
    files: Mapping[str, pd.DataFrame],
    results: Sequence[results_table.Result],
    images: Callable[[Sequence[str]], Mapping[str, Image.Image]],
) -> Path:
    """Write a report to ``folder``, replacing an earlier one; returns the path of report.md.

    Args:
        images: gives the pictures of some sample ids.

    Raises:
        InputError: the folder holds something that no report wrote.
        StoreError: it cannot be written.
    """
    check_replaceable(folder)
    grids = [grid for section in sections for grid in section.grids]
    shown = images(wanted_ids(grids)) if grids else {}
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        pictures = {}
        for grid in grids:
            pictures[grid.name] = f"figures/{slug(grid.name)}.png"
            target = work / pictures[grid.name]
            target.parent.mkdir(exist_ok=True)
            draw_grid(grid, shown).save(target)
        for name, table in files.items():
            parts = PurePosixPath(name).parts
            write_csv(work.joinpath(*(slug(part) for part in parts)), table)
        write_csv(work / "results.csv", results_table.frame(results))
        write_json(work / "results.json", results_table.records(results))
        write_text(work / "report.md", to_markdown(title, sections, pictures))
        work.chmod(0o755)
        _replace(work, folder)
    except OSError as error:
        raise StoreError(f"cannot write the report to {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder / "report.md"


def check_replaceable(folder: Path) -> None:
    """Refuse a folder that holds anything but an earlier report.

    Raises:
        InputError: names the first foreign file.
    """
    if folder.is_dir():
        foreign = sorted(path.name for path in folder.iterdir() if path.name not in PARTS)
        if foreign:
            raise InputError(f"{folder} holds '{foreign[0]}', which is no part of a report: choose another folder")
    elif folder.exists():
        raise InputError(f"{folder} is a file: choose a folder for the report")


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """A table as CSV; text that a spreadsheet would take for a formula gets a leading apostrophe."""
    path.parent.mkdir(parents=True, exist_ok=True)
    safe = table.copy()
    for column in safe.columns:
        if safe[column].dtype.kind not in "fiub":
            safe[column] = [f"'{v}" if isinstance(v, str) and v.startswith(FORMULA) else v for v in safe[column]]
    write_text(path, safe.to_csv(index=False, lineterminator="\n"))


FORMULA = ("=", "+", "-", "@", "\t", "\r")


def _replace(new: Path, folder: Path) -> None:
    old = new.with_name(f"{new.name}.old")
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
