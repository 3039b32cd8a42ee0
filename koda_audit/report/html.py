"""Sections as one HTML page that needs no network and no framework, and runs no script but its own.

What comes from data is escaped on its way into the page, and were it not, the page's policy refuses every script and
style but the two whose hashes it states, and every address but pictures within the page.
"""

from __future__ import annotations

import math
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markdown_it import MarkdownIt
from markupsafe import Markup

from koda_audit.document import Section, printable
from koda_audit.report.markdown import alignment, cell
from koda_audit.report.measured import (
    VERDICTS,
    environment_section,
    results_section,
    verdict_counts,
    verdict_section,
)
from koda_audit.report.pictures import lossless

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 200  # rows of a table at first, and with each press of a button: thousands would make every sorting slow
LONG = 12  # rows from which a table gets a filter and scrolls within the page
CHOSEN = ("model", "reference", "dataset", "task", "alignment", "metric", "status", "verdict")  # columns with a menu
# all that the text of a section may hold: markdown has no other rule in here, and no HTML
MARKUP = ["emphasis", "backticks", "escape", "entity", "list", "newline"]
INTERVAL = re.compile(r"([-+]?\d+\.\d+) \(")  # "0.95 (0.74 to 0.99)" is sorted by its estimate


@dataclass(frozen=True)
class Cell:
    """``key`` is the number to sort by, ``style`` the CSS class."""

    text: str
    key: str | None
    style: str | None


@dataclass(frozen=True)
class Column:
    """``choices`` are the values of its menu."""

    position: int
    name: str
    number: bool
    choices: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    columns: list[Column]
    rows: list[list[Cell]]

    @property
    def long(self) -> bool:
        return len(self.rows) > LONG


def to_html(
    title: str,
    sections: Sequence[Section],
    thumbnails: Mapping[str, bytes],
    results: pd.DataFrame | None = None,
    verdicts: pd.DataFrame | None = None,
    environment: Mapping[str, Any] | None = None,
) -> str:
    """The whole report as one page: verdicts first, then the sections, the results and the environment.

    Args:
        thumbnails: the samples of all grids, as ``thumbnail`` makes them.
    """
    first, last = verdict_section(verdicts), [*results_section(results), *environment_section(environment)]
    blocks = [_block(number, section) for number, section in enumerate([*first, *sections, *last], 1)]
    if first and verdicts is not None:
        lost = 0 if results is None else int((results["status"] == "error").sum())
        blocks[0] |= {"counts": verdict_counts(verdicts), "lost": lost, "text": ""}
    style, script = (_inline(Path(__file__).with_name(name)) for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return _template().render(
        title=title,
        blocks=blocks,
        thumbnails={sample: _uri(webp) for sample, webp in thumbnails.items()},
        shown=SHOWN,
        style=style,
        script=script,
        policy=policy,
    )


def _block(number: int, section: Section) -> dict[str, Any]:
    """What the template reads of a section."""
    text = "".join(c if c.isprintable() or c == "\n" else " " for c in section.text)
    pictures = []
    for picture in section.pictures:
        webp, (width, height) = lossless(picture.png)
        pictures.append({"title": picture.title, "uri": _uri(webp), "width": width, "height": height})
    return {
        "id": f"s{number}",
        "title": section.title,
        "folded": section.folded,
        "text": Markup(_markdown().render(text)),
        "counts": {},
        "table": None if section.table is None else _table(section.table),
        "pictures": pictures,
        "grids": [
            {"title": grid.title, "samples": list(zip(grid.ids, grid.captions, strict=True))} for grid in section.grids
        ],
    }


def _table(table: pd.DataFrame) -> Table:
    numbers = [side == "right" for side in alignment(table)]
    rows = [
        [_cell(str(name), value, number) for name, value, number in zip(table.columns, row, numbers, strict=True)]
        for row in table.itertuples(index=False)
    ]
    columns = []
    for position, (name, number) in enumerate(zip(map(str, table.columns), numbers, strict=True)):
        values = dict.fromkeys(printable(row[position].text) for row in rows) if name in CHOSEN else ()
        columns.append(Column(position, name, number, tuple(values) if len(values) > 1 else ()))
    return Table(columns, rows)


def _cell(column: str, value: Any, number: bool) -> Cell:
    text = cell(value)
    if column == "verdict" and text in VERDICTS:
        return Cell(text, None, text)
    return Cell(text, _key(value), "number" if number else None)


def _key(value: Any) -> str | None:
    """The number that a cell is sorted by, None for text and for what is not defined.

    >>> _key(0.12345), _key(3), _key("0.95 (0.74 to 0.99)"), _key("3 positive"), _key(float("nan"))
    ('0.12345', '3.0', '0.95', None, None)
    """
    if isinstance(value, str):
        estimate = INTERVAL.match(value)
        return estimate[1] if estimate else None
    if value is None or isinstance(value, bool) or not hasattr(value, "__float__"):
        return None
    number = float(value)
    return None if math.isnan(number) else str(number).replace("inf", "Infinity")


def _uri(webp: bytes) -> Markup:
    return Markup("data:image/webp;base64," + b64encode(webp).decode())


def _inline(path: Path) -> Markup:
    return Markup(path.read_text("utf-8"))


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


@lru_cache(maxsize=1)
def _markdown() -> MarkdownIt:
    return MarkdownIt("zero").enable(MARKUP)


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("koda_audit", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )
    return environment.get_template("page.html.j2")
