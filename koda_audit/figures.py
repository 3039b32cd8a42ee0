"""What all figures share: one width, one style, one way to become a PNG file.

They are made for 900 pixels of width: a page or a slide. Colours are those of Okabe and Ito, which colour-blind readers
tell apart.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from koda_audit.document import printable

WIDTH, DPI = 9.0, 150  # inches; 1,350 pixels, sharp at 900
MARGIN = 0.08  # inches around what is drawn
LONGEST = 32  # characters of a model's name
TITLE = 76  # characters of a title's line
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK, FAINT = "#1F2328", "#B8BDC3"
STYLE = MappingProxyType(
    {
        "font.family": "DejaVu Sans",  # comes with matplotlib
        "font.size": 11,
        "axes.titlesize": 11,
        "axes.labelsize": 11,
        "xtick.labelsize": 11,
        "ytick.labelsize": 11,
        "legend.fontsize": 11,
        "text.color": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.edgecolor": FAINT,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "text.parse_math": False,  # a $ in the name of a model is a $
        "text.usetex": False,
    }
)


@contextmanager
def drawn(height: float, title: str, columns: int) -> Iterator[tuple[Figure, list[Axes], io.BytesIO]]:
    """An empty figure in our style, whatever that of the caller; its PNG file is in the stream after the block.

    Args:
        height: inches.
        title: wrapped where it is long.
        columns: axes side by side.

    >>> with drawn(3.0, "a title", 1) as (figure, (axes,), stream):
    ...     handles = axes.plot([0, 1], [1, 0], label="falls")
    ...     legend(figure, handles, 1)
    >>> stream.getvalue()[1:4]
    b'PNG'
    """
    stream = io.BytesIO()
    with style.context(["default", dict(STYLE)]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a script that the font does not know: boxes
        figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout=ConstrainedLayoutEngine(w_pad=MARGIN, h_pad=MARGIN))
        figure.suptitle(
            textwrap.fill(title, TITLE, break_on_hyphens=False), x=0.01, ha="left", fontsize=13, fontweight="bold"
        )
        yield figure, list(figure.subplots(1, columns, squeeze=False)[0]), stream
        # without the version of matplotlib, so that the same input gives the same bytes
        figure.savefig(stream, format="png", metadata={"Software": None})


def legend(figure: Figure, handles: list[Any], columns: int) -> None:
    """Below all axes."""
    figure.legend(handles=handles, loc="outside lower left", ncols=columns, columnspacing=1.2)


def short(name: str) -> str:
    """One line; a long name without its middle, since paths of checkpoints often differ at the end.

    >>> short("checkpoints/" + "x" * 40 + "/step-9000")
    'checkpoints/xxx…xxxxxx/step-9000'
    """
    name = printable(name)
    half = LONGEST // 2
    return name if len(name) <= LONGEST else f"{name[: half - 1]}…{name[-half:]}"
