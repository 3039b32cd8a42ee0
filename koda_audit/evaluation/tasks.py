"""Every evaluation under the name of its task, on ``Embeddings``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from inspect import signature
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from koda_audit._arrays import OnDevice, choose_device
from koda_audit._options import one_of, whole_number
from koda_audit.embeddings.container import Embeddings, check_embeddings
from koda_audit.errors import InputError
from koda_audit.evaluation.classification import zeroshot_classification
from koda_audit.evaluation.clustering import joint_clustering
from koda_audit.evaluation.probe import linear_probe
from koda_audit.evaluation.retrieval import AT, zeroshot_retrieval
from koda_audit.evaluation.scores import Outcomes, Scores
from koda_audit.evaluation.selection import image_caption_selection
from koda_audit.evaluation.side_effects import decisions, zeroshot_side_effects

CPU = torch.device("cpu")
REMEDY = MappingProxyType(
    {
        "text": "embed a dataset with captions",
        "labels": "embed a dataset with classes",
        "class_text": "embed a dataset with classes",
    }
)


def evaluate(embeddings: Embeddings, task: str, *, device: str | torch.device = CPU, **options: Any) -> Scores:
    """One benchmark on stored embeddings, aligned or not.

    ======================= ================== =========================================================
    task                    needs              options (see the function of the same purpose)
    ======================= ================== =========================================================
    zeroshot_classification labels, class_text
    zeroshot_retrieval      text               ``at``, default (1, 5, 10)
    image_caption_selection text               ``images_per_instance``, default 1
    linear_probe            labels             ``train``: Embeddings with labels; ``C``, ``seed``
    joint_clustering        text, or classes   ``protocol``, ``clusters``, ``seed``
    side_effects            class_text         ``unaligned``: Embeddings of the same samples, not aligned
    ======================= ================== =========================================================

    Selection with one image an instance takes the first of its captions as the right one (SugarCrepe); with I of them,
    images 0 … I - 1 are the first instance, and so on, and each has one caption (Winoground). Clustering takes the
    first caption of an image, else the prompt of its class, and of images with several possible labels those that have
    exactly one.

    Args:
        embeddings: of the test split.
        task: as above; the first four names are those of clip_benchmark.
        device: where cosines are computed, "cpu" or "cuda".
        options: as above.

    Raises:
        InputError: an unknown task or option, embeddings that lack what it needs, or what its function refuses.
        DataError: clustering, where an image has no caption.

    >>> evaluate(Embeddings(np.eye(2), [[3.0, 1.0], [2.0, 1.0]]), "zeroshot_retrieval", at=[1]).values
    {'image_retrieval_recall@1': 0.5, 'text_retrieval_recall@1': 1.0}
    """
    one_of(task, "evaluation", TASKS)
    device = choose_device(device)
    run = TASKS[task]
    try:
        signature(run).bind(embeddings, device, **options)
    except TypeError as error:
        raise InputError(f"{task}: {error}") from error
    for name, value in {"embeddings": embeddings, **options}.items():
        if name in ("embeddings", "train", "unaligned") and not (name == "unaligned" and value is None):
            check_embeddings(value, name)
    return run(embeddings, device, **options)


def _classification(model: Embeddings, device: torch.device) -> Scores:
    labels, class_text = _part(model, "labels"), _part(model, "class_text")
    return zeroshot_classification(_on(model.image, device), _on(class_text, device), labels)


def _retrieval(model: Embeddings, device: torch.device, at: Sequence[int] = AT) -> Scores:
    return zeroshot_retrieval(_on(model.image, device), _on(_part(model, "text"), device), model.text_image, at)


def _selection(model: Embeddings, device: torch.device, images_per_instance: int = 1) -> Scores:
    whole_number(images_per_instance, "images_per_instance", least=1)
    text = _part(model, "text")
    assert model.text_image is not None
    order = np.argsort(model.text_image, kind="stable")
    captions = np.bincount(model.text_image, minlength=len(model))
    if captions.min() != captions.max() or (images_per_instance > 1 and captions[0] != 1):
        as_many = "one caption" if images_per_instance > 1 else "as many captions"
        raise InputError(
            f"images have {captions.min()} to {captions.max()} captions: selection needs {as_many} an image"
        )
    instances = len(model) // images_per_instance
    if instances * images_per_instance != len(model):
        raise InputError(f"{len(model)} images are no whole number of instances of {images_per_instance} images")
    return image_caption_selection(_on(model.image, device), _on(text, device)[order], instances)


def _probe(model: Embeddings, device: torch.device, train: Embeddings, C: float | None = None, seed: int = 0) -> Scores:
    return linear_probe(train.image, _part(train, "labels"), model.image, _part(model, "labels"), C, seed)


def _clustering(
    model: Embeddings,
    device: torch.device,
    protocol: str = "default",
    clusters: int | None = None,
    seed: int | None = None,
) -> Scores:
    labels, kept = model.labels, np.arange(len(model))
    if labels is None or labels.ndim == 2 or model.class_text is None:
        _part(model, "text")
    if labels is not None and labels.ndim == 2:
        kept = np.flatnonzero(labels.sum(axis=1) == 1)
        labels = labels[kept].argmax(axis=1)
        if not len(kept):
            raise InputError(f"no image of {model} has exactly one label: clustering compares with one label an image")
    image, text = _on(model.image, device)[kept], _on(model.pairs().text, device)[kept]
    found = joint_clustering(image, text, labels, protocol, clusters, seed)
    return replace(
        found, outcomes={name: Outcomes(each.values, kept[each.image]) for name, each in found.outcomes.items()}
    )


def _side_effects(model: Embeddings, device: torch.device, unaligned: Embeddings | None = None) -> Scores:
    vectors = _on(model.image, device), _on(_part(model, "class_text"), device)
    if unaligned is None:
        return zeroshot_side_effects(*vectors, model.labels)
    if unaligned.ids != model.ids:
        raise InputError("unaligned holds other samples, or another order: use unaligned.aligned_to(ids)")
    before = decisions(_on(unaligned.image, device), _on(_part(unaligned, "class_text"), device))
    return zeroshot_side_effects(*vectors, model.labels, before)


def _part(model: Embeddings, name: str) -> Any:
    values = getattr(model, name)
    if values is None:
        raise InputError(f"{model} has no {name}: {REMEDY[name]}")
    return values


def _on(values: Any, device: torch.device) -> Tensor:
    return OnDevice(values, device)[:]


TASKS: Mapping[str, Callable[..., Scores]] = MappingProxyType(
    {
        "zeroshot_classification": _classification,
        "zeroshot_retrieval": _retrieval,
        "image_caption_selection": _selection,
        "linear_probe": _probe,
        "joint_clustering": _clustering,
        "side_effects": _side_effects,
    }
)
