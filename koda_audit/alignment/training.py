"""One training loop for all alignments: exact to resume, and it stops at the first number that is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from koda_audit._files import check_writable
from koda_audit._options import finite_number, whole_number
from koda_audit.alignment.checkpoint import Checkpoints, kept_generators
from koda_audit.alignment.distributed import average_gradients, ranks
from koda_audit.errors import KodaAuditError

Figures = dict[str, Any]
"""Numbers, or tensors of one number."""
Inputs = tuple[Tensor, ...]
Feed = Callable[[int], Iterable[tuple[Tensor, Inputs]]]
"""feed(start): for each step from ``start`` on, the rows of the whole batch and what this rank embeds of it."""


class Learner(Protocol):
    """What is trained: a ``torch.nn.Module`` whose state_dict is all that a checkpoint must hold."""

    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups of the optimiser; "lr" and "weight_decay" where they are not the recipe's."""

    def step(self, number: int, rows: Tensor, inputs: Inputs) -> tuple[Tensor, Figures]:
        """The loss of a batch, and what is to be logged of it."""


@dataclass(frozen=True)
class Recipe:
    """AdamW with a linear warm-up and a cosine down to 0.

    Attributes:
        steps, batch: of the whole batch, over all processes.
        lr: the peak; step 0 of a warm-up runs at lr / warmup.
        seed: of the order of the samples, and of what is initialised at random.
        save_every: steps between checkpoints; also after the last one.
        log_every: steps between the entries of the history.
    """

    steps: int
    batch: int
    lr: float
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: int = 0
    seed: int = 0
    save_every: int = 200
    log_every: int = 10

    def __post_init__(self) -> None:
        for name, low in (("steps", 1), ("batch", 2), ("warmup", 0), ("seed", 0), ("save_every", 1), ("log_every", 1)):
            whole_number(getattr(self, name), name, low, None)
        for name in ("lr", "weight_decay"):
            finite_number(getattr(self, name), name, low=0)

    def rate(self, step: int) -> float:
        """The learning rate of ``step``, in parts of the peak.

        >>> [Recipe(6, 2, 1e-3, warmup=2).rate(step) for step in (0, 1, 2, 4)]
        [0.5, 1.0, 1.0, 0.5]
        """
        if step < self.warmup:
            return (step + 1) / self.warmup
        return 0.5 + 0.5 * math.cos(math.pi * (step - self.warmup) / max(1, self.steps - self.warmup))


@kept_generators()
def train(
    learner: Any, feed: Feed, recipe: Recipe, folder: str | Path | None = None, run: Mapping[str, Any] | None = None
) -> list[Figures]:
    """Train ``learner`` in place; the global random generators are afterwards what they were before.

    Args:
        learner: a ``Learner`` that is a module.
        feed: the batches; the same ones for the same step, whenever it is asked.
        folder: of the checkpoints. A run that was interrupted goes on with the last one, and ends with the same weights
            as an uninterrupted one on the same machine. Rank 0 writes; all ranks read.
        run: what tells this run from others, besides the recipe, in plain JSON types.

    Returns:
        The history: "step", "lr", "loss" and the learner's figures, every ``log_every`` steps and of the last one.

    Raises:
        KodaAuditError: a loss or weight that is not finite; the last checkpoint is kept.
        InputError, StoreError: as ``Checkpoints`` raises them.
    """
    optimiser = torch.optim.AdamW(learner.groups(), lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay)
    peaks = [group["lr"] for group in optimiser.param_groups]
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    settings = {name: value for name, value in vars(recipe).items() if name != "save_every"}
    checkpoints = None if folder is None else Checkpoints(folder, {**settings, **(run or {})})
    if checkpoints and ranks()[0] == 0:
        check_writable(checkpoints.folder, "the folder of the checkpoints")
    start, history = checkpoints.restore(learner, optimiser) if checkpoints else (0, [])

    def stop(what: str, step: int) -> KodaAuditError:
        kept = f"; the last checkpoint in {folder} is kept" if checkpoints and checkpoints.steps() else ""
        return KodaAuditError(
            f"{what} at step {step}: training stops{kept}; lower the learning rate (lr={recipe.lr:g})"
        )

    batches = iter(feed(start))
    for step in tqdm(range(start, recipe.steps), initial=start, total=recipe.steps, unit="step", disable=None):
        rows, inputs = next(batches)
        for group, peak in zip(optimiser.param_groups, peaks, strict=True):
            group["lr"] = peak * recipe.rate(step)
        loss, figures = learner.step(step, rows, inputs)
        if not torch.isfinite(loss):
            raise stop(f"the loss is {loss.item()}", step)
        optimiser.zero_grad()
        loss.backward()
        average_gradients(parameters)
        optimiser.step()
        done, last = step + 1, step + 1 == recipe.steps
        if last or step % recipe.log_every == 0:
            numbers = {name: float(value) for name, value in {"loss": loss.detach(), **figures}.items()}
            history.append({"step": step, "lr": recipe.rate(step) * recipe.lr, **numbers})
        if last or done % recipe.save_every == 0:
            if not all(bool(torch.isfinite(parameter).all()) for parameter in parameters):
                raise stop("a weight is not finite", step)
            if checkpoints and ranks()[0] == 0:
                checkpoints.save(done, learner, optimiser, history)
    return history
