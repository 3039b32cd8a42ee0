"""From two models' embeddings of the same samples to the groups that one holds together and the other does not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from koda_audit._kernels.bandwidth import TARGET, leading_eigenvalues
from koda_audit.discrepancy.choices import N_FEATURES, check_numbers, check_rule
from koda_audit.discrepancy.describe import described, subsets_of
from koda_audit.discrepancy.findings import MIN_STABILITY, Rule, held_apart, measures, verdicts
from koda_audit.discrepancy.groups import Group
from koda_audit.discrepancy.read import groups_of, read
from koda_audit.discrepancy.result import Discrepancies
from koda_audit.discrepancy.search import Search, search
from koda_audit.discrepancy.stability import HALVES, repeats
from koda_audit.embeddings.container import Embeddings

BANDWIDTH_RULE = "median distance of at most 5,000 pairs, times one multiplier a model, on at most 2,000 rows"
SPECTRUM = 20  # eigenvalues


def find_discrepancies(
    target: Embeddings,
    reference: Embeddings,
    modality: str = "joint",
    kernel: str = "rbf",
    features: str = "auto",
    epsilon: float | None = None,
    n_directions: int | None = None,
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

    KODA (ICML 2026, arXiv 2606.04180, eq 8 and 12) seeks unit directions over the samples with the largest coherence
    x'(K/n)x in the target, where that in the reference is at most epsilon. Where several groups are lost, single
    directions mix them and change from sample to sample; their span does not. So the span is found (``block.block``),
    turned until each column has its weight on few samples (``turn.turns``), and groups are read off the columns
    (``groups.members``) and judged (``findings.verdicts``); all but the contrast is ours. The order of the two models
    matters: run both.

    Args:
        target: the model whose groups are sought.
        reference: the other model, on the same sample ids in any order.
        modality: "joint" (product of the image and the text kernel; the first caption of an image, or the prompt of
            its class), "image" or "text".
        kernel: "rbf", Gaussian (widths: the median distance of each modality, times one multiplier a model, such that
            the leading eigenvalue of K/n is .15 in both); "cosine"; or "polynomial", of degree 3,
            which depends on the lengths of the vectors.
        features: "exact" kernel matrices, "random" features, or "auto": exact up to 10,000 samples. Whatever finds the
            directions, groups are measured with the exact kernels.
        epsilon: of the mean over the directions, or over the leading 8 where their number is not given, which sets one
            price for all; default 2/n, twice the coherence of a direction at random, and with random features at least
            1/r, twice their noise (ours; the paper takes a quantile of the reference's eigenvalues, which mostly asks
            for less than a random direction has). It bounds the kernel that is used.
        n_directions: by default the number that shows most groups that come back on random halves, from 1 to 20, and
            more where the last ones still add some; else that many, at most n - 2.
        multiplier: instead of epsilon, a fixed price of coherence in the reference; 1.0 is SPEC.
        path: "dense" (n x n kernel matrices), "sample" (random features of all samples), "reduced" (the Gram matrix of
            random features, one pass over the samples), or "auto". Up to 512 samples the dense path is exact to
            rounding; all others reach a duality gap of about 1e-6 of the value. The memory of "reduced" does not grow
            with n but for the directions.
        n_features: random frequencies of a Gaussian kernel, projections of any other; 3,000 as in the paper.
        seed: of the 2,000 samples on which widths are set and groups are tested, of the halves, of random features and
            of the searches' starts. What is drawn depends on the ids of the samples, and not on their order.
        preset: "paper" for what KODA does: random features, epsilon_quantile=0.5, ten directions one after the other
            with Algorithm 1's multiplier, and the 50 heaviest samples of each as its group; there are no findings.
        epsilon_quantile: instead of epsilon, this quantile of the eigenvalues of the reference's covariance (2r of
            them), or of its kernel matrix on the dense path, which is another number.
        device: "cpu", "cuda", "cuda:1"; by default CUDA where there is one.
        floor: the excess that a finding must exceed, from ``self_excess``; None is 0.
        halves: random halves of the samples on which groups are sought again, for the stability of each; more are drawn
            where one lies near the bound. 0 leaves it out, and with it the findings and the choice of a number.
        min_stability: of a finding.

    Raises:
        InputError: an unknown name (near matches are listed), a value out of range, arguments that contradict each
            other, no text, too few samples, constant embeddings, an epsilon that cannot be met, not enough memory.
        DataError: sample ids that differ; a sample without a caption.

    Warns:
        FewerDirections: with ``preset``, a later direction is infeasible; the list ends before it.

    >>> import numpy as np
    >>> random = np.random.default_rng(0)
    >>> other = random.normal(size=(90, 8))
    >>> mine = other.copy()
    >>> mine[:12] = mine[0] + 0.1 * random.normal(size=(12, 8))  # a group that only this model holds together
    >>> found = find_discrepancies(Embeddings(mine), Embeddings(other), modality="image")
    >>> found.groups[["group", "n", "finding"]].values.tolist()
    [[1, 13, True]]
    >>> len(set(map(int, found.subsets.id)) & set(range(12)))
    12
    """
    rule = _rule(floor, halves, min_stability)
    asked: dict[str, Any] = {
        "modality": modality,
        "kernel": kernel,
        "features": features,
        "epsilon": epsilon,
        "n_directions": n_directions,
        "multiplier": multiplier,
        "path": path,
        "n_features": n_features,
        "seed": seed,
        "preset": preset,
        "epsilon_quantile": epsilon_quantile,
        "device": device,
    }
    return _judged(search(target, reference, **asked), asked, int(halves), rule, target, reference)


