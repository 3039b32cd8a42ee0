"""Embed a dataset with a model, shard by shard, into the store. What is there already is never computed again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tqdm import tqdm

from koda_audit.data.dataset import Dataset, batches
from koda_audit.data.prompts import class_prompts
from koda_audit.embeddings import files
from koda_audit.embeddings.checks import check_rows
from koda_audit.embeddings.container import Embeddings
from koda_audit.embeddings.store import Store, library_versions
from koda_audit.errors import DataError, ModelError
from koda_audit.identity import foreign_code
from koda_audit.models import LoadedModel

ROWS_PER_SHARD = 1024
Dtype = Literal["fp32", "host"]
Vectors = NDArray[np.float32]


def ingredients(model: LoadedModel, dataset: Dataset, dtype: Dtype, variant: str | None = None) -> dict[str, Any]:
    """Everything that can change a vector, in plain types; its digest names the entry in the store."""
    return {
        "model": model.identity,
        "dataset": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "split": dataset.split,
            "language": dataset.language,
            "kind": dataset.kind,
        },
        "captions": "all" if dataset.kind == "captions" else None,
        "prompts": [dataset.class_names, dataset.templates],
        "dtype": "float32" if dtype == "fp32" else f"autocast on {torch.device(model.device).type}",
        "libraries": library_versions(),
        **({} if variant is None else {"variant": variant}),
    }


def embed(
    model: LoadedModel,
    dataset: Dataset,
    store: Store,
    *,
    batch_size: int = 64,
    workers: int = 4,
    dtype: Dtype = "fp32",
    quiet: bool = False,
    other_batches: bool = False,
) -> Embeddings:
    """The raw embeddings of ``dataset`` under ``model``, from the store or computed now.

    Args:
        other_batches: embed once more, in batches of another size than those of the first time, which is done before
            where it is missing. Whatever differs is the noise of the model itself.

    Raises:
        DataError: an unreadable sample, or one whose embedding is zero or not finite; the message names it.
        ModelError: the model fails on the batch.
        StoreError: the store cannot be written.
    """
    if other_batches:
        first = embed(
            model, dataset, store, batch_size=batch_size, workers=workers, dtype=dtype, quiet=quiet
        )  # perhaps made long ago, in batches of another size than is asked for now
        batch_size = another_size(min(first.meta["batch_size"], ROWS_PER_SHARD, len(first)))
    recipe = ingredients(model, dataset, dtype, "other batches" if other_batches else None)
    path = store.path(recipe)
    with store.locked(path):
        found = store.complete(path)
        if found is not None:
            found.meta["model"] = model.spec.label  # the same function may lie under another name by now
            return found
        classes = _class_text(model, dataset, dtype)  # first: it is cheap, and fails early
        shards = _shards(model, dataset, store, path, batch_size, workers, dtype, quiet)
        meta = {
            "model": model.spec.label,
            "ingredients": recipe,
            "device": model.device,
            "batch_size": batch_size,
            "host_precision_turn": _host_precision_turn(model, dataset) if dtype == "fp32" else None,
        }
        files.write_manifest(path, {**meta, "class_names": dataset.class_names}, len(shards), classes, path.name)
        return Embeddings.from_shards(shards, class_text=classes, class_names=dataset.class_names, meta=meta)


def another_size(size: int) -> int:
    """A batch size that is no multiple and, from 3 on, no part of ``size``: every sample meets other neighbours.

    >>> [another_size(size) for size in (1, 2, 3, 4, 64)]
    [2, 1, 2, 3, 43]
    """
    return 2 if size == 1 else size - max(1, size // 3)


def _shards(
    model: LoadedModel,
    dataset: Dataset,
    store: Store,
    path: Path,
    batch_size: int,
    workers: int,
    dtype: Dtype,
    quiet: bool,
) -> list[files.Shard]:
    n = len(dataset.samples)
    spans = [range(start, min(start + ROWS_PER_SHARD, n)) for start in range(0, n, ROWS_PER_SHARD)]
    found = {index: shard for index in range(len(spans)) if (shard := store.shard(path, index)) is not None}
    missing = [index for index in range(len(spans)) if index not in found]
    # no batch crosses a shard, so that a resumed run puts the same samples into the same batches
    groups = [
        spans[index][start : start + batch_size]
        for index in missing
        for start in range(0, len(spans[index]), batch_size)
    ]
    done = sum(len(shard.ids) for shard in found.values())
    with tqdm(
        total=n,
        initial=done,
        unit="img",
        desc=f"embed {dataset.name} with {model.spec.label}",
        disable=True if quiet else None,  # None: silent when not a terminal
    ) as bar:
        encoded = _encoded(model, dataset, groups, workers, dtype, bar.update)
        for index in missing:
            files.write_shard(path, index, _as_shard(list(islice(encoded, len(spans[index]))), dataset.kind), path.name)
            written = files.read_shard(
                path, index, path.name
            )  # memory holds one shard, and what was written is verified
            assert written is not None
            found[index] = written
    return [found[index] for index in range(len(spans))]


Encoded = tuple[str, Vectors, "Vectors | None", Any]  # id, image (d_i,), texts (captions, d_t), captions or label


def _encoded(
    model: LoadedModel,
    dataset: Dataset,
    groups: Sequence[Sequence[int]],
    workers: int,
    dtype: Dtype,
    progress: Callable[[int], Any],
) -> Iterator[Encoded]:
    for ids, images, targets in batches(dataset, groups, model.preprocess, workers):
        image = _encode(model, model.encoder.encode_image, images, dtype, "image", ids)
        texts: list[Vectors | None] = [None] * len(ids)
        if dataset.kind == "captions":
            owners = [sample for sample, captions in zip(ids, targets, strict=True) for _ in captions]
            with foreign_code(f"{model.spec.label}, its tokenizer"):
                tokens = model.tokenizer([caption for captions in targets for caption in captions])
            text = _encode(model, model.encoder.encode_text, tokens, dtype, "text", owners)
            texts = list(np.split(text, np.cumsum([len(captions) for captions in targets])[:-1]))
        yield from zip(ids, image, texts, targets, strict=True)
        progress(len(ids))


def _encode(
    model: LoadedModel,
    encoder: Callable[[Any], Any],
    batch: torch.Tensor,
    dtype: Dtype,
    what: str,
    names: Sequence[str],
) -> Vectors:
    """One batch through one tower: (n, d) float32, checked row by row."""
    where = f"{model.spec.label}, {what}s of {names[0]} … {names[-1]}"
    with foreign_code(where), torch.no_grad(), _precision(dtype, model.device):
        output = encoder(batch.to(model.device))
    if not isinstance(output, torch.Tensor) or output.ndim != 2 or len(output) != len(names) or not output.shape[1]:
        shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise ModelError(f"model '{model.spec.label}': encode_{what} gives {shape}, expected ({len(names)}, width)")
    vectors = output.float().cpu().numpy()
    try:
        check_rows(vectors, names, what)
    except DataError as error:
        raise DataError(f"model '{model.spec.label}': {error}") from error
    return np.asarray(vectors)


def _host_precision_turn(model: LoadedModel, dataset: Dataset) -> float:
    """How far the host's default precision would turn the image vectors: largest 1 - cosine on the first samples."""
    first = range(min(32, len(dataset.samples)))
    ids, images, _ = next(iter(batches(dataset, [first], model.preprocess, workers=0)))
    exact, mixed = (
        torch.from_numpy(_encode(model, model.encoder.encode_image, images, dtype, "image", ids)).double()
        for dtype in ("fp32", "host")
    )
    return float((1 - F.cosine_similarity(exact, mixed)).max())


