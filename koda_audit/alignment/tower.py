"""Alignments that fine-tune the towers of an open_clip model; what comes out is a model like any other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import open_clip
import torch
from safetensors.torch import save
from torch import Tensor, nn

from koda_audit import __version__
from koda_audit._files import atomic_write, digest, write_json
from koda_audit._options import one_of
from koda_audit.alignment.adapters import Both
from koda_audit.alignment.curriculum import Phases
from koda_audit.alignment.distributed import own, ranks
from koda_audit.alignment.learners import CurriculumLearner, KernelGoal, KernelLearner
from koda_audit.alignment.plans import TowerPlan
from koda_audit.alignment.training import Figures, Inputs, train
from koda_audit.data.dataset import Dataset, batches
from koda_audit.embeddings.extract import embed
from koda_audit.embeddings.store import Store
from koda_audit.errors import DataError, InputError
from koda_audit.models import LoadedModel, ModelSpec, load_model

CONFIG, WEIGHTS, RECORD, CHECKPOINTS = (
    "open_clip_config.json",
    "open_clip_model.safetensors",
    "koda_alignment.json",
    "checkpoints",
)


def align_tower(
    student: ModelSpec,
    teacher: LoadedModel,
    dataset: Dataset,
    output: Path,
    store: Store,
    goal: KernelGoal | None = None,
    plan: TowerPlan | None = None,
    device: str = "cpu",
) -> Figures:
    """Kernel alignment of the visual tower (KUEA). The text tower and the logit scale stay as they are.

    Preprocessing is deterministic, so the teacher's features and the student's own from before training are embedded
    once, into the store. BatchNorm and dropout stay in evaluation mode. No label, caption or text reaches the loss.

    Args:
        student: an open_clip model.
        teacher: anything that ``load_model`` loads; it has its own preprocessing.
        dataset: images to train on; keep those that are evaluated out of it.
        output: becomes a ``local-dir:`` folder, which unmodified open_clip and CLIP-benchmark load. Its ``checkpoints``
            hold the state of a run, with which an interrupted one goes on.
        goal, plan: by default those of the paper's loss, with the best rho for this student.

    Returns:
        ``KernelLearner.compared``, ``rho`` and ``steps``.

    Raises:
        InputError: a student without a visual tower, a teacher that sees all images alike, a checkpoint of another run.
        KodaAuditError: a loss that is not finite; the last checkpoint is kept.
        DataError, StoreError, ModelError: as reading, embedding and writing raise them.
    """
    goal, plan = goal or KernelGoal(), plan or TowerPlan()
    model = _trainable(student, device, dataset)
    before = embed(model, dataset, store, workers=plan.workers)
    known = embed(teacher, dataset, store, workers=plan.workers).aligned_to(before.ids)
    learner = KernelLearner(VisualTower(model.encoder), before.image, known.image, goal, device)
    chosen = plan.batches(len(before))
    recipe = plan.recipe(plan.epochs * chosen.per_epoch)

    def feed(start: int) -> Iterator[tuple[Tensor, Inputs]]:
        yield from _images(model, dataset, [chosen(step) for step in range(start, recipe.steps)], plan.workers)

    run = _run(model, dataset, plan, {"teacher": teacher.identity["weights"], "goal": asdict(goal)})
    history = train(learner, feed, recipe, output / CHECKPOINTS, run)
    probe = torch.split(learner.probe, plan.batch)
    with torch.no_grad():
        after = torch.cat(
            [learner.student(*inputs) for _, inputs in _images(model, dataset, probe, plan.workers, True)]
        )
    figures = {**learner.compared(after), "rho": learner.log_rho.exp().item(), "steps": recipe.steps}
    _export(model, output, {**run, "teacher_name": teacher.spec.label, "figures": figures, "history": history})
    return figures


def curriculum_tower(
    student: ModelSpec,
    dataset: Dataset,
    output: Path,
    store: Store,
    alpha_target: float = 0.5,
    towers: Literal["both", "visual"] = "both",
    beta: float = 1.0,
    anchor: float = 0.1,
    ramp: float = 0.6,
    rise: float | None = None,
    plan: TowerPlan | None = None,
    device: str = "cpu",
) -> Figures:
    """The curriculum of ``koda_audit.alignment.curriculum`` on images and their first captions (or class prompts).

    Args:
        student, dataset, output, store, plan: as in ``align_tower``.
        alpha_target: 0..1, the largest weight of what closes the gap.
        towers: "visual" keeps the texts where they are. The logit scale is the student's, and stays.
        beta: how much more near negatives count.
        anchor, ramp, rise: see ``Phases``.

    Returns:
        ``alpha``, the weight that was reached, ``steps``, and ``contrast`` and ``closing`` at the end.

    Raises:
        InputError: no texts; else as ``align_tower``.
    """
    one_of(towers, "towers", ("both", "visual"))
    plan = plan or TowerPlan()
    model = _trainable(student, device, dataset)
    before = embed(model, dataset, store, workers=plan.workers)
    pairs = before.pairs()
    if pairs.text is None or pairs.captions is None:
        raise InputError(f"dataset '{dataset.name}' has neither captions nor class prompts: the curriculum needs texts")
    captions = torch.from_numpy(np.unique(pairs.captions, return_inverse=True)[1])
    if towers == "both":
        if before.text is None:
            raise InputError("both towers are trained on captions: take a dataset with captions, or towers='visual'")
        texts = model.tokenizer(list(pairs.captions))
        tower: nn.Module = Both(VisualTower(model.encoder), TextTower(model.encoder))
    else:
        texts = torch.from_numpy(np.asarray(pairs.text))
        tower = Both(VisualTower(model.encoder), nn.Identity())
    chosen = plan.batches(len(before))
    recipe = plan.recipe(plan.epochs * chosen.per_epoch)
    scale = model.encoder.logit_scale.exp().item()
    phases = Phases(alpha_target, recipe.steps, anchor, ramp, rise)
    learner = CurriculumLearner(tower, captions, phases, scale, beta)
    learner.to(device)

    def feed(start: int) -> Iterator[tuple[Tensor, Inputs]]:
        every = [chosen(step) for step in range(start, recipe.steps)]
        for rows, (images,) in _images(model, dataset, every, plan.workers):
            yield rows, (images, texts[own(rows)].to(device))

    goal = {**asdict(phases), "towers": towers, "beta": beta}
    run = _run(model, dataset, plan, {"goal": goal})
    history = train(learner, feed, recipe, output / CHECKPOINTS, run)
    figures: Figures = {name: history[-1][name] for name in ("contrast", "closing")}
    figures = {"alpha": learner.alpha.item(), "steps": recipe.steps, **figures}
    _export(model, output, {**run, "figures": figures, "history": history})
    return figures


class VisualTower(nn.Module):
    """Images to raw embeddings, as ``encode_image`` makes them; its parameters are those of ``visual``, and train."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.visual = model.visual.requires_grad_(True)
        self._encode = model.encode_image

    def forward(self, images: Tensor) -> Tensor:
        embeddings: Tensor = self._encode(images)
        return embeddings


