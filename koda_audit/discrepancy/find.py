"""From two models' embeddings of the same samples to what one holds together and the other does not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from koda_audit._kernels.bandwidth import TARGET
from koda_audit._kernels.blocks import kernel_blocks, leading_spectrum
from koda_audit.discrepancy.choices import N_FEATURES, check_numbers, check_rule
from koda_audit.discrepancy.findings import MIN_STABILITY, Rule, owned, verdicts
from koda_audit.discrepancy.lobes import Lobe
from koda_audit.discrepancy.result import Discrepancies
from koda_audit.discrepancy.search import Search, search
from koda_audit.discrepancy.sensitivity import excess_at_other_widths
from koda_audit.discrepancy.shares import modality_shares
from koda_audit.discrepancy.stability import HALVES, stability
from koda_audit.embeddings.container import Embeddings

BANDWIDTH_RULE = "median distance of at most 5,000 pairs, times one multiplier a model, on at most 4,000 rows"


def find_discrepancies(
    target: Embeddings,
    reference: Embeddings,
    modality: str = "joint",
    kernel: str = "rbf",
    features: str = "auto",
    epsilon: float | None = None,
    n_directions: int = 10,
    multiplier: float | None = None,
    path: str = "auto",
    n_features: int = N_FEATURES,
    seed: int = 0,
    preset: str | None = None,
    epsilon_quantile: float | None = None,
    rotation: str = "none",
    device: str | torch.device | None = None,
    floor: float | None = None,
    halves: int = HALVES,
    min_stability: float = MIN_STABILITY,
) -> Discrepancies:
    """Groups of samples that lie together in the target and not in the reference.

    KODA (ICML 2026, arXiv 2606.04180, eq 8 and 12): unit directions over the samples with the largest coherence
    x'(K/n)x in the target, where the coherence in the reference is at most epsilon, on raw vectors. The order of the
    two models matters: run both.

    Args:
        target: the model whose groups are sought.
        reference: the other model, on the same sample ids in any order.
        modality: "joint" (product of the image and the text kernel; the first caption of an image, or the prompt of
            its class), "image" or "text".
        kernel: "rbf", Gaussian (widths: the median distance of each modality, times one multiplier a model, such that
            the leading eigenvalue of K/n is .15 in both); "cosine"; or "polynomial", of degree 3.
        features: "exact" kernel matrices, "random" features, or "auto": exact up to 20,000 samples where the memory
            allows. Whatever finds the directions, their coherences in the frame are those of the exact kernels.
        epsilon: default 2/n, twice the coherence of a direction at random, and with random features at least 1/r, twice
            their noise (ours; the paper takes a quantile of the reference's eigenvalues, which mostly asks for less
            than a random direction has). It bounds the kernel that is used.
        n_directions: at most n - 2.
        multiplier: instead of epsilon, a fixed price of coherence in the reference; 1.0 is SPEC.
        path: "dense" (n x n kernel matrices), "sample" (random features of all samples), "reduced" (the Gram matrix of
            random features, one pass over the samples), or "auto". Up to 512 samples the dense path is exact to
            rounding; all others reach a duality gap of about 1e-6 of the value, which stands in the frame. The memory
            of "reduced" does not grow with n.
        n_features: random frequencies of a Gaussian kernel, projections of any other; 3,000 as in the paper.
        seed: of the pairs that set the base widths, of the rows above 4,000 samples, of random features and of the
            subspace's start.
        preset: "paper" for what KODA does: random features, epsilon_quantile=0.5, and as multiplier the one whose
            leading eigenvector is the best feasible (Algorithm 1, short of the optimum where that eigenvalue is
            multiple; the duality gap tells).
        epsilon_quantile: instead of epsilon, this quantile of the eigenvalues of the reference's covariance (2r of
            them), or of its kernel matrix on the dense path, which is another number.
        rotation: "varimax" turns the directions within their span so that each has its weight on few samples; none then
            has a certificate of its own.
        device: "cpu", "cuda", "cuda:1"; by default CUDA where there is one.
        floor: the excess that a finding must exceed, from ``self_excess``; None is 0.
        halves: random halves of the samples on which directions are found again, for the stability of each lobe; 0
            leaves it out, and with it the findings.
        min_stability: of a finding.

    Raises:
        InputError: an unknown name (near matches are listed), a value out of range, arguments that contradict each
            other, no text, too few samples, constant embeddings, an epsilon that cannot be met, not enough memory.
        DataError: sample ids that differ; a sample without a caption.

    Warns:
        FewerDirections: a later direction is infeasible; the list ends before it.

    >>> import numpy as np
    >>> random = np.random.default_rng(0)
    >>> other = random.normal(size=(60, 8))
    >>> mine = other.copy()
    >>> mine[:12] = mine[0] + 0.1 * random.normal(size=(12, 8))  # a group that only this model holds together
    >>> found = find_discrepancies(Embeddings(mine), Embeddings(other), modality="image", n_directions=1)
    >>> first = found.subsets[(found.subsets.direction == 1) & (found.subsets.lobe == "positive")]
    >>> len(first), {int(sample) for sample in first.id} <= set(range(12))
    (11, True)
    """
    check_numbers(halves=halves)
    check_rule(floor, min_stability)
    found = search(
        target,
        reference,
        modality=modality,
        kernel=kernel,
        features=features,
        epsilon=epsilon,
        n_directions=n_directions,
        multiplier=multiplier,
        path=path,
        n_features=n_features,
        seed=seed,
        preset=preset,
        epsilon_quantile=epsilon_quantile,
        rotation=rotation,
        device=device,
    )
    stable = np.full(len(found.lobes), math.nan)
    if halves:
        stable = stability(
            found.lobes, found.directions, found.blocks["target"], found.blocks["reference"], found.goal, int(halves)
        )
    own = owned(found.lobes, found.measures, stable)
    rule = Rule(float(min_stability), math.nan if floor is None else float(floor))
    judged = verdicts(found.measures, stable, own, rule)
    frame = pd.DataFrame(_rows(found, kernel, judged))
    if found.widths:
        frame = frame.assign(**excess_at_other_widths(found.vectors, found.lobes, int(seed)))
    spectrum = pd.DataFrame({role: leading_spectrum(block, int(seed)) for role, block in found.blocks.items()})
    level, n = found.goal.epsilon, len(target)
    return Discrepancies(
        frame=frame,
        directions=found.directions,
        subsets=_subsets(found.lobes, frame, own, target.ids),
        bandwidths={role: asdict(width) for role, width in found.widths.items()},
        spectrum=spectrum,
        epsilon=level,
        settings={
            "modality": modality,
            "kernel": kernel,
            "path": found.plan.path,
            "preset": preset,
            "n_features": None if found.plan.path == "dense" else int(n_features),
            "n": n,
            "n_directions": int(n_directions),
            "rotation": rotation,
            "epsilon_rule": found.plan.rule,
            **_epsilon(level, n, float(spectrum["reference"].iloc[0])),
            "feature_noise": None if found.plan.path == "dense" else 1 / (2 * n_features),
            "multiplier": None if multiplier is None else float(multiplier),
            "halves": int(halves),
            "min_stability": rule.min_stability,
            **({"bandwidth_rule": BANDWIDTH_RULE, "bandwidth_target": TARGET} if found.widths else {}),
            "seed": int(seed),
        },
        vectors=found.vectors,
        sigmas=found.sigmas,
    )


def self_excess(model: Embeddings, again: Embeddings, **settings: Any) -> float:
    """The largest excess of a lobe that a model shows against itself: the floor of its findings.

    Args:
        model: the target of the comparison that is to be judged.
        again: the same model on the same samples in other batches, another dtype, crop or whatever makes no difference.
        settings: those of ``find_discrepancies`` down to ``device``.

    >>> import numpy as np
    >>> vectors = np.random.default_rng(0).normal(size=(40, 8))
    >>> self_excess(Embeddings(vectors), Embeddings(vectors), modality="image", n_directions=2)
    0.0
    """
    return max(0.0, *(measured["excess"] for measured in search(model, again, **settings).measures))


def _rows(found: Search, kernel: str, judged: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows of the frame, but for other widths."""
    shares: Sequence[dict[str, float]] = [{}] * len(found.lobes)
    if len(found.vectors["target"]) > 1:
        shares = _shares(found, kernel)
    for lobe, measured, share, verdict in zip(found.lobes, found.measures, shares, judged, strict=True):
        row: dict[str, Any] = {"direction": lobe.direction + 1, "lobe": lobe.name, "n": len(lobe.rows)}
        for role, (values, errors) in found.coherences.items():
            row[f"coherence_{role}"], row[f"coherence_{role}_error"] = values[lobe.direction], errors[lobe.direction]
        yield {**row, **_used(found, lobe.direction), **measured, **share, **verdict}


