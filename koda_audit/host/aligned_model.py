"""A model whose embeddings come out aligned, so that the host's own tasks, and anybody's, can be run on them.

In the runner: ``--model_type koda_aligned --model FOLDER --pretrained BASE``, where FOLDER holds a saved alignment and
BASE is the model that it was fitted on, as MODEL,PRETRAINED or ``local-dir:FOLDER``.
"""

from __future__ import annotations

import warnings
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from koda_audit.alignment.maps import Step, unit_rows
from koda_audit.alignment.operator import Alignment, load_alignment
from koda_audit.errors import InputError, KodaAuditWarning
from koda_audit.models import ModelSpec, check_model, load_model
from koda_audit.user_code import check_permission


class AlignedModel(torch.nn.Module):
    """``encode_image`` and ``encode_text`` of a model, followed by the maps of an alignment.

    Each text is mapped by itself. The prompts of a class are therefore mapped before the host averages them, while
    ``Alignment.apply`` maps their average: with one prompt a class both are the same.

    Raises:
        InputError: an alignment that is bound to a gallery, and so has no map for other rows; vectors of another width.
    """

    def __init__(self, base: Any, alignment: Alignment) -> None:
        super().__init__()
        check_row_wise(alignment)
        self.base = base
        self.image, self.text = (_Steps(alignment, side) for side in ("image", "text"))

    def encode_image(self, images: Tensor, normalize: bool = False) -> Tensor:
        return _ended(self.image(self.base.encode_image(images)), normalize)

    def encode_text(self, tokens: Tensor, normalize: bool = False) -> Tensor:
        return _ended(self.text(self.base.encode_text(tokens)), normalize)


class _Steps(torch.nn.Module):
    """The map of one side, as buffers: they go with the model to its device, and count in the hash of its weights."""

    def __init__(self, alignment: Alignment, side: str) -> None:
        super().__init__()
        how, self.what, self.width = alignment.maps[side], f"'{alignment.name}'", alignment.info["widths"][side]
        assert isinstance(how, tuple)
        self.steps = how
        for number, step in enumerate(how):
            for part in fields(step):
                value = getattr(step, part.name)
                self.register_buffer(f"{part.name}_{number}", torch.tensor(value) if isinstance(value, bool) else value)

    def forward(self, rows: Tensor) -> Tensor:
        if rows.shape[1] != self.width:
            raise InputError(f"vectors have width {rows.shape[1]}, {self.what} was fitted on {self.width}")
        if not self.steps:
            return rows
        # as in ``maps.mapped``: float64 from unit rows on, which autocast leaves alone
        points = unit_rows(rows.double())
        for number, step in enumerate(self.steps):
            here = {part.name: getattr(self, f"{part.name}_{number}") for part in fields(step)}
            if isinstance(step, Step):
                here["renormalise"] = step.renormalise
            points = replace(step, **here)(points)
        return points.float()


def check_row_wise(alignment: Alignment) -> None:
    """Raises InputError for an alignment that is bound to a gallery."""
    if alignment.info["gallery_bound"]:
        raise InputError(
            f"'{alignment.name}' is made from the rows it is applied to and has no map for others: "
            "use the tasks koda_aligned_… with its name"
        )


def check_aligned(spec: ModelSpec) -> None:
    """Find what is wrong with a folder and its base before the base is loaded.

    Raises:
        InputError: a base that is none or runs code without permission, or an alignment that is bound to a gallery.
        StoreError: the folder holds no whole alignment.
    """
    check_permission(spec.allow_code, spec.name, spec.pretrained, spec.model_type)
    check_row_wise(load_alignment(spec.name))
    check_model(ModelSpec.parse(spec.pretrained, allow_code=spec.allow_code))


def load_aligned(
    model_name: str, pretrained: str, cache_dir: str | None = None, device: str = "cpu", allow_code: bool = False
) -> Any:
    """The host's loader signature and a permission: the base model with the alignment behind it.

    Raises:
        InputError: the alignment was fitted on another model; the base runs code without permission.
        StoreError: the folder holds no whole alignment.
        ModelError: the base cannot be loaded.
    """
    alignment = load_alignment(model_name)
    base = load_model(ModelSpec.parse(pretrained, allow_code=allow_code), device, cache_dir)
    fitted, here = alignment.info["model_hash"], base.identity["weights"]
    if fitted is None:
        warnings.warn(f"{model_name} does not say which model it was fitted on", KodaAuditWarning, stacklevel=2)
    elif fitted != here:
        raise InputError(
            f"{model_name}: '{alignment.name}' was fitted on embeddings of {alignment.info['model']}, and {pretrained} "
            "has other weights: name its model with --pretrained, or fit it on this one"
        )
    return AlignedModel(base.encoder, alignment).to(device), base.preprocess, base.tokenizer


def _ended(rows: Tensor, normalize: bool) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=-1) if normalize else rows