def _precision(dtype: Dtype, device: str) -> AbstractContextManager[Any]:
    # the host's default is autocast, which on a CPU means bfloat16
    kind = torch.device(device).type
    return torch.autocast(kind, enabled=dtype == "host")


def _as_shard(encoded: Sequence[Encoded], kind: str) -> files.Shard:
    ids, images, texts, targets = zip(*encoded, strict=True)
    if len({len(image) for image in images}) > 1:
        raise ModelError(f"the image embeddings of {ids[0]} … {ids[-1]} differ in width from batch to batch")
    if kind == "classes":
        return files.Shard(ids, np.stack(images), labels=targets)
    return files.Shard(
        ids,
        np.stack(images),
        text=np.concatenate(texts),
        text_image=tuple(row for row, captions in enumerate(targets) for _ in captions),
        captions=tuple(caption for captions in targets for caption in captions),
    )


def _class_text(model: LoadedModel, dataset: Dataset, dtype: Dtype) -> Vectors | None:
    """(C, d_t), unit length: normalised prompts, their mean, normalised again, as the host builds it."""
    if dataset.class_names is None:
        return None
    rows = []
    for prompts in [class_prompts(name, dataset.templates) for name in dataset.class_names]:
        vectors = _encode(model, model.encoder.encode_text, model.tokenizer(prompts), dtype, "text", prompts)
        rows.append(F.normalize(F.normalize(torch.from_numpy(vectors), dim=-1).mean(dim=0), dim=0).numpy())
    return np.stack(rows)
