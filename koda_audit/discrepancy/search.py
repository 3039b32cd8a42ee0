"""Directions that the target holds and the reference does not, and the lobes at their ends: all but the verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from koda_audit._arrays import OnDevice, Vectors, choose_device
from koda_audit._contrast.solve import Contrast
from koda_audit._kernels.bandwidth import TARGET, Bandwidth, fit_bandwidth
from koda_audit._kernels.blocks import Blocks, kernel_blocks
from koda_audit._kernels.rbf import MODALITIES
from koda_audit._kernels.table import KERNELS
from koda_audit.discrepancy.choices import FEATURES, N_FEATURES, PRESETS, Plan, check_choices, plan
from koda_audit.discrepancy.findings import measures
from koda_audit.discrepancy.lobes import Lobe, lobes, oriented
from koda_audit.discrepancy.paths import PATHS, Goal, Sides, solve
from koda_audit.discrepancy.rotation import ROTATIONS, turned
from koda_audit.embeddings.container import Embeddings
from koda_audit.errors import InputError


@dataclass(frozen=True)
class Search:
    """What was sought, how, and what was found.

    Mappings go from "target" and "reference". ``contrast`` belongs to the directions as they were solved, which span
    what ``directions`` (n, T) span; ``coherences`` are the exact ones of the latter, with their standard errors, (T,)
    each; ``goal`` has epsilon as it was used.
    """

    vectors: Mapping[str, Mapping[str, Vectors]]
    widths: Mapping[str, Bandwidth]
    blocks: Mapping[str, Blocks]
    plan: Plan
    goal: Goal
    contrast: Contrast
    directions: NDArray[np.float64]
    coherences: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
    lobes: list[Lobe]
    measures: list[dict[str, float]]

    @property
    def sigmas(self) -> dict[str, dict[str, float]]:
        return {role: self.widths[role].sigmas if self.widths else {} for role in self.vectors}


def search(
    target: Embeddings,
    reference: Embeddings,
    *,
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
) -> Search:
    """See ``find_discrepancies``, which takes the same arguments and raises the same errors."""
    models = {"target": target, "reference": reference}
    choices = {
        "modality": (modality, MODALITIES),
        "kernel": (kernel, KERNELS),
        "features": (features, FEATURES),
        "path": (path, ("auto", *PATHS)),
        "rotation": (rotation, ROTATIONS),
        **({} if preset is None else {"preset": (preset, PRESETS)}),
    }
    check_choices(models, choices, seed=seed, n_features=n_features)
    n_features, seed = int(n_features), int(seed)
    place = choose_device(device)
    how = plan(
        len(target),
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
        role: _bandwidth(vectors[role], model, role, seed)
        for role, model in models.items()
        if KERNELS[kernel].has_bandwidth
    }
    sigmas = {role: widths[role].sigmas if widths else {} for role in models}
    goal = Goal(how.epsilon, how.quantile, n_directions, multiplier, seed, how.mixed, rotation)
    contrast, level = solve(Sides(vectors, sigmas, kernel, place), goal, how.path, n_features)
    directions = oriented(turned(contrast.directions, rotation))
    blocks = {role: kernel_blocks(kernel, vectors[role], sigmas[role]) for role in models}
    exact = {role: block.coherences(torch.from_numpy(directions), seed) for role, block in blocks.items()}
    found = lobes(directions, blocks["target"].part)
    return Search(
        vectors=vectors,
        widths=widths,
        blocks=blocks,
        plan=how,
        goal=replace(goal, epsilon=level),
        contrast=contrast,
        directions=directions,
        coherences={role: (values.numpy(), errors.numpy()) for role, (values, errors) in exact.items()},
        lobes=found,
        measures=[measures(lobe, blocks["target"], blocks["reference"]) for lobe in found],
    )


def _vectors(model: Embeddings, modality: str, role: str, device: torch.device) -> dict[str, Vectors]:
    wanted = MODALITIES[modality]
    if wanted == ("image",):
        return {"image": OnDevice(model.image, device)}
    pairs = model.pairs()
    if pairs.text is None:
        raise InputError(f"the {role} has no text, which modality='{modality}' needs: use modality='image'")
    return {name: OnDevice(getattr(pairs, name), device) for name in wanted}


def _bandwidth(vectors: dict[str, Vectors], model: Embeddings, role: str, seed: int) -> Bandwidth:
    try:
        return fit_bandwidth(vectors, TARGET, seed)
    except InputError as error:
        remedy = "; modality='image' leaves the texts out" if "text" in vectors else ""
        raise InputError(f"{model.meta.get('model', 'the ' + role)}: {error}{remedy}") from error