def _subsets(
    lobes: Sequence[Lobe], frame: pd.DataFrame, own: Sequence[NDArray[np.bool_]], ids: Sequence[str]
) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {
                "direction": lobe.direction + 1,
                "lobe": lobe.name,
                "id": [ids[row] for row in lobe.rows],
                "weight": lobe.weights,
                "rank": np.arange(1, len(lobe.rows) + 1),
                "own": mine,
                "finding": finding,
            }
        )
        for lobe, mine, finding in zip(lobes, own, frame["finding"].tolist(), strict=True)
    ]
    return pd.concat(parts, ignore_index=True)


def _epsilon(level: float | None, n: int, largest: float) -> dict[str, float | None]:
    """epsilon, and how it compares: with a direction at random (1), and with the most that the reference shows (1)."""
    if level is None:
        return {"epsilon": None}
    return {"epsilon": float(level), "epsilon_times_n": float(level) * n, "epsilon_over_lambda_max": level / largest}


def _used(found: Search, number: int) -> dict[str, float]:
    contrast, epsilon = found.contrast, found.goal.epsilon
    values = {
        "used_target": contrast.target[number],
        "used_reference": contrast.reference[number],
        "multiplier": contrast.multiplier[number],
        "duality_gap": contrast.duality_gap[number],
        "epsilon": math.nan if epsilon is None else epsilon,
    }
    return values if found.goal.rotation == "none" else dict.fromkeys(values, math.nan)


def _shares(found: Search, kernel: str) -> list[dict[str, float]]:
    alone = {
        role: {
            name: kernel_blocks(kernel, {name: values}, {name: found.sigmas[role][name]} if found.widths else {})
            for name, values in vectors.items()
        }
        for role, vectors in found.vectors.items()
    }
    return [modality_shares(alone, lobe.rows, lobe.weights) for lobe in found.lobes]
