"""From two models' embeddings of the same samples to what one holds together and the other does not."""

from __future__ import annotations

import math
from dataclasses import asdict
from numbers import Integral
from typing import Any

import pandas as pd
from torch import Tensor

from koda_audit._arrays import matrix
from koda_audit._contrast.operators import DensePair
from koda_audit._contrast.solve import Contrast, check_settings, solve_contrast, solve_operators
from koda_audit._kernels.bandwidth import PAIRS, ROWS, TARGET, Bandwidth, fit_bandwidth
from koda_audit._kernels.rbf import MODALITIES, rbf_gram, scaled_points
from koda_audit.discrepancy.lobes import Lobe, lobes, oriented
from koda_audit.discrepancy.memory import available_memory, check_memory
from koda_audit.discrepancy.result import Discrepancies
from koda_audit.discrepancy.sensitivity import excess_at_other_widths
from koda_audit.embeddings.container import Embeddings
from koda_audit.errors import InputError, unknown

KERNELS = ("rbf",)
FEATURES = ("exact",)
EXACT = 512  # samples; above, decompositions of whole matrices take many times longer than the subspace
TOLERANCE = 1e-6  # of the residual above that


def find_discrepancies(
    target: Embeddings,
    reference: Embeddings,
    modality: str = "joint",
    kernel: str = "rbf",
    features: str = "exact",
    epsilon: float | None = None,
    n_directions: int = 10,
    multiplier: float | None = None,
    seed: int = 0,
) -> Discrepancies:
    """Groups of samples that lie together in the target and not in the reference.

    KODA (ICML 2026, arXiv 2606.04180, eq 8 and 12): unit directions over the samples with the largest coherence
    x'(K/n)x in the target, where the coherence in the reference is at most epsilon. Kernels are exact (no random
    features), on raw vectors. The order of the two models matters: run both.

    Args:
        target: the model whose groups are sought.
        reference: the other model, on the same sample ids in any order.
        modality: "joint" (product of the image and the text kernel; the first caption of an image, or the prompt of
            its class), "image" or "text".
        kernel: "rbf", Gaussian. Widths: the median distance of each modality, times one multiplier a model, such that
            the leading eigenvalue of K/n is .15 in both.
        features: "exact", the dense kernel matrices (n x n, float64). Up to 512 samples the directions are exact to
            rounding, above to a duality gap of about 1e-6 of their value; the frame holds the gap of each.
        epsilon: default 2/n, twice the coherence of a direction at random (ours; the paper takes a quantile of the
            reference's eigenvalues, which mostly asks for less than a random direction has).
        n_directions: at most n - 2.
        multiplier: instead of epsilon, a fixed price of coherence in the reference; 1.0 is SPEC.
        seed: of the pairs that set the base widths, of the rows above 4,000 samples, and of the subspace's start.

    Raises:
        InputError: an unknown name (near matches are listed), a value out of range, no text, too few samples, constant
            embeddings, an epsilon that cannot be met, not enough memory.
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
    _check_choices(models, modality, kernel, features, seed)
    n = len(target)
    level = check_size(n, epsilon, n_directions, multiplier)
    vectors = {role: _vectors(model.aligned_to(target.ids), modality, role) for role, model in models.items()}

    widths = {role: _bandwidth(values, models[role], role, int(seed)) for role, values in vectors.items()}
    grams = {role: rbf_gram(scaled_points(values, widths[role].sigmas)) for role, values in vectors.items()}
    contrast = _solve(grams["target"], grams["reference"], level, n_directions, multiplier, int(seed))
    directions = oriented(contrast.directions)
    rows: list[dict[str, Any]] = []
    samples: list[dict[str, Any]] = []
    found: list[Lobe] = []
    for number, x in enumerate(directions.T):
        for lobe in lobes(x, grams["target"], grams["reference"]):
            at = {"direction": number + 1, "lobe": lobe.name}
            found.append(lobe)
            rows.append({**at, **_measured(contrast, number, lobe, level)})
            samples.extend(
                {**at, "id": target.ids[row], "weight": weight, "rank": rank}
                for rank, (row, weight) in enumerate(zip(lobe.rows.tolist(), lobe.weights.tolist(), strict=True), 1)
            )
    return Discrepancies(
        frame=pd.DataFrame(rows).assign(**excess_at_other_widths(vectors, found, int(seed))),
        directions=directions,
        subsets=pd.DataFrame(samples),
        bandwidths={
            role: {name: value for name, value in asdict(width).items() if name != "spectrum"}
            for role, width in widths.items()
        },
        spectrum=pd.DataFrame({role: list(width.spectrum) for role, width in widths.items()}),
        epsilon=None if level is None else float(level),
        settings={
            "modality": modality,
            "kernel": kernel,
            "features": features,
            "path": "dense",
            "n": n,
            "n_directions": int(n_directions),
            "epsilon": None if level is None else float(level),
            "epsilon_rule": "given" if epsilon is not None else "2/n" if multiplier is None else None,
            "multiplier": None if multiplier is None else float(multiplier),
            "bandwidth_rule": "median distance times one multiplier a model",
            "bandwidth_target": TARGET,
            "bandwidth_pairs": PAIRS,
            "bandwidth_rows": ROWS,
            "normalised": False,
            "seed": int(seed),
        },
    )


def check_size(n: int, epsilon: float | None, n_directions: int, multiplier: float | None = None) -> float | None:
    """Whether ``n`` samples are enough, and few enough for the memory; returns epsilon, by default 2/n.

    Raises:
        InputError: too few samples, a value out of range, not enough memory.
    """
    level = 2 / n if epsilon is None and multiplier is None else epsilon
    check_settings(n, level, n_directions, multiplier)
    check_memory(n, available_memory())
    return level


def _check_choices(models: dict[str, Embeddings], modality: str, kernel: str, features: str, seed: int) -> None:
    for kind, name, known in (
        ("modality", modality, tuple(MODALITIES)),
        ("kernel", kernel, KERNELS),
        ("features", features, FEATURES),
    ):
        if name not in known:
            raise InputError(unknown(kind, str(name), known))
    if not isinstance(seed, Integral) or isinstance(seed, bool) or seed < 0:
        raise InputError(f"seed is {seed!r}: expected a whole number that is not negative")
    for role, model in models.items():
        if not isinstance(model, Embeddings):
            raise InputError(f"the {role} is of type {type(model).__name__}: expected koda_audit.Embeddings")


def _vectors(model: Embeddings, modality: str, role: str) -> dict[str, Tensor]:
    wanted = MODALITIES[modality]
    if wanted == ("image",):
        return {"image": matrix(model.image, f"{role} image")}
    pairs = model.pairs()
    if pairs.text is None:
        raise InputError(f"the {role} has no text, which modality='{modality}' needs: use modality='image'")
    return {name: matrix(getattr(pairs, name), f"{role} {name}") for name in wanted}


def _bandwidth(vectors: dict[str, Tensor], model: Embeddings, role: str, seed: int) -> Bandwidth:
    try:
        return fit_bandwidth(vectors, TARGET, seed)
    except InputError as error:
        remedy = "; modality='image' leaves the texts out" if "text" in vectors else ""
        raise InputError(f"{model.meta.get('model', 'the ' + role)}: {error}{remedy}") from error


def _solve(
    target: Tensor, reference: Tensor, epsilon: float | None, n_directions: int, multiplier: float | None, seed: int
) -> Contrast:
    if len(target) <= EXACT:
        return solve_contrast(target, reference, epsilon, n_directions, multiplier)
    return solve_operators(DensePair(target, reference), epsilon, n_directions, multiplier, TOLERANCE, seed)


def _measured(contrast: Contrast, number: int, lobe: Lobe, epsilon: float | None) -> dict[str, Any]:
    return {
        "n": len(lobe.rows),
        "coherence_target": contrast.target[number],
        "coherence_reference": contrast.reference[number],
        "lobe_coherence_target": lobe.coherence_target,
        "lobe_coherence_reference": lobe.coherence_reference,
        "excess": lobe.coherence_target - lobe.coherence_reference,
        "similarity_target": lobe.similarity_target,
        "similarity_reference": lobe.similarity_reference,
        "multiplier": contrast.multiplier[number],
        "duality_gap": contrast.duality_gap[number],
        "epsilon": math.nan if epsilon is None else float(epsilon),
    }
