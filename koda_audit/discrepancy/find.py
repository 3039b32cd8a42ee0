"""From two models' embeddings of the same samples to what one holds together and the other does not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from koda_audit._arrays import OnDevice, Vectors
from koda_audit._contrast.solve import Contrast
from koda_audit._kernels.bandwidth import TARGET, Bandwidth, fit_bandwidth
from koda_audit._kernels.blocks import Blocks, kernel_blocks, leading_spectrum
from koda_audit._kernels.rbf import MODALITIES
from koda_audit._kernels.table import KERNELS
from koda_audit.discrepancy.choices import FEATURES, N_FEATURES, PRESETS, check_choices, choose_device, plan
from koda_audit.discrepancy.findings import MIN_STABILITY, Rule, measures, verdicts
from koda_audit.discrepancy.lobes import Lobe, lobes, oriented
from koda_audit.discrepancy.paths import PATHS, Goal, Sides, solve
from koda_audit.discrepancy.result import Discrepancies
from koda_audit.discrepancy.sensitivity import excess_at_other_widths
from koda_audit.discrepancy.shares import modality_shares
from koda_audit.discrepancy.stability import HALVES, stability
from koda_audit.embeddings.container import Embeddings
from koda_audit.errors import InputError

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
    models = {"target": target, "reference": reference}
    choices = {
        "modality": (modality, MODALITIES),
        "kernel": (kernel, KERNELS),
        "features": (features, FEATURES),
        "path": (path, ("auto", *PATHS)),
        **({} if preset is None else {"preset": (preset, PRESETS)}),
    }
    check_choices(models, choices, seed=seed, n_features=n_features, halves=halves)
    n_features = int(n_features)
    place = choose_device(device)
    n = len(target)
    how = plan(
        n,
        n_directions=n_directions,
        kernel=kernel,
        features=features,
        path=path,
        n_features=n_features,
        epsilon=epsilon,
        epsilon_quantile=epsilon_quantile,
        multiplier=multiplier,
        preset=preset,
        device=place,
    )
    vectors = {role: _vectors(model.aligned_to(target.ids), modality, role, place) for role, model in models.items()}

    widths = {
        role: _bandwidth(vectors[role], model, role, int(seed))
        for role, model in models.items()
        if KERNELS[kernel].has_bandwidth
    }
    sigmas = {role: widths[role].sigmas if widths else {} for role in models}
    goal = Goal(how.epsilon, how.quantile, n_directions, multiplier, int(seed), how.mixed)
    contrast, level = solve(Sides(vectors, sigmas, kernel, place), goal, how.path, n_features)
    directions = oriented(contrast.directions)
    blocks = {role: kernel_blocks(kernel, vectors[role], sigmas[role]) for role in models}
    exact = _exact(blocks, directions, int(seed))
    found = lobes(directions, blocks["target"].part)
    measured = [measures(lobe, blocks["target"], blocks["reference"]) for lobe in found]
    stable = np.full(len(found), math.nan)
    if halves:
        stable = stability(found, blocks["target"], blocks["reference"], replace(goal, epsilon=level), halves)
    rule = Rule(float(min_stability), math.nan if floor is None else float(floor))
    shares = _shares(kernel, vectors, sigmas, found) if modality == "joint" else [{} for _ in found]
    rows = [
        {
            "direction": lobe.direction + 1,
            "lobe": lobe.name,
            "n": len(lobe.rows),
            **{key: values[lobe.direction] for key, values in exact.items()},
            **_used(contrast, lobe.direction, level),
            **lobe_measures,
            **lobe_shares,
            **verdict,
        }
        for lobe, lobe_measures, lobe_shares, verdict in zip(
            found, measured, shares, verdicts(found, measured, stable, rule), strict=True
        )
    ]
    samples = [
        {
            "direction": row["direction"],
            "lobe": row["lobe"],
            "id": target.ids[sample],
            "weight": weight,
            "rank": rank,
            "finding": row["finding"],
        }
        for lobe, row in zip(found, rows, strict=True)
        for rank, (sample, weight) in enumerate(zip(lobe.rows.tolist(), lobe.weights.tolist(), strict=True), 1)
    ]
    spectrum = pd.DataFrame({role: leading_spectrum(block, int(seed)) for role, block in blocks.items()})
    return Discrepancies(
        frame=pd.DataFrame(rows).assign(**(excess_at_other_widths(vectors, found, int(seed)) if widths else {})),
        directions=directions,
        subsets=pd.DataFrame(samples),
        bandwidths={role: asdict(width) for role, width in widths.items()},
        spectrum=spectrum,
        epsilon=None if level is None else float(level),
        settings={
            "modality": modality,
            "kernel": kernel,
            "path": how.path,
            "preset": preset,
            "n_features": None if how.path == "dense" else int(n_features),
            "n": n,
            "n_directions": int(n_directions),
            "epsilon_rule": how.rule,
            **_epsilon(level, n, float(spectrum["reference"].iloc[0])),
            "feature_noise": None if how.path == "dense" else 1 / (2 * n_features),
            "multiplier": None if multiplier is None else float(multiplier),
            "halves": int(halves),
            "min_stability": rule.min_stability,
            **({"bandwidth_rule": BANDWIDTH_RULE, "bandwidth_target": TARGET} if widths else {}),
            "seed": int(seed),
        },
        vectors=vectors,
        sigmas=sigmas,
    )


def self_excess(model: Embeddings, again: Embeddings, **settings: Any) -> float:
    """The largest excess of a lobe that a model shows against itself: the floor of its findings.

    Args:
        model: the target of the comparison that is to be judged.
        again: the same model on the same samples in other batches, another dtype, crop or whatever makes no difference.
        settings: those of ``find_discrepancies``.

    >>> import numpy as np
    >>> vectors = np.random.default_rng(0).normal(size=(40, 8))
    >>> self_excess(Embeddings(vectors), Embeddings(vectors), modality="image", n_directions=2)
    0.0
    """
    found = find_discrepancies(model, again, **{**settings, "halves": 0})
    return max(float(found.frame["excess"].max()), 0.0)


def _vectors(model: Embeddings, modality: str, role: str, device: torch.device) -> dict[str, Vectors]:
    wanted = MODALITIES[modality]
    if wanted == ("image",):
        return {"image": OnDevice(model.image, device)}
    pairs = model.pairs()
    if pairs.text is None:
        raise InputError(f"the {role} has no text, which modality='{modality}' needs: use modality='image'")
    return {name: OnDevice(getattr(pairs, name), device) for name in wanted}


def _exact(blocks: Mapping[str, Blocks], directions: NDArray[np.float64], seed: int) -> dict[str, list[float]]:
    found = {}
    for role, block in blocks.items():
        values, errors = block.coherences(torch.from_numpy(directions), seed)
        found[f"coherence_{role}"], found[f"coherence_{role}_error"] = values.tolist(), errors.tolist()
    return found


def _epsilon(level: float | None, n: int, largest: float) -> dict[str, float | None]:
    """epsilon, and how it compares: with a direction at random (1), and with the most that the reference shows (1)."""
    if level is None:
        return {"epsilon": None}
    return {"epsilon": float(level), "epsilon_times_n": float(level) * n, "epsilon_over_lambda_max": level / largest}


def _bandwidth(vectors: dict[str, Vectors], model: Embeddings, role: str, seed: int) -> Bandwidth:
    try:
        return fit_bandwidth(vectors, TARGET, seed)
    except InputError as error:
        remedy = "; modality='image' leaves the texts out" if "text" in vectors else ""
        raise InputError(f"{model.meta.get('model', 'the ' + role)}: {error}{remedy}") from error


def _used(contrast: Contrast, number: int, epsilon: float | None) -> dict[str, float]:
    return {
        "used_target": contrast.target[number],
        "used_reference": contrast.reference[number],
        "multiplier": contrast.multiplier[number],
        "duality_gap": contrast.duality_gap[number],
        "epsilon": math.nan if epsilon is None else float(epsilon),
    }


def _shares(
    kernel: str,
    vectors: Mapping[str, Mapping[str, Vectors]],
    sigmas: Mapping[str, Mapping[str, float]],
    found: Sequence[Lobe],
) -> list[dict[str, float]]:
    alone = {
        role: {
            name: kernel_blocks(kernel, {name: values}, {name: sigmas[role][name]} if sigmas[role] else {})
            for name, values in vectors[role].items()
        }
        for role in vectors
    }
    return [modality_shares(alone, lobe.rows, lobe.weights) for lobe in found]
