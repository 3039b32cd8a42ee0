"""Joint clustering of images and texts: do clusters follow the classes, or the modality?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, homogeneity_score, normalized_mutual_info_score, v_measure_score

from koda_audit._options import one_of, whole_number
from koda_audit._stats.jackknife import left_out_intervals
from koda_audit.errors import InputError
from koda_audit.evaluation.inputs import one_label_each, unit_rows
from koda_audit.evaluation.scores import Scores, per_image

SCORES = MappingProxyType(
    {
        "ari": adjusted_rand_score,
        "nmi": normalized_mutual_info_score,
        "homogeneity": homogeneity_score,
        "v_measure": v_measure_score,
    }
)


@dataclass(frozen=True)
class Protocol:
    """``clusters`` None: as many as classes occur. ``starts`` of k-means++, of which the tightest clustering stays."""

    clusters: int | None = None
    starts: int = 10
    seed: int = 0


# The second calls scikit-learn's KMeans(n_clusters=10, random_state=0), whose default is one start since version 1.4;
# its data are the images of COCO val2017 with exactly one category, and in which order their rows stand is not said.
PROTOCOLS = MappingProxyType({"default": Protocol(), "grassucci2026": Protocol(clusters=10, starts=1)})


def joint_clustering(
    image: Any,
    text: Any,
    labels: ArrayLike | None = None,
    protocol: str = "default",
    clusters: int | None = None,
    seed: int | None = None,
) -> Scores:
    """k-means on the unit rows of images and texts together, each pair with the label of its image.

    ``ari``, ``nmi``, ``homogeneity`` and ``v_measure`` compare the clusters of all 2n rows with the labels; ``nmi``,
    with the arithmetic mean of the entropies, is ``v_measure`` under another name. ``modality_purity`` is the share of
    rows that are of the more frequent modality of their cluster: 1 where no cluster holds images and texts, 1/2 where
    each holds as many. ``pair_together`` is the share of pairs in one cluster. These two are ours, and so is the
    default protocol; "grassucci2026" is that of arXiv 2601.18525. Since both rows of a pair have one label, labels that
    say nothing give an ``ari`` of about ``pair_together`` * classes / (2n), and not of 0.

    Args:
        image: (n, d), any positive length.
        text: (n, d) text i belongs to image i.
        labels: (n,) class indices; without them only ``modality_purity`` and ``pair_together`` are given.
        protocol: a name of ``PROTOCOLS``.
        clusters: instead of the protocol's; required without labels.
        seed: instead of the protocol's.

    Returns:
        Outcomes, one a pair, of ``pair_together``. The intervals of the others take the clusters for given: they are
        those of other pairs of such clusters, and not of other starts. Where fewer different rows exist than clusters
        are asked, there are fewer clusters.

    Raises:
        InputError: shapes that differ, a zero row, labels that do not fit, an unknown protocol, no number of clusters,
            more clusters than rows.

    >>> found = joint_clustering([[9, 1], [9, 2], [1, 9]], [[5, 0], [9, 3], [0, 5]], [0, 0, 1])
    >>> {name: round(value, 9) for name, value in found.values.items() if name in ("ari", "pair_together")}
    {'pair_together': 1.0, 'ari': 1.0}
    """
    units = unit_rows(image=image, text=text)
    n = len(units[0])
    if len(units[1]) != n:
        raise InputError(f"{n} images and {len(units[1])} texts: expected one text an image")
    one_of(protocol, "protocol", PROTOCOLS)
    for name, number in (("clusters", clusters), ("seed", seed)):
        if number is not None:
            whole_number(number, name)
    chosen = PROTOCOLS[protocol]
    classes = None if labels is None else one_label_each(labels, n)
    k = chosen.clusters if clusters is None else clusters
    if k is None and classes is not None:
        k = len(np.unique(classes))
    if k is None or not 1 <= k <= 2 * n:
        raise InputError(f"{'no number of' if k is None else k} clusters for {2 * n} rows: say with clusters how many")
    found = _clusters(torch.cat(units).cpu().numpy(), k, chosen.starts, chosen.seed if seed is None else seed)
    both = found.reshape(2, n)

    def agreement(rows: NDArray[np.int64]) -> dict[str, float]:
        kept = both[:, rows]
        each = np.stack([np.bincount(side, minlength=k) for side in kept])
        numbers = {"modality_purity": float(each.max(axis=0).sum() / kept.size)}
        if classes is not None:
            owners = np.tile(classes[rows], 2)
            numbers |= {name: float(score(owners, kept.ravel())) for name, score in SCORES.items()}
        return numbers

    pairs = {"pair_together": per_image((both[0] == both[1]).astype(np.float64))}
    return Scores.of(pairs, agreement(np.arange(n)), left_out_intervals(agreement, n))


def _clusters(rows: NDArray[np.float64], k: int, starts: int, seed: int) -> NDArray[np.int32]:
    found: NDArray[np.int32]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different rows than clusters: fewer clusters
        found = KMeans(n_clusters=k, n_init=starts, random_state=seed).fit_predict(rows)
    return found
