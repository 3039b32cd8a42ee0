"""What a reader sees of koda_similarity: every measure of every modality."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd

from koda_audit.document import Picture, Section
from koda_audit.embeddings.container import Embeddings
from koda_audit.figures import INK, drawn, short
from koda_audit.registry import measures

DARK = 0.6  # from which on a cell takes white ink

READING = (
    "A similarity is 1 where both models relate the samples to one another in the same way, whatever the coordinates, "
    "and says something where it stands out from *chance*, its mean when samples are paired at random."
)
MORE = (
    "*itself* is the listed model against itself in other batches, the most that can be expected (less than 1 where "
    "samples share a text, as they do with classes: ties among neighbours are drawn). Rows have length 1; *joint* "
    "is the image row beside the text row. cka_linear, cka_rbf and procrustes are far above 0 by chance where samples "
    "are few for the width; cka_linear_debiased is not. High similarity does not say that two models do a task "
    "equally well, nor low similarity that they do not."
)


def similarity_section(table: pd.DataFrame, target: Embeddings, reference: Embeddings) -> Section:
    ours, theirs = (
        str(model.meta.get("model", role)) for model, role in ((target, "target"), (reference, "reference"))
    )
    shown = table.rename(columns={"null_mean": "chance", "p_value": "p"}).dropna(axis="columns", how="all")
    shown = shown.drop(columns="rows" if (shown["rows"] == "all").all() else [])
    title = f"Similarity of {ours} and {theirs}"
    picture = Picture("similarity", title, partial(similarity_map, table, ours, theirs))
    return Section(f"How alike {ours} and {theirs} are", f"{READING} {MORE}", shown, pictures=(picture,))


def similarity_map(table: pd.DataFrame, ours: str, theirs: str) -> bytes:
    """Measures by modalities; colours from 0 to 1, none for a measure that does not end in 1 for equal models.

    Args:
        table: ``measure``, ``modality``, ``value``, and ``null_mean``, which stands in brackets where it is known.
        ours, theirs: names of the models.

    Returns:
        A PNG file; the same bytes for the same input.

    >>> row = {"measure": "rsa", "modality": "image", "value": 0.8, "null_mean": 0.0}
    >>> similarity_map(pd.DataFrame([row]), "a", "b")[1:4]
    b'PNG'
    """
    names, modalities = table["measure"].unique(), table["modality"].unique()
    values, chance = (
        table.pivot(index="measure", columns="modality", values=column).loc[names, modalities].to_numpy(dtype=float)
        for column in ("value", "null_mean")
    )
    chance = chance.round(2) + 0.0  # never -0.00
    found = [measures().load(name) for name in names]
    coloured = np.array([measure.higher_is_similar and measure.high == 1 for measure in found])
    colours = np.where(coloured[:, None], values.clip(0, 1), np.nan)
    title = f"Similarity of {short(ours)} and {short(theirs)}"
    with drawn(1.5 + 0.5 * len(names), title, 1) as (figure, (axes,), stream):
        image = axes.imshow(colours, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for row, column in np.ndindex(values.shape):
            text = f"{values[row, column]:.3f}"
            if np.isfinite(chance[row, column]):
                text += f"  ({chance[row, column]:.2f})"
            ink = "white" if colours[row, column] > DARK else INK
            axes.text(column, row, text, ha="center", va="center", color=ink)
        axes.set_xticks(range(len(modalities)), modalities)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("in brackets: by chance" if np.isfinite(chance).any() else "")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        figure.colorbar(image, ax=axes, label="similarity", fraction=0.04, pad=0.02)
    return stream.getvalue()
