"""The directions that the target holds and the reference does not, and all that groups are read off and judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from koda_audit._arrays import OnDevice, Vectors, choose_device, chosen
from koda_audit._contrast.direction import LARGEST
from koda_audit._contrast.solve import Contrast
from koda_audit._kernels.bandwidth import TARGET, Bandwidth, fit_bandwidth
from koda_audit._kernels.blocks import Blocks
from koda_audit._kernels.rbf import MODALITIES
from koda_audit._kernels.table import KERNELS, kernel_blocks
from koda_audit.discrepancy.choices import FEATURES, N_FEATURES, PRESETS, check_choices, plan
from koda_audit.discrepancy.paths import PATHS, Operators, Plan, Sides, solve, swapped
from koda_audit.discrepancy.pool import Pool, drawn
from koda_audit.discrepancy.turn import oriented
from koda_audit.embeddings.container import Embeddings
from koda_audit.errors import InputError

NOTHING = 1e-6  # of the largest coherence in the target: rounding


@dataclass(frozen=True)
class Search:
    """What was sought, how, and what was found.

    Mappings go from "target" and "reference". ``contrast`` has the directions, (n, k) columns, the leading T of which
    are those of each T; ``plan`` has epsilon as it was used, and ``asked`` as it was asked for.
    """

    modality: str
    sides: Sides
    widths: Mapping[str, Bandwidth]
    blocks: Mapping[str, Blocks]
    pool: Pool
    operators: Operators
    asked: Plan
    plan: Plan
    contrast: Contrast

    @cached_property
    def columns(self) -> NDArray[np.float64]:
        """(n, k) the directions up to the first that the target holds nothing of, at least one.

        Those are any vectors of a null space, and other ones where the samples come in another order.
        """
        held = self.contrast.target > NOTHING * self.contrast.target.max()
        count = len(held) if held.all() else max(int(held.argmin()), 1)
        return oriented(self.contrast.directions[:, :count])

    def with_columns(self, count: int) -> Search:
        """With ``count`` directions, at the same price of coherence in the reference."""
        price = min(float(self.contrast.multiplier[0]), LARGEST)
        asked = replace(self.plan, epsilon=None, quantile=None, multiplier=price, block=0, n_directions=count)
        contrast, _ = solve(self.operators, asked)
        gap = contrast.duality_gap + self.contrast.duality_gap.max()
        return replace(self, contrast=replace(contrast, duality_gap=gap))

    def swapped(self) -> Search:
        """The other way: what was the reference is the target. Widths, kernels and random features are the same."""
        operators = self.operators.swapped()
        contrast, used = solve(operators, self.asked)
        return replace(
            self,
            sides=self.sides.swapped(),
            widths=swapped(self.widths) if self.widths else self.widths,
            blocks=swapped(self.blocks),
            pool=Pool(self.pool.rows, self.pool.reference, self.pool.target),
            operators=operators,
            plan=used,
            contrast=contrast,
        )


def search(
    target: Embeddings,
    reference: Embeddings,
    *,
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
) -> Search:
    """See ``find_discrepancies``, which takes the same arguments and raises the same errors."""
    models = {"target": target, "reference": reference}
    choices = {
        "modality": (modality, MODALITIES),
        "kernel": (kernel, KERNELS),
        "features": (features, FEATURES),
        "path": (path, ("auto", *PATHS)),
        **({} if preset is None else {"preset": (preset, PRESETS)}),
    }
    check_choices(models, choices, seed=seed, n_features=n_features)
    seed = int(seed)
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
        seed=seed,
    )
    vectors = {role: _vectors(model.aligned_to(target.ids), modality, role, place) for role, model in models.items()}
    rows = drawn(target.ids, seed)
    widths = {
        role: _bandwidth(chosen(vectors[role], torch.from_numpy(rows)), model, role, seed)
        for role, model in models.items()
        if KERNELS[kernel].has_bandwidth
    }
    sigmas = {role: widths[role].sigmas if widths else {} for role in models}
    blocks = {role: kernel_blocks(kernel, vectors[role], sigmas[role]) for role in models}
    sides = Sides(vectors, sigmas, kernel, place)
    pool = Pool.of(rows, blocks["target"], blocks["reference"])
    for role, model in models.items():
        if getattr(pool, role).min() > 1 - NOTHING:
            raise InputError(
                f"{_name(model, role)}: all samples are one to the kernel '{kernel}', and none can be told from another"
            )
    operators = Operators.of(sides, how)
    contrast, used = solve(operators, how)
    return Search(
        modality=modality,
        sides=sides,
        widths=widths,
        blocks=blocks,
        pool=pool,
        operators=operators,
        asked=how,
        plan=used,
        contrast=contrast,
    )


def _vectors(model: Embeddings, modality: str, role: str, device: torch.device) -> dict[str, Vectors]:
    wanted = MODALITIES[modality]
    if wanted == ("image",):
        return {"image": OnDevice(model.image, device)}
    pairs = model.pairs()
    if pairs.text is None:
        raise InputError(f"the {role} has no text, which modality='{modality}' needs: use modality='image'")
    return {name: OnDevice(getattr(pairs, name), device) for name in wanted}


def _bandwidth(vectors: Mapping[str, Vectors], model: Embeddings, role: str, seed: int) -> Bandwidth:
    try:
        return fit_bandwidth(vectors, TARGET, seed)
    except InputError as error:
        remedy = "; modality='image' leaves the texts out" if "text" in vectors else ""
        raise InputError(f"{_name(model, role)}: {error}{remedy}") from error


def _name(model: Embeddings, role: str) -> str:
    return str(model.meta.get("model", f"the {role}"))
