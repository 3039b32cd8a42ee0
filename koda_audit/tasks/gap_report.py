"""What a reader sees of koda_modality_gap: its numbers beside their nulls, and both modalities along the gap."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd
from torch import Tensor

from koda_audit._gap.projection import GapPlane, gap_plane
from koda_audit.document import Picture, Section
from koda_audit.embeddings.container import Embeddings
from koda_audit.figures import COLOURS, drawn, legend, short

SHOWN = (
    *("centroid_gap", "raw_gap_rms", "dist_gap_paired", "dist_gap_rel", "rmg", "pair_cosine"),
    *("energy_centred", "mmd2_u_centred", "frechet_cov", "gap_dir_var_image", "gap_dir_var_text", "linear_sep"),
    *("mix_bias_image", "mix_bias_text", "effective_dim_image", "effective_dim_text"),
)
DOTS = 2_000  # of a modality in a picture
CLASSES = 5  # at either end

READING = (
    "*centroid_gap* is the distance of the mean image from the mean text, 0 (none) to 2 (opposite), and says something "
    "where it stands out from its *null*, the same number for two random halves of one modality. An "
    "interval takes off the bias that few samples have, and so may lie beside its value."
)
MORE = (
    "What is left once both are centred is *dist_gap_rel*: 0 where the two members of each pair coincide, 1 where they "
    "lie as far apart as an image and the text of another one. *mix_bias* is the share of rows whose nearest neighbour "
    "has their own modality: near 1 the modalities do not mix, whatever their centroids do. *frechet_cov* with fewer "
    "rows than columns is mostly bias, and its null shows how much of it. `tables/gap.csv` has all keys with their "
    "definitions."
)
DECISIONS = (
    "*prediction_gini* says how unevenly zero-shot decisions fall on the classes, 0 (evenly) to nearly 1 (all on one); "
    "above *label_gini* some classes are hubs that take images of others. *class_bias_spread* is how differently "
    "closing the gap would raise the scores of the classes: 0 changes no decision."
)


def gap_section(model: Embeddings, image: Tensor, text: Tensor, kind: str, table: pd.DataFrame, seed: int) -> Section:
    name = str(model.meta.get("model", "the model"))
    shown = table.set_index("metric").loc[list(SHOWN)].drop(columns="definition").reset_index()
    plane = gap_plane(image, text)
    pictures = []
    if plane is not None:
        drawn_later = partial(gap_projection, plane, name, seed)
        pictures.append(Picture("gap", f"Images and texts of {name} along the gap", drawn_later))
    return Section(
        f"Modality gap of {name}",
        f"{len(image):,} images and {kind}. {READING} {MORE}",
        shown,
        pictures=tuple(pictures),
    )


def decisions_section(values: Mapping[str, float]) -> Section:
    table = pd.DataFrame({"zero-shot decisions": list(values), "value": list(values.values())})
    return Section("How zero-shot decisions spread over the classes", DECISIONS, table)


def classes_section(frame: pd.DataFrame) -> Section:
    """The classes whose pairs lie farthest apart and nearest."""
    columns = ["class", "n", "raw_gap_rms", "pair_cosine", "centroid_gap", "mean_length_image"]
    ordered = frame.sort_values("raw_gap_rms", ascending=False, kind="stable")[columns]
    text = "Classes by the distance of an image from its text (*raw_gap_rms*), farthest first."
    if len(ordered) > 2 * CLASSES:
        ordered = pd.concat([ordered.head(CLASSES), ordered.tail(CLASSES)])
        text += f" The {CLASSES} farthest and the {CLASSES} nearest; `tables/gap_by_class.csv` has all {len(frame)}."
    return Section("The gap of each class", text, ordered)


def gap_projection(plane: GapPlane, name: str, seed: int) -> bytes:
    """Both modalities along the gap and across it, and beside that how they are distributed along the gap.

    Args:
        plane: from ``gap_plane``; of more than 2,000 rows a side, so many are drawn as dots. The bars count all.
        name: of the model.
        seed: of the dots.

    Returns:
        A PNG file; the same bytes for the same input.

    >>> gap_projection(GapPlane(np.eye(2), -np.eye(2), np.array([0.1, 0.9])), "a", 0)[1:4]
    b'PNG'
    """
    sides = {"image": plane.image, "text": plane.text}
    length = plane.image[:, 0].mean() - plane.text[:, 0].mean()
    title = f"{short(name)}: the centroids of images and texts lie {length:.3g} apart"
    with drawn(4.6, title, 2) as (figure, (dots, bars), stream):
        ends = np.concatenate([values[:, 0] for values in sides.values()])
        edges = np.histogram_bin_edges(ends, bins=40).tolist()
        for (modality, values), colour in zip(sides.items(), COLOURS, strict=False):
            rows = np.random.default_rng(seed).permutation(len(values))[:DOTS]
            dots.scatter(values[rows, 0], values[rows, 1], s=9, color=colour, alpha=0.5, linewidths=0)
            weights = np.full(len(values), 1 / len(values))
            label = f"{modality}s ({len(values):,})"
            bars.hist(values[:, 0], edges, weights=weights, color=colour, alpha=0.7, label=label)
            for axes in (dots, bars):
                axes.axvline(values[:, 0].mean(), color=colour, linewidth=1.5)
        along, across = (f"{share:.1%} of the variance within" for share in plane.share)
        dots.set_xlabel(f"along the gap ({along})")
        dots.set_ylabel(f"across it ({across})")
        bars.set_xlabel("along the gap; lines: centroids")
        bars.set_ylabel("share of the modality")
        bars.sharex(dots)
        legend(figure, bars.get_legend_handles_labels()[0], 2)
    return stream.getvalue()
