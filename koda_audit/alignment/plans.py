"""How a tower is trained, and the published settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from koda_audit._options import finite_number
from koda_audit.alignment.batches import SHARE, Batches
from koda_audit.alignment.choices import whole
from koda_audit.alignment.learners import KernelGoal
from koda_audit.alignment.training import Recipe
from koda_audit.errors import InputError


@dataclass(frozen=True)
class TowerPlan:
    """How a tower is trained.

    Attributes:
        epochs: passes over the dataset.
        batch: samples a step, over all processes.
        lr, weight_decay, warmup: see ``Recipe``. No parameter is excluded from the decay.
        seed: of the order of the samples.
        save_every: steps between checkpoints.
        workers: that read images.
        focus, share: rows that ``share`` of each batch comes from, see ``driven``.
    """

    epochs: int = 2
    batch: int = 128
    lr: float = 1e-5
    weight_decay: float = 1e-4
    warmup: int = 0
    seed: int = 0
    save_every: int = 200
    workers: int = 4
    focus: Sequence[int] | None = None
    share: float = SHARE

    def __post_init__(self) -> None:
        whole(self.epochs, "epochs", 10**6, "passes over the samples")
        share = finite_number(self.share, "share", low=0)
        if share > 1:
            raise InputError(f"share={share}: expected 0 to 1")
        self.recipe(1)

    def batches(self, n: int) -> Batches:
        """Of n samples; an InputError where they cannot be drawn."""
        return Batches(n, self.batch, self.seed, self.focus, self.share)

    def recipe(self, steps: int) -> Recipe:
        """How ``steps`` steps are taken."""
        names = ("batch", "lr", "weight_decay", "warmup", "seed", "save_every")
        return Recipe(steps, **{name: getattr(self, name) for name in names})


# Table 7 of the paper; batches are of all GPUs together. The README of the release gives rho for ViT-L-14, and for that
# model alone; the other two take it as well.
PAPER_RHO = 0.0032 / 0.191623
PAPER = {
    "ViT-B-16": (0.5, TowerPlan(epochs=2, batch=128, warmup=1400)),
    "ViT-L-14": (0.5, TowerPlan(epochs=2, batch=64, warmup=2800)),
    "ViT-L-14-336": (1.0, TowerPlan(epochs=4, batch=32, warmup=5600)),
}


def kuea_paper(model: str) -> tuple[KernelGoal, TowerPlan]:
    """The preset ``kuea-paper``: goal and plan as published for an OpenAI model (ICML 2025, arXiv 2506.02557).

    rho is fixed, as in the released code, whose parameters are never updated. Warm-up counts steps on ImageNet-1k.

    Raises:
        InputError: a model of which nothing was published.

    >>> goal, plan = kuea_paper("ViT-L-14-quickgelu")
    >>> goal.weight, round(goal.rho, 4), goal.pairs, plan.batch, plan.warmup
    (0.5, 0.0167, 'all', 64, 2800)
    """
    name = model.removesuffix("-quickgelu")
    if name not in PAPER:
        raise InputError(f"kuea-paper has no settings for '{model}': the paper gives them for {', '.join(PAPER)}")
    weight, plan = PAPER[name]
    return KernelGoal(weight=weight, rho=PAPER_RHO, pairs="all", anchor_scale=1.0), plan