class TextTower(nn.Module):
    """Tokens to raw embeddings, as ``encode_text`` makes them; all but ``visual`` and the logits' parameters trains."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        kept = {name: part for name, part in model.named_parameters() if not name.startswith(("visual.", "logit_"))}
        for name, parameter in kept.items():
            parameter.requires_grad_(True)
            self.register_parameter(name.replace(".", "/"), parameter)
        self._encode = model.encode_text

    def forward(self, tokens: Tensor) -> Tensor:
        embeddings: Tensor = self._encode(tokens)
        return embeddings


def check_student(student: ModelSpec) -> None:
    """Raises InputError for a model whose towers cannot be trained, as far as its name tells."""
    if student.model_type != "open_clip" or student.name.startswith("py:"):
        raise InputError(f"model '{student.label}': towers are trained of open_clip models, which can be written again")


def _trainable(student: ModelSpec, device: str, dataset: Dataset) -> LoadedModel:
    """Loaded for this run alone: a model that is trained must not be embedded under the name of the untrained one."""
    check_student(student)
    if dataset.samples.in_order:
        raise DataError(f"dataset '{dataset.name}' is a stream: its samples cannot be read in random order")
    model = load_model(student, device)
    if not isinstance(getattr(model.encoder, "visual", None), nn.Module):
        raise InputError(f"model '{student.label}' has no visual tower that could be trained")
    model.encoder.requires_grad_(False)
    return model


def _images(
    model: LoadedModel, dataset: Dataset, groups: Sequence[Tensor], workers: int, whole: bool = False
) -> Iterator[tuple[Tensor, tuple[Tensor]]]:
    """The rows of each group, and the preprocessed images that this rank embeds of them, or of the ``whole`` group."""
    read = batches(dataset, [(rows if whole else own(rows)).tolist() for rows in groups], model.preprocess, workers)
    for rows, (_, images, _) in zip(groups, read, strict=True):
        yield rows, (images.to(model.device),)


def _run(model: LoadedModel, dataset: Dataset, plan: TowerPlan, more: dict[str, Any]) -> dict[str, Any]:
    focus = None if plan.focus is None else digest(np.asarray(plan.focus).tolist())
    fixed = {"epochs": plan.epochs, "focus": focus, "share": plan.share}
    return {"student": model.identity["weights"], "dataset": dataset.fingerprint, **fixed, **more}


def _export(model: LoadedModel, folder: Path, record: dict[str, Any]) -> None:
    """Write the model with its own architecture and preprocessing as a ``local-dir:`` folder."""
    if ranks()[0]:
        return
    weights = save(
        {name: value.detach().cpu().contiguous().clone() for name, value in model.encoder.state_dict().items()}
    )
    with atomic_write(folder / WEIGHTS) as stream:
        stream.write(weights)
    architecture = open_clip.get_model_config(model.spec.name)
    write_json(
        folder / CONFIG, {"model_cfg": architecture, "preprocess_cfg": dict(model.encoder.visual.preprocess_cfg)}
    )
    made = {"koda_audit": __version__, "open_clip": open_clip.__version__, "torch": torch.__version__}
    write_json(folder / RECORD, {"base": model.spec.label, **record, "versions": made})
