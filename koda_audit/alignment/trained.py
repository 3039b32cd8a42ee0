"""Alignments that are trained on stored embeddings: maps of the rows, towers stay as they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from koda_audit._arrays import matrix
from koda_audit._files import digest
from koda_audit.alignment.adapters import Adapter, Both, Kind
from koda_audit.alignment.batches import SHARE, Batches
from koda_audit.alignment.choices import Count, Positive, Share, Size, one_width, whole
from koda_audit.alignment.curriculum import Phases
from koda_audit.alignment.distributed import own
from koda_audit.alignment.kernel_loss import DEGREE, Kernel
from koda_audit.alignment.learners import CurriculumLearner, KernelGoal, KernelLearner
from koda_audit.alignment.maps import UNIT, Fitted
from koda_audit.alignment.samples import rows_sha256
from koda_audit.alignment.training import Feed, Figures, Inputs, Recipe, train

BATCH = 256


def kuea(
    image: Tensor,
    teacher: Any,
    kind: Kind = "linear",
    rank: Count = 64,
    weight: Size = 5.0,
    rho: Positive | None = None,
    learn_rho: bool = False,
    rho_teacher: Positive | None = None,
    kernel: Kernel = "polynomial",
    degree: Count = DEGREE,
    epochs: Count = 20,
    batch: Count | None = None,
    lr: Size = 1e-3,
    seed: int = 0,
    focus: Any = None,
    share: Share = SHARE,
    checkpoints: str | Path | None = None,
) -> Fitted:
    """Norm(h(x)) whose kernel matrix comes close to the teacher's (KUEA on stored embeddings; texts stay).

    h minimises weight L_k + A of ``kernel_loss`` with s the mean squared length, so that the weight has no unit. A map
    of finished embeddings adds nothing that they lack: it weights directions anew.

    Args:
        image: (n, d) unit rows.
        teacher: (n, d_T) raw rows of the same images, or ``Embeddings``, which are put into order by their ids.
        kind: of h, see ``Adapter``; ``rank`` of those that have one, at most d.
        weight: 0.05, 0.5, 5 and 50 are worth trying: take the largest that costs nothing on validation data.
        rho, learn_rho, rho_teacher, kernel, degree: see ``KernelGoal``.
        epochs: passes over all samples; each of the steps has ``batch`` samples, by default 256 or all.
        lr: the peak of AdamW's learning rate, without weight decay.
        focus: rows that ``share`` of each batch comes from, such as ``driven.member_rows`` gives them.
        checkpoints: a folder, from which an interrupted fit goes on.

    Returns:
        ``figures``: as ``KernelLearner.compared``, the rho that was used, steps.

    >>> x = torch.nn.functional.normalize(torch.randn(32, 4, dtype=torch.float64, generator=torch.manual_seed(0)))
    >>> figures = kuea(x, 8 * x[:, :2], weight=50.0).figures
    >>> figures["kernel_loss_after"] < figures["kernel_loss_before"]
    True
    """
    goal = KernelGoal(weight, rho, learn_rho, rho_teacher, kernel, degree, anchor_scale="rms")
    known = matrix(teacher, "teacher")
    drawn = torch.Generator().manual_seed(seed)
    adapter = Adapter(image.shape[1], kind, min(rank, image.shape[1]), drawn)
    learner = KernelLearner(adapter, image.numpy(), known.numpy(), goal)
    recipe, batches = _plan(len(image), epochs, batch, lr, seed, focus, share)
    hashes = {"rows": rows_sha256(image.numpy(), known.numpy()), **_drawn_from(batches)}
    run = {**vars(goal), "kind": kind, "rank": rank, **hashes}
    train(learner, _feed(batches, recipe, image), recipe, checkpoints, run)
    with torch.no_grad():
        after = adapter(image[learner.probe])
    figures: Figures = {**learner.compared(after), "rho": learner.log_rho.exp().item(), "steps": recipe.steps}
    return Fitted(adapter.steps(), UNIT, "shared", figures)


def curriculum(
    image: Tensor,
    text: Tensor,
    alpha_target: Share = 0.5,
    sides: Literal["both", "image", "text"] = "both",
    kind: Kind = "linear",
    rank: Count = 64,
    beta: Size = 1.0,
    scale: Size = 100.0,
    anchor: Share = 0.1,
    ramp: Share = 0.6,
    rise: Size | None = None,
    epochs: Count = 20,
    batch: Count | None = None,
    lr: Size = 1e-3,
    seed: int = 0,
    focus: Any = None,
    share: Share = SHARE,
    checkpoints: str | Path | None = None,
) -> Fitted:
    """Norm(h_x(x)) and Norm(h_y(y)) of least contrastive loss, gap and difference in geometry; see ``curriculum``.

    Args:
        image, text: (n, d) unit rows, pairs. Pairs with one text are no negatives of each other.
        alpha_target: 0..1, the largest weight of what closes the gap.
        sides: which of them are mapped.
        beta: how much more near negatives count; 0 counts all alike.
        scale: of the cosines, CLIP's own 100.
        anchor, ramp, rise: see ``Phases``.
        kind, rank, epochs, batch, lr, seed, focus, share, checkpoints: as in ``kuea``.

    Returns:
        ``figures``: ``alpha``, the weight that was reached, ``steps``, and ``contrast`` and ``closing`` at the end.

    >>> x, y = torch.nn.functional.normalize(
    ...     torch.randn(2, 32, 4, dtype=torch.float64, generator=torch.manual_seed(0)) + 1, dim=2
    ... )
    >>> curriculum(x, y, epochs=10).figures["alpha"] > 0
    True
    """
    width = one_width(image, text)
    drawn = torch.Generator().manual_seed(seed)
    parts = {
        side: Adapter(width, kind, min(rank, width), drawn) if sides in ("both", side) else torch.nn.Identity()
        for side in ("image", "text")
    }
    recipe, batches = _plan(len(image), epochs, batch, lr, seed, focus, share)
    captions = torch.unique(text, dim=0, return_inverse=True)[1]
    phases = Phases(alpha_target, recipe.steps, anchor, ramp, rise)
    learner = CurriculumLearner(Both(**parts), captions, phases, scale, beta)
    goal = {**vars(phases), "sides": sides, "scale": scale, "beta": beta}
    run = {**goal, "kind": kind, "rank": rank, "rows": rows_sha256(image.numpy(), text.numpy()), **_drawn_from(batches)}
    history = train(learner, _feed(batches, recipe, image, text), recipe, checkpoints, run)
    figures = {name: history[-1][name] for name in ("contrast", "closing")}
    maps = [part.steps() if isinstance(part, Adapter) else UNIT for part in parts.values()]
    return Fitted(maps[0], maps[1], "shared", {"alpha": learner.alpha.item(), "steps": recipe.steps, **figures})


def _plan(
    n: int, epochs: int, batch: int | None, lr: float, seed: int, focus: Any, share: float
) -> tuple[Recipe, Batches]:
    batches = Batches(n, min(BATCH, n) if batch is None else batch, seed, focus, share)
    steps = whole(epochs, "epochs", 10**6, "passes over the samples") * batches.per_epoch
    return Recipe(steps, sum(count for _, count in batches.parts), lr, seed=seed), batches


def _feed(batches: Batches, recipe: Recipe, *values: Tensor) -> Feed:
    def feed(start: int) -> Iterator[tuple[Tensor, Inputs]]:
        for step in range(start, recipe.steps):
            rows = batches(step)
            yield rows, tuple(side[own(rows)] for side in values)

    return feed


def _drawn_from(batches: Batches) -> dict[str, Any]:
    return {"drawn from": [[digest(rows.tolist()), count] for rows, count in batches.parts]}
