"""RDX (arXiv 2505.23917): clusters of samples that are closer by rank in the target than in the reference.

Written from its description: neighbours' ranks r_A and r_B in both models, d = tanh(.05 (r_A - r_B) / (min + 1)),
affinity exp(-5 d), made symmetric by its mean with the transpose, spectral clustering into five clusters and a null
one. The description does not say which cluster is the null; here it is that of the lowest mean affinity inside.
"""

from __future__ import annotations

import numpy as np
import torch
from agreement import Floats
from sklearn.cluster import SpectralClustering
from torch import Tensor

GAMMA, BETA = 0.05, 5.0
CLUSTERS = 5
ROWS = 512  # of the matrices that are sorted at a time


def rdx(a: Tensor, b: Tensor, count: int = CLUSTERS) -> tuple[Floats, Floats]:
    """Normalised indicators (n, count) of the clusters, and their samples' mean affinities to the cluster."""
    affinity = affinities(a, b)
    members, within = (part[:, :count] for part in clusters(affinity, count + 1))
    return members / np.linalg.norm(members, axis=0).clip(min=1), within / np.linalg.norm(within, axis=0).clip(
        min=1e-300
    )


def clusters(affinity: Floats, count: int) -> tuple[Floats, Floats]:
    """Indicators (n, count) of the clusters, that of the highest mean affinity inside first, and their samples' mean
    affinities to the cluster."""
    clustering = SpectralClustering(count, affinity="precomputed", assign_labels="kmeans", random_state=0)
    labels = clustering.fit_predict(affinity)
    members = np.stack([labels == label for label in range(count)], axis=1).astype(float)
    sizes = members.sum(axis=0).clip(min=1)
    within = members * (affinity @ members) / sizes
    order = np.argsort(-within.sum(axis=0) / sizes)
    return members[:, order], within[:, order]


def affinities(a: Tensor, b: Tensor) -> Floats:
    whole = torch.cat([_strip(a[rows], b[rows]) for rows in torch.split(torch.arange(len(a)), ROWS)])
    affinity: Floats = whole.add_(whole.T.clone()).div_(2).numpy()
    return affinity


def _strip(a: Tensor, b: Tensor) -> Tensor:
    first, second = _ranks(a), _ranks(b)
    difference = torch.tanh(GAMMA * (first - second) / (torch.minimum(first, second) + 1))
    return torch.exp(-BETA * difference)


def _ranks(kernel: Tensor) -> Tensor:
    """Position of each sample among the neighbours of each row's; the kernel falls with the distance."""
    order = kernel.argsort(dim=1, descending=True)
    places = torch.arange(kernel.shape[1], dtype=torch.float64).expand_as(kernel)
    return torch.empty_like(kernel).scatter_(1, order, places)