def find_both_ways(
    target: Embeddings,
    reference: Embeddings,
    floors: tuple[float | None, float | None] = (None, None),
    halves: int = HALVES,
    min_stability: float = MIN_STABILITY,
    **settings: Any,
) -> tuple[Discrepancies, Discrepancies]:
    """``find_discrepancies`` in both orders, with widths, kernels and random features computed once.

    Args:
        floors: the floor of each order.
        halves: as there, and ``min_stability``.
        settings: the others.

    Returns:
        The groups of the target that the reference loses, and those of the reference; rows of ``directions`` and
        ``vectors`` are in the order of the target's samples in both.

    >>> import numpy as np
    >>> one, other = (Embeddings(np.random.default_rng(seed).normal(size=(40, 8))) for seed in (0, 1))
    >>> there, back = find_both_ways(one, other, modality="image", n_directions=2)
    >>> back.epsilon == there.epsilon, back.bandwidths["target"] == there.bandwidths["reference"]
    (True, True)
    """
    rules = [_rule(floor, halves, min_stability) for floor in floors]
    found = search(target, reference, **settings)
    there = _judged(found, settings, int(halves), rules[0], target, reference)
    back = _judged(found.swapped(), settings, int(halves), rules[1], reference.aligned_to(target.ids), target)
    return there, back


def _rule(floor: float | None, halves: int, min_stability: float) -> Rule:
    check_numbers(halves=halves)
    check_rule(floor, min_stability)
    return Rule(float(min_stability), math.nan if floor is None else float(floor))


