"""What a training step of each alignment minimises, whatever network makes the embeddings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from koda_audit._arrays import OnDevice
from koda_audit._options import finite_number, one_of
from koda_audit.alignment.choices import whole
from koda_audit.alignment.curriculum import Phases, alignment_loss, contrastive_loss, gradient_ratio
from koda_audit.alignment.distributed import gathered
from koda_audit.alignment.kernel_loss import (
    DEGREE,
    GRID_ROWS,
    KERNELS,
    Kernel,
    Pairs,
    anchor_loss,
    best_log_rho,
    cosine_bound,
    kernel_matrix,
    kernel_mse,
    teacher_log_rho,
)
from koda_audit.alignment.training import Figures, Inputs
from koda_audit.errors import InputError

RHO_RATE = 1e-2  # learning rate of log rho
MAX_LOG_RHO = 20.0


@dataclass(frozen=True)
class KernelGoal:
    """What kernel alignment minimises: weight L_k + A, see ``kernel_loss``.

    Attributes:
        weight: of L_k. It depends on the scale of the embeddings unless ``anchor_scale`` is "rms".
        rho: of the student's kernel; None takes the best on 512 images before training.
        learn_rho: whether log rho is trained, with a learning rate of its own. (The published code means to, and keeps
            rho fixed.)
        rho_teacher: None is 1/d.
        anchor_scale: s of the anchor: 1 as published, or "rms", the mean squared length of the embeddings.
    """

    weight: float = 0.5
    rho: float | None = None
    learn_rho: bool = False
    rho_teacher: float | None = None
    kernel: Kernel = "polynomial"
    degree: int = DEGREE
    pairs: Pairs = "offdiag"
    anchor_scale: float | Literal["rms"] = 1.0

    def __post_init__(self) -> None:
        finite_number(self.weight, "weight", low=0)
        one_of(self.kernel, "kernel", KERNELS)
        one_of(self.pairs, "pairs", ("offdiag", "all"))
        whole(self.degree, "degree", 99, "the power of the polynomial")
        for name in ("rho", "rho_teacher", "anchor_scale"):
            value = getattr(self, name)
            free = value is None or (name == "anchor_scale" and value == "rms")
            if not free and not finite_number(value, name) > 0:
                raise InputError(f"{name}={value!r}: expected a positive number")


class KernelLearner(nn.Module):
    """Kernel alignment of ``student``, which maps inputs to (b, d) raw embeddings of images.

    Args:
        before: (n, d) its embeddings before training, and ``teacher`` (n, d_T) those of the teacher; only the rows of a
            batch are read.

    Raises:
        InputError: numbers of rows that differ, a teacher that sees all images alike.
    """

    def __init__(self, student: nn.Module, before: Any, teacher: Any, goal: KernelGoal, device: Any = "cpu") -> None:
        super().__init__()
        if len(before) != len(teacher):
            raise InputError(f"the teacher has {len(teacher)} rows for {len(before)} images: embed the same samples")
        self.student, self.goal = student, goal
        self.before, self.teacher = (OnDevice(values, torch.device(device)) for values in (before, teacher))
        # spread over all rows, as datasets are often sorted by class
        self.probe = torch.from_numpy(np.linspace(0, len(before) - 1, min(len(before), GRID_ROWS)).astype(np.int64))
        x, t = self.before[self.probe], self.teacher[self.probe]
        self.teacher_log_rho = teacher_log_rho(t, goal.rho_teacher, goal.kernel, goal.degree)
        start = math.log(goal.rho) if goal.rho else best_log_rho(x, self._teacher(t), goal.kernel, goal.degree)[0]
        rho = torch.tensor(start, dtype=torch.float64, device=x.device)
        self.log_rho = nn.Parameter(rho, requires_grad=goal.learn_rho)
        self.size = (x**2).sum(dim=1).mean().item()
        self.scale = self.size if goal.anchor_scale == "rms" else float(goal.anchor_scale)

    def groups(self) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = [{"params": [p for p in self.student.parameters() if p.requires_grad]}]
        if self.goal.learn_rho:
            groups.append({"params": [self.log_rho], "lr": RHO_RATE, "weight_decay": 0.0})
        return groups

    def step(self, number: int, rows: Tensor, inputs: Inputs) -> tuple[Tensor, Figures]:
        x, before = gathered(self.student(*inputs)), self.before[rows]
        log_rho = self.log_rho.clamp(-MAX_LOG_RHO, MAX_LOG_RHO)
        gram = kernel_matrix(x, log_rho, self.goal.kernel, self.goal.degree)
        kernel = kernel_mse(gram, self._teacher(self.teacher[rows]), self.goal.pairs)
        anchor = anchor_loss(x, before, self.scale)
        figures = {
            "kernel_loss": kernel.detach(),
            "anchor_loss": anchor.detach(),
            "drift": (anchor.detach() * self.scale / self.size).sqrt(),
            "rho": log_rho.detach().exp(),
        }
        return self.goal.weight * kernel + anchor, figures

    def compared(self, after: Tensor) -> Figures:
        """What training did to the probe's images, from their embeddings afterwards (those of ``probe``'s rows).

        Returns:
            ``kernel_loss_before`` and ``kernel_loss_after``, each at the best rho of its side, so that they do not tell
            a moved rho from moved embeddings; ``drift``, root mean square over that of the embeddings;
            ``cosine_bound``, the mean of the most by which a cosine with a text can have changed.
        """
        before, after = self.before[self.probe], after.to(torch.float64)
        teacher = self._teacher(self.teacher[self.probe])
        losses = [best_log_rho(x, teacher, self.goal.kernel, self.goal.degree)[1] for x in (before, after)]
        drift = anchor_loss(after, before, self.size).item() ** 0.5
        bound = cosine_bound(after, before).mean().item()
        return {"kernel_loss_before": losses[0], "kernel_loss_after": losses[1], "drift": drift, "cosine_bound": bound}

    def _teacher(self, rows: Tensor) -> Tensor:
        return kernel_matrix(rows, self.teacher_log_rho, self.goal.kernel, self.goal.degree)


class CurriculumLearner(nn.Module):
    """The curriculum for ``student``, which maps inputs to the (b, d) embeddings of images and of their texts.

    Args:
        captions: (n,) a number for each sample's caption, equal where the captions are.
        scale: of the logits; a parameter of the student is used as it is.
        beta: of the weights of negatives.
    """

    alpha: Tensor

    def __init__(self, student: nn.Module, captions: Tensor, phases: Phases, scale: float, beta: float) -> None:
        super().__init__()
        self.student, self.captions, self.phases = student, captions, phases
        self.scale, self.beta = finite_number(scale, "scale", low=0), finite_number(beta, "beta", low=0)
        self.register_buffer("alpha", torch.zeros((), dtype=torch.float64))

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": [p for p in self.student.parameters() if p.requires_grad]}]

    def step(self, number: int, rows: Tensor, inputs: Inputs) -> tuple[Tensor, Figures]:
        x, y = (F.normalize(gathered(side).to(torch.float64), dim=1) for side in self.student(*inputs))
        caption = self.captions[rows].to(x.device)
        same = caption[:, None] == caption
        contrast = contrastive_loss(x, y, self.scale, same=same)
        closing = alignment_loss(x, y, self.scale, self.beta, same)
        alpha, ratio = self.alpha.item(), math.nan
        if self.phases.name(number) == "ramp":
            ratio = gradient_ratio(contrast, closing, *(side for side in (x, y) if side.requires_grad))
            self.alpha.fill_(self.phases.following(alpha, number, ratio))
        figures = {"alpha": alpha, "contrast": contrast.detach(), "closing": closing.detach(), "gradient_ratio": ratio}
        return (1 - alpha) * contrast + alpha * closing, figures
