"""Do the groups separate under each model? Clusters that k-means finds there, against the groups."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, normalized_mutual_info_score

from koda_audit._arrays import Vectors
from koda_audit.discrepancy.points import kernel_points

RUNS = 10  # as in KODA
SCORES = MappingProxyType(
    {"AMI": adjusted_mutual_info_score, "NMI": normalized_mutual_info_score, "ARI": adjusted_rand_score}
)
COLUMNS = ("model", "measure", "value", "std", "n", "k")


def group_agreement(
    kernel: str,
    vectors: Mapping[str, Mapping[str, Vectors]],
    sigmas: Mapping[str, Mapping[str, float]],
    members: pd.DataFrame,
    seed: int = 0,
) -> pd.DataFrame:
    """How well k-means on a model's own vectors gives the groups back (KODA, ICML 2026, arXiv 2606.04180, table 2).

    The groups were chosen for lying together in the target and not in the reference, so a higher value there is what
    the method aims at, and no test of it. Single starts of k-means, ten of them; KODA states neither.

    Args:
        kernel: a name of ``table.KERNELS``; it says which points are clustered, see ``kernel_points``.
        vectors: "target" and "reference" -> modality -> (n, d).
        sigmas: "target" and "reference" -> modality -> width, for "rbf"; else empty mappings.
        members: a row per sample of a group: ``group``, ``row``. A sample of several groups counts in the first.
        seed: of the first run; the others take the numbers that follow.

    Returns:
        A row per ``model`` and ``measure`` ("AMI", "NMI", "ARI"; 1 where clusters and groups agree, AMI and ARI about 0
        where they agree as random ones would): ``value`` and ``std``, mean and standard deviation over the runs, on
        ``n`` samples of ``k`` groups. Empty where fewer than two groups have samples.

    >>> import torch
    >>> vectors = {
    ...     "target": {"image": torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])},
    ...     "reference": {"image": torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.1, 1.0]])},
    ... }
    >>> members = pd.DataFrame({"group": [1, 1, 2, 2], "row": range(4)})
    >>> found = group_agreement("cosine", vectors, {"target": {}, "reference": {}}, members)
    >>> found[found.measure == "ARI"].value.round(3).tolist()
    [1.0, -0.5]
    """
    single = members.drop_duplicates("row")
    labels = single["group"].to_numpy()
    rows = single["row"].to_numpy()
    k = len(np.unique(labels))
    records = []
    for role in ("target", "reference") if k > 1 else ():
        points = kernel_points(kernel, vectors[role], sigmas[role], rows)
        found = [_clusters(points, k, seed + run) for run in range(RUNS)]
        for name, score in SCORES.items():
            values = np.array([score(labels, clusters) for clusters in found])
            records.append((role, name, values.mean(), values.std(ddof=1), len(rows), k))
    return pd.DataFrame(records, columns=list(COLUMNS))


def _clusters(points: NDArray[np.float64], k: int, seed: int) -> NDArray[np.int32]:
    labels: NDArray[np.int32]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different points than groups: fewer clusters
        labels = KMeans(n_clusters=k, n_init=1, random_state=seed % 2**32).fit_predict(points)
    return labels
