"""What a task wants a reader to see, as data: sections of text, tables, figures and sample grids.

A task fills these in without knowing how they will be drawn; the report turns them into markdown, pictures and files.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SampleGrid:
    """Pictures of some samples, best first. ``name`` is the file name without its ending."""

    name: str
    title: str
    ids: tuple[str, ...]
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """A figure of a task: a PNG file, or what draws one once it is shown. ``title`` stands where the picture is not."""

    name: str
    title: str
    drawn: bytes | Callable[[], bytes] = field(repr=False)

    @cached_property
    def png(self) -> bytes:
        """The file."""
        return self.drawn if isinstance(self.drawn, bytes) else self.drawn()


@dataclass(frozen=True)
class Section:
    """One heading of the report: text, then the table, then pictures, then grids.

    What is ``folded`` is there to look up, and closed until then. ``key`` tells a report what it is. ``text`` is
    markdown: what comes from data goes through ``escape``. All other text is escaped by the report.
    """

    title: str
    text: str = ""
    table: pd.DataFrame | None = None
    grids: tuple[SampleGrid, ...] = ()
    pictures: tuple[Picture, ...] = ()
    folded: bool = False
    key: str = ""

    @property
    def figures(self) -> tuple[Picture | SampleGrid, ...]:
        """All that is shown as a picture, in order."""
        return self.pictures + self.grids


def escape(text: str) -> str:
    """Text of unknown origin as inert markdown: no markup, no HTML, one line.

    >>> escape("<b>*x*</b> | [a](b)")
    '&lt;b&gt;\\\\*x\\\\*&lt;/b&gt; \\\\| \\\\[a\\\\](b)'
    """
    text = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # an underscore within a word is no markup, and names are full of them; addresses would become links
    links = r":(?=//)|(?<=www)\.|(?<!\w)@|@(?=[\w-]+\.)"
    return re.sub(rf"([\\`*\[\]|~#$!]|(?<![^\W_])_|_(?![^\W_])|{links})", r"\\\1", text)


def printable(text: str) -> str:
    """One line without control characters (a terminal would obey them)."""
    if not text.isprintable():  # most are
        text = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(text.split())
