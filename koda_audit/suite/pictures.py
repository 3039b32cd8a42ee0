"""Pictures of several models at once. They are drawn from finished tables, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

NUMBERS = 8  # models up to which the cells of a map have room for theirs
DARK = 0.6  # from which on a cell takes white ink

Pairs = Mapping[tuple[str, str], float]  # of a row's model and a column's


def model_maps(maps: Mapping[str, Pairs], title: str, rows: str, columns: str, highest: float | None = 1.0) -> bytes:
    """A square of models for each title in ``maps``, side by side; a cell without a number stays empty.

    Args:
        maps: numbers from 0.
        rows, columns: what the models are there.
        highest: number of the darkest colour; None: the largest that there is.

    Returns:
        A PNG file; the same bytes for the same input.

    >>> model_maps({"rsa": {("a", "b"): 0.5, ("b", "a"): 0.5}}, "How alike", "model", "reference")[1:4]
    b'PNG'
    """
    from koda_audit.figures import INK, drawn, short

    models = list(dict.fromkeys(model for pairs in maps.values() for pair in pairs for model in pair))
    squares = [np.array([[pairs.get((a, b), np.nan) for b in models] for a in models]) for pairs in maps.values()]
    top = highest or max(float(np.nanmax(square)) for square in squares) or 1.0
    names = [short(model) for model in models]
    with drawn(2.0 + 0.45 * len(models), title, len(maps)) as (figure, panels, stream):
        for axes, name, square in zip(panels, maps, squares, strict=True):
            image = axes.imshow(square.clip(0, top), cmap="Blues", vmin=0, vmax=top, aspect="auto")
            for row, column in np.argwhere(np.isfinite(square)) if len(models) <= NUMBERS else ():
                ink = "white" if square[row, column] > DARK * top else INK
                axes.text(column, row, f"{square[row, column]:.2g}", ha="center", va="center", color=ink)
            axes.set_xticks(range(len(models)), names, rotation=30, ha="right", rotation_mode="anchor")
            axes.set_yticks(range(len(models)), names)
            axes.set_xlabel(columns)
            axes.tick_params(length=0)
            axes.set_title(name)
            axes.spines[:].set_visible(False)
        panels[0].set_ylabel(rows)
        for axes in panels[1:]:
            axes.set_yticks([])
        figure.colorbar(image, ax=panels, fraction=0.03, pad=0.02)
    return stream.getvalue()


def robustness_curves(table: pd.DataFrame, title: str) -> bytes:
    """Agreement over alpha, a line a model, and accuracy under noise beside it where it is known.

    Args:
        table: ``model``, ``alpha`` and the columns of ``GapRobustness.frame``; bars are standard errors.

    Returns:
        A PNG file; the same bytes for the same input.

    >>> table = pd.DataFrame({"model": "a", "alpha": [0.0, 1.0], "agreement": [0.6, 0.7], "agreement_se": 0.01})
    >>> robustness_curves(table, "under noise")[1:4]
    b'PNG'
    """
    from koda_audit.figures import COLOURS, FAINT, drawn, legend, short

    shown = [name for name in ("agreement", "noisy_accuracy") if name in table and table[name].notna().any()]
    models = list(dict.fromkeys(table["model"]))
    with drawn(4.2 + 0.25 * (len(models) // 4), title, len(shown)) as (figure, panels, stream):
        for axes, name in zip(panels, shown, strict=True):
            handles = [
                axes.errorbar(
                    *(curve["alpha"], curve[name], curve[f"{name}_se"]),
                    color=COLOURS[place % len(COLOURS)],
                    linestyle=("-", "--", ":")[place // len(COLOURS) % 3],
                    marker="o",
                    markersize=5,
                    capsize=3,
                    label=short(model),
                )
                for place, model in enumerate(models)
                for curve in [table[table["model"] == model]]
            ]
            axes.set_ylabel("accuracy under noise" if name == "noisy_accuracy" else name)
            axes.set_xlabel("alpha (0: as it is, 1: all that can be closed)")
            axes.grid(axis="y", color=FAINT, linewidth=0.5)
        legend(figure, handles, 4)
    return stream.getvalue()


def symmetric(pairs: Sequence[tuple[str, str, float]]) -> Pairs:
    """Both ways.

    >>> symmetric([("a", "b", 0.5)])
    {('a', 'b'): 0.5, ('b', 'a'): 0.5}
    """
    return {pair: value for a, b, value in pairs for pair in ((a, b), (b, a))}
