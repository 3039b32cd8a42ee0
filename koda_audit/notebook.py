"""The functions of a notebook: each takes ``Embeddings``, or arrays as its formula does."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from koda_audit._arrays import choose_device
from koda_audit._files import default_store
from koda_audit._gap import metrics, robustness
from koda_audit._similarity import measure
from koda_audit.data.load import check_dataset, load_dataset
from koda_audit.embeddings.container import Embeddings
from koda_audit.embeddings.extract import embed as extracted
from koda_audit.embeddings.store import Store
from koda_audit.errors import InputError
from koda_audit.models import ModelSpec, check_model, load_model
from koda_audit.tasks.gap_robustness_run import gallery_of
from koda_audit.tasks.gap_run import texts_of
from koda_audit.tasks.similarity_run import modalities


def embed(
    model: str,
    dataset: str,
    root: str | Path = "root",
    split: str = "test",
    *,
    device: str | None = None,
    batch_size: int = 64,
    num_workers: int = 4,
    language: str = "en",
    dtype: Literal["fp32", "host"] = "fp32",
    store: str | Path | None = None,
    allow_code: bool = False,
    quiet: bool = True,
) -> Embeddings:
    """The embeddings of a dataset under a model: from the store, or computed now and kept there.

    Args:
        model: ``NAME,PRETRAINED`` as open_clip has them, ``local-dir:FOLDER``, or ``py:FILE.py:FUNCTION,CHECKPOINT``.
        dataset: as in ``clip_benchmark eval``: ``cifar10``, ``wds/NAME``, ``folder/NAME``.
        root: its folder or address.
        device: "cpu", "cuda" or "cuda:1"; default: cuda where there is one.
        store: a folder; default: that of ``clip_benchmark eval`` and of suites.
        allow_code: whether code that comes with a model may run.
        quiet: no progress bar.

    Raises:
        InputError: a name, folder or option that is none.
        ModelError, DataError: what cannot be loaded.
    """
    spec, home = ModelSpec.parse(model, allow_code=allow_code), Store(Path(store or default_store()))
    check_model(spec)
    check_dataset(dataset, str(root), split)
    data = load_dataset(dataset, str(root), split, language=language, hash_file=home.file_sha256)
    loaded = load_model(spec, str(choose_device(device)), language=language)
    return extracted(loaded, data, home, batch_size=batch_size, workers=num_workers, dtype=dtype, quiet=quiet)


def modality_gap(image: Any, text: Any = None, **options: Any) -> Any:
    """How far apart images and texts of one model lie; options and keys are those of ``_gap.metrics.modality_gap``.

    Args:
        image: ``Embeddings``, whose texts are the first captions or the prompts of the classes; or (n, d), with
            ``text`` (m, d).

    >>> a = Embeddings(np.eye(3), np.eye(3)[[1, 2, 0]])
    >>> modality_gap(a)["pair_cosine"] == modality_gap(a.image, a.text)["pair_cosine"] == 0
    True
    """
    if isinstance(image, Embeddings):
        _none_besides(text, "text")
        text, _, options["paired"] = texts_of(image)
        image, text = np.asarray(image.image), np.asarray(text)
    return metrics.modality_gap(image, text, **options)


def similarity(x: Any, y: Any, *args: Any, modality: str = "image", **options: Any) -> pd.DataFrame:
    """How alike two models represent the same samples; options as in ``_similarity.measure.similarity``.

    Args:
        x, y: ``Embeddings``, whose rows are joined on their ids and brought to length 1; or (n, d_x) and (n, d_y), as
            they are.
        modality: of embeddings: "image", "text" or "joint", the image's row beside the text's.

    >>> a, b = (Embeddings(np.random.default_rng(0).normal(size=(20, 3)) * scale) for scale in (1, 5))
    >>> similarity(a, b, "cka_linear")["value"].round(6).tolist()
    [1.0]
    """
    if isinstance(x, Embeddings) and isinstance(y, Embeddings):
        sides = [modalities(each, choose_device(None)) for each in (x, y.aligned_to(x.ids))]
        if not all(modality in side for side in sides):
            known = [name for name in sides[0] if name in sides[1]]
            raise InputError(f"modality '{modality}' is none that both have: choose one of {', '.join(known)}")
        x, y = (side[modality] for side in sides)
    return measure.similarity(x, y, *args, **options)


def gap_robustness(gallery: Any, queries: Any = None, truth: Any = None, **options: Any) -> robustness.GapRobustness:
    """How often noise on texts changes the nearest one, as the gap is closed; see ``_gap.robustness.gap_robustness``.

    Args:
        gallery: ``Embeddings``: their images are the queries, the prompts of their classes or else their first captions
            the gallery; or (c, d), with ``queries`` (m, d).

    >>> a = Embeddings(np.eye(3) + 0.1, np.eye(3))
    >>> gap_robustness(a, total_var=0.0).frame["agreement"].tolist()
    [1.0, 1.0, 1.0]
    """
    if isinstance(gallery, Embeddings):
        _none_besides(queries, "queries")
        rows = gallery_of(gallery, np.arange(len(gallery)))
        options["classes"] = None if rows.truth is None else rows.classes
        gallery, queries, truth = np.asarray(rows.text), np.asarray(gallery.image), rows.truth
    return robustness.gap_robustness(gallery, queries, truth, **options)


def _none_besides(value: Any, name: str) -> None:
    if value is not None:
        raise InputError(f"{name} beside Embeddings, which hold both sides: leave it out, or give two arrays")
