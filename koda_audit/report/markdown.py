"""Sections as markdown. All text that comes from data is escaped: a caption is never markup."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from koda_audit.document import Section, escape, printable

if TYPE_CHECKING:
    import pandas as pd


def to_markdown(title: str, sections: Sequence[Section], pictures: Mapping[str, str]) -> str:
    """The whole report. ``pictures`` maps the name of a picture or grid to the path of its file."""
    lines = [f"# {escape(title)}", ""]
    for section in sections:
        lines += [f"## {escape(section.title)}", ""]
        if section.folded:
            lines += ["<details><summary>Open</summary>", ""]
        if section.text:
            lines += [section.text, ""]
        if section.table is not None:
            lines += [markdown_table(section.table), ""]
        for figure in section.figures:
            lines += [f"![{escape(figure.title)}]({pictures[figure.name]})", ""]
        if section.folded:
            lines += ["</details>", ""]
    return "\n".join(lines)


def markdown_table(table: pd.DataFrame) -> str:
    """A GitHub table; numbers to four significant digits."""
    rows = [[escape(cell(value)) for value in row] for row in table.itertuples(index=False)]
    headers = [escape(str(column)) for column in table.columns]
    return str(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True, colalign=alignment(table)))


def terminal_table(table: pd.DataFrame) -> str:
    """The same table for a terminal."""
    rows = [[printable(cell(value)) for value in row] for row in table.itertuples(index=False)]
    return str(
        tabulate(rows, headers=list(table.columns), tablefmt="simple", disable_numparse=True, colalign=alignment(table))
    )


def cell(value: Any) -> str:
    """A value as a reader wants it: four significant digits, a dash for what is not defined."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        return str(value)
    number = float(value)
    if math.isfinite(number) and number == int(number) and abs(number) < 1e6:
        return str(int(number))
    return f"{number:.4g}"


def alignment(table: pd.DataFrame) -> list[str]:
    """Numbers to the right."""
    return ["right" if kind in "fiu" else "left" for kind in (table[column].dtype.kind for column in table.columns)]
