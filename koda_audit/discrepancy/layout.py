"""Where the samples of groups lie in the plane, under both models: for a picture, which is no evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from koda_audit._arrays import Vectors
from koda_audit.discrepancy.points import kernel_points

MOST = 300  # samples a model: what a reader can tell apart, and t-SNE does exactly within a second or two
OTHERS = 100  # of them from outside the groups, where there are as many
PERPLEXITY = 30
FEWEST = 4  # samples that can be laid out


@dataclass(frozen=True)
class Layout:
    """``groups`` (k,) their names, ``labels`` (m,) the group of each sample, -1 for none; "target" and "reference"
    -> ``places`` (m, 2), without a unit.
    """

    groups: tuple[str, ...]
    labels: NDArray[np.int64]
    places: Mapping[str, NDArray[np.float64]]


def group_layout(
    kernel: str,
    vectors: Mapping[str, Mapping[str, Vectors]],
    sigmas: Mapping[str, Mapping[str, float]],
    members: pd.DataFrame,
    seed: int = 0,
) -> Layout | None:
    """The groups' samples, and some others, in the plane by t-SNE of each model's points on its own.

    At most 300 samples: up to 100 drawn from outside the groups, and the heaviest of each group, as many of each as
    there is room for. Exact gradients from the first two principal components, so the same input gives the same
    picture on the same machine. Distances, sizes and the place of a group in such a picture mean nothing; only who lies
    beside whom.

    Args:
        kernel: a name of ``table.KERNELS``; it says which points are laid out, see ``kernel_points``.
        vectors: "target" and "reference" -> modality -> (n, d).
        sigmas: "target" and "reference" -> modality -> width, for "rbf"; else empty mappings.
        members: a row per sample of a group, heaviest first within it: ``group``, ``row``. A sample of several groups
            is shown in the first.
        seed: of the samples outside the groups.

    Returns:
        None where there is no group, or fewer than 4 samples in all.

    >>> import torch
    >>> vectors = {role: {"image": torch.arange(20.0).reshape(10, 2)} for role in ("target", "reference")}
    >>> members = pd.DataFrame({"group": 1, "row": [3, 4]})
    >>> layout = group_layout("cosine", vectors, {"target": {}, "reference": {}}, members)
    >>> layout.groups, layout.labels.tolist(), layout.places["target"].shape
    (('group 1',), [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0], (10, 2))
    """
    numbers = list(dict.fromkeys(members["group"]))
    groups = tuple(f"group {number}" for number in numbers)
    n = len(next(iter(vectors["target"].values())))
    if not groups or n < FEWEST:
        return None
    single = members.assign(label=members["group"].map(numbers.index)).drop_duplicates("row")
    outside = np.setdiff1d(np.arange(n), members["row"].to_numpy())
    others = np.random.default_rng(seed).permutation(outside)[:OTHERS]
    shown = single[single.groupby("label").cumcount() < max((MOST - len(others)) // len(groups), 1)].head(MOST)
    # the others first, so that groups are drawn over them
    rows = np.concatenate([others, shown["row"].to_numpy()])
    labels = np.concatenate([np.full(len(others), -1), shown["label"].to_numpy()])
    if len(rows) < FEWEST:
        return None
    places = {role: _plane(kernel_points(kernel, vectors[role], sigmas[role], rows)) for role in vectors}
    return Layout(groups, labels, places)


def _plane(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(m, 2) t-SNE of points (m, D)."""
    centred = points - points.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    start = np.zeros((len(points), 2))
    width = min(2, len(singular))
    start[:, :width] = left[:, :width] * singular[:width]
    # the size that t-SNE wants to start from; a little noise parts samples that are equal
    start *= 1e-4 / max(start[:, 0].std(), 1e-300)
    start += np.random.default_rng(0).normal(scale=1e-6, size=start.shape)
    tsne = TSNE(
        perplexity=min(PERPLEXITY, (len(points) - 1) / 3), method="exact", init=start.astype(np.float32), random_state=0
    )
    places: NDArray[np.float64] = tsne.fit_transform(centred)
    return places