def _judged(
    found: Search, asked: Mapping[str, Any], halves: int, rule: Rule, target: Embeddings, reference: Embeddings
) -> Discrepancies:
    """Groups read off the directions, judged and described."""
    found, tested = read(found, asked.get("n_directions"), halves, rule.min_stability)
    columns, groups, places = groups_of(found, tested)
    measured = _measured(found, groups)
    none = np.zeros(tested.number, dtype=np.bool_)
    again = repeats(tested, found.columns, found.pool) if len(tested.overlaps) else none
    judged = verdicts(measured, tested, again, places, rule)
    other = reference.aligned_to(target.ids)
    plan, kernel, modality = found.plan, found.sides.kernel, found.modality
    order, frame, quality = described(found, modality, groups, measured, judged, target, other)
    pool, level, n = found.pool, plan.epsilon, len(target)
    given, multiplier = asked.get("n_directions"), asked.get("multiplier")
    spectrum = {
        role: leading_eigenvalues(getattr(pool, role) / len(pool.rows), min(SPECTRUM, len(pool.rows)))
        for role in found.blocks
    }
    number = tested.number
    return Discrepancies(
        groups=frame,
        directions=columns[:, [places[place] for place in order]],
        subsets=subsets_of([groups[place] for place in order], frame, target.ids),
        quality=quality,
        subspace=_subspace(found, columns, number),
        bandwidths={role: asdict(width) for role, width in found.widths.items()},
        spectrum=pd.DataFrame(spectrum),
        epsilon=level,
        settings={
            "modality": modality,
            "kernel": kernel,
            "path": plan.path,
            "preset": asked.get("preset"),
            "n_features": None if plan.path == "dense" else plan.n_features,
            "n": n,
            "n_directions": None if given is None else int(given),
            "epsilon_rule": plan.rule,
            "priced_directions": None if level is None else max(plan.block, 1),
            **_epsilon(level, n, float(spectrum["reference"][0])),
            "feature_noise": None if plan.path == "dense" else 1 / (2 * plan.n_features),
            "multiplier": None if multiplier is None else float(multiplier),
            "halves": halves,
            "min_stability": rule.min_stability,
            **({"bandwidth_rule": BANDWIDTH_RULE, "bandwidth_target": TARGET} if found.widths else {}),
            "seed": plan.seed,
        },
        vectors=found.sides.vectors,
        sigmas=found.sides.sigmas,
    )


def self_excess(model: Embeddings, again: Embeddings, **settings: Any) -> float:
    """The largest excess of a group that a model shows against itself: the floor of its findings.

    Args:
        model: the target of the comparison that is to be judged.
        again: the same model on the same samples in other batches, another dtype, crop or whatever makes no difference.
        settings: those of ``find_discrepancies`` down to ``device``.

    >>> import numpy as np
    >>> vectors = np.random.default_rng(0).normal(size=(40, 8))
    >>> self_excess(Embeddings(vectors), Embeddings(vectors), modality="image", n_directions=2)
    0.0
    """
    found, tested = read(search(model, again, **settings), settings.get("n_directions"), 0)
    _, groups, _ = groups_of(found, tested)
    target, reference = found.blocks["target"], found.blocks["reference"]
    return max(0.0, *(measures(group.rows, group.weights, target, reference)["excess"] for group in groups), 0.0)


def _measured(found: Search, groups: Sequence[Group]) -> list[dict[str, Any]]:
    target, reference = found.blocks["target"], found.blocks["reference"]
    apart = held_apart(groups, found.pool, target, reference)
    return [
        {"fit": group.fit, **margins, **measures(group.rows, group.weights, target, reference)}
        for group, margins in zip(groups, apart, strict=True)
    ]


def _subspace(found: Search, columns: NDArray[np.float64], number: int) -> dict[str, float]:
    """How much both models hold of the span, and how far from the optimum it is."""
    contrast = found.contrast
    exact = {
        f"coherence_{role}": float(block.coherences(torch.from_numpy(columns), found.plan.seed)[0].mean())
        for role, block in found.blocks.items()
    }
    return {
        "n_directions": number,
        **exact,
        "used_target": float(contrast.target[:number].mean()),
        "used_reference": float(contrast.reference[:number].mean()),
        "multiplier": float(contrast.multiplier[0]),
        "duality_gap": float(contrast.duality_gap[:number].max()),
    }


def _epsilon(level: float | None, n: int, largest: float) -> dict[str, float | None]:
    """epsilon, and how it compares: with a direction at random (1), and with the most that the reference shows (1)."""
    if level is None:
        return {"epsilon": None}
    return {"epsilon": float(level), "epsilon_times_n": float(level) * n, "epsilon_over_lambda_max": level / largest}
