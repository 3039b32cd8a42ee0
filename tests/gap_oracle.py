"""The metrics of the modality gap by whole matrices, in NumPy and SciPy alone."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats
from scipy.spatial.distance import cdist, pdist


def units(values):
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def oracle(image, text):
    """Every metric that has a value for a few hundred pairs, by whole matrices."""
    x, y = units(image), units(text)
    n, m, d = len(x), len(y), x.shape[1]
    gap = x.mean(axis=0) - y.mean(axis=0)
    cx, cy = x - x.mean(axis=0), y - y.mean(axis=0)
    covariance = {"image": np.cov(x.T), "text": np.cov(y.T)}
    cosines = (x * y).sum(axis=1)
    own = [pdist(z, "cosine").mean() / 2 for z in (x, y)]
    between = (1 - cosines).mean() / 2
    pooled = np.concatenate([cx, cy])
    gamma = 1 / np.median(pdist(pooled, "sqeuclidean"))
    largest = np.sort(gap**2)[::-1]
    nearest = cdist(np.concatenate([x, y]), np.concatenate([x, y]))
    np.fill_diagonal(nearest, np.inf)
    found = {
        "centroid_gap": np.linalg.norm(gap),
        "centroid_gap_sq_unbiased": gap @ gap - np.trace(covariance["image"]) / n - np.trace(covariance["text"]) / m,
        "centroid_gap_sq_unbiased_paired": gap @ gap - np.trace(np.cov((x - y).T)) / n,
        "frechet_mean": gap @ gap,
        "mean_cosine": 1 - cdist(x.mean(axis=0)[None], y.mean(axis=0)[None], "cosine")[0, 0],
        "mean_length_image": np.linalg.norm(x.mean(axis=0)),
        "mean_length_text": np.linalg.norm(y.mean(axis=0)),
        "gap_top2_share": largest[:2].sum() / largest.sum(),
        "raw_gap_rms": math.sqrt((np.linalg.norm(x - y, axis=1) ** 2).mean()),
        "raw_gap_mean": np.linalg.norm(x - y, axis=1).mean(),
        "alignment": (np.linalg.norm(x - y, axis=1) ** 2).mean(),
        "pair_cosine": cosines.mean(),
        "dist_gap_paired": math.sqrt((np.linalg.norm(cx - cy, axis=1) ** 2).mean()),
        "dist_gap_rel": 1 - 2 * (cx * cy).sum() / ((cx**2).sum() + (cy**2).sum()),
        "rmg": between / (between + sum(own) / 2),
        "frechet_cov": np.trace(sum(covariance.values()))
        # the trace of the root of a product is the nuclear norm of the product of its factors, whatever their rank
        - 2 * np.linalg.norm(cx @ cy.T, "nuc") / (n - 1),
        "energy": 2 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean(),
        "energy_centred": 2 * cdist(cx, cy).mean() - cdist(cx, cx).mean() - cdist(cy, cy).mean(),
        "mmd2_u_centred": np.exp(-gamma * pdist(cx) ** 2).mean()
        + np.exp(-gamma * pdist(cy) ** 2).mean()
        - 2 * np.exp(-gamma * cdist(cx, cy) ** 2).mean(),
        "uniformity_image": np.log(np.exp(-2 * pdist(x) ** 2).mean()),
        "uniformity_text": np.log(np.exp(-2 * pdist(y) ** 2).mean()),
        "uniformity_joint": np.log(np.exp(-2 * pdist(np.concatenate([x, y])) ** 2).mean()),
        "uniformity_cross": np.log(np.exp(-2 * cdist(x, y) ** 2)[~np.eye(n, dtype=bool)].mean()),
        "mix_bias_image": (nearest.argmin(axis=1)[:n] < n).mean(),
        "mix_bias_text": (nearest.argmin(axis=1)[n:] >= n).mean(),
    }
    for name, centred in (("image", cx), ("text", cy)):
        shares = np.linalg.svd(centred, compute_uv=False)
        found[f"effective_dim_{name}"] = np.exp(stats.entropy(shares))
        found[f"participation_ratio_{name}"] = (shares**2).sum() ** 2 / (shares**4).sum()
        along = (centred @ gap / np.linalg.norm(gap)).var()
        found[f"gap_dir_var_{name}"] = along / (centred.var(axis=0).sum() / d)
    found["itr"], found["tir"] = (
        math.inf if found[key] == 1 else found[key] / (1 - found[key]) for key in ("mix_bias_image", "mix_bias_text")
    )
    return found
