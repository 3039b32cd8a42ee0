"""Does anything that the groups were not made from say that their samples belong together?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from koda_audit._arrays import OnDevice
from koda_audit._kernels.directions import directions
from koda_audit.discrepancy.groups import Group
from koda_audit.discrepancy.themes import Themes
from koda_audit.embeddings.container import Embeddings

DRAWS = 999  # random sets
TIE = 1e-12  # equal but for rounding
SETS = 50_000  # rows of random sets that are added up at a time


def witnesses(model: Embeddings, modality: str, themes: Themes | None) -> Iterator[tuple[str, Any]]:
    """The witnesses that were not used: name -> (n, d) rows of length 1, dense ones minus their mean.

    Groups of images can be witnessed by the embeddings of their captions ("text") and by the captions' words
    ("captions", TF-IDF), groups of texts by the images, and both by classes that no text was made of ("classes").
    """
    captioned = model.text is not None
    other = {"image": "text", "text": "image"}.get(modality)
    if other == "image" or (other == "text" and captioned):
        pairs = model.pairs()
        rows = directions(OnDevice(getattr(pairs, str(other)), torch.device("cpu"))[slice(None)], str(other)).numpy()
        rows -= rows.mean(axis=0)
        yield str(other), rows
    if modality == "image" and captioned and themes is not None and themes.tfidf is not None:
        yield "captions", themes.tfidf
    if model.labels is not None and model.labels.ndim == 1 and (captioned or modality == "image"):
        n = len(model.labels)
        yield "classes", sparse.csr_matrix((np.ones(n), (np.arange(n), model.labels)))


def witnessed(rows: Any, groups: Sequence[Group], seed: int = 0) -> list[tuple[float, float]]:
    """How alike the samples of each group are to a witness, and how often as many samples at random are as alike.

    Likeness is the mean inner product of two of them: for rows of classes the chance that two are of one class. The
    second number is the permutation p, (1 + random sets that are at least as alike) / (1 + 999).

    >>> rows = np.repeat(np.eye(4), 20, axis=0)
    >>> alike, p = witnessed(rows, [Group(np.arange(10), np.ones(10), 1.0)])[0]
    >>> round(alike, 6), p
    (1.0, 0.001)
    """
    random, squared, found = np.random.default_rng([seed, 2]), _squares(rows), []
    for group in groups:
        m = len(group.rows)
        own = float(_alike(np.asarray(rows[group.rows].sum(axis=0)).reshape(1, -1), squared[group.rows].sum(), m)[0])
        drawn: list[float] = []
        while len(drawn) < DRAWS:
            sets = min(max(SETS // m, 1), DRAWS - len(drawn))
            chosen = np.stack([random.choice(rows.shape[0], m, replace=False) for _ in range(sets)])
            pick = sparse.csr_matrix(
                (np.ones(sets * m), (np.repeat(np.arange(sets), m), chosen.ravel())), (sets, rows.shape[0])
            )
            drawn += _alike(pick @ rows, pick @ squared, m).tolist()
        found.append((own, (1 + sum(value >= own - TIE for value in drawn)) / (1 + DRAWS)))
    return found


def _alike(sums: Any, squares: Any, m: int) -> NDArray[np.float64]:
    """(k,) mean inner product of two rows of each set, from the sums (k, d) of its rows and (k,) of their squares."""
    alike: NDArray[np.float64] = (_squares(sums) - squares) / (m * (m - 1))
    return alike


def _squares(rows: Any) -> NDArray[np.float64]:
    """(k,) squared length of each row, dense or sparse."""
    squared = rows.multiply(rows) if sparse.issparse(rows) else np.square(rows)
    return np.asarray(squared.sum(axis=1), dtype=np.float64).ravel()


def witness_columns(
    model: Embeddings, modality: str, themes: Themes | None, groups: Sequence[Group], seed: int
) -> list[Mapping[str, float]]:
    """For each group ``witness_NAME`` and ``witness_NAME_p`` of every witness that there is."""
    columns: list[dict[str, float]] = [{} for _ in groups]
    for name, rows in witnesses(model, modality, themes):
        for row, (alike, p) in zip(columns, witnessed(rows, groups, seed), strict=True):
            row[f"witness_{name}"], row[f"witness_{name}_p"] = alike, p
    return list(columns)
