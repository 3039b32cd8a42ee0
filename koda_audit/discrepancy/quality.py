"""What the two models can still do on a group, and what they answer there: pairs, retrieval, zero-shot classes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats

from koda_audit._arrays import OnDevice, Vectors
from koda_audit._kernels.directions import directions
from koda_audit.discrepancy.themes import nearest_classes
from koda_audit.embeddings.container import Embeddings
from koda_audit.errors import InputError
from koda_audit.evaluation.ranks import BLOCK, expected_hits, ranks

AT = (1, 5, 10)  # as in KODA, table 1
QUERIES = 4096  # of the whole set
LEVEL = 0.95

COLUMNS = ("group", "model", "measure", "value", "low", "high", "n")


def group_quality(
    target: Embeddings,
    reference: Embeddings,
    members: pd.DataFrame,
    seed: int = 0,
    device: torch.device | None = None,
) -> pd.DataFrame:
    """What each model does on each group, and on the whole set, beside one another.

    ``pair_cosine`` is the mean cosine of an image and its text: its first caption, or the prompt of its class. With
    captions, ``image_to_text_recall@k`` and ``text_to_image_recall@k`` (k = 1, 5, 10) take the group's pairs as queries
    and all pairs as the gallery; a caption of another image counts as wrong even where it says the same. With classes
    and one label an image, ``zeroshot_accuracy`` is the share of images whose nearest class prompt is that of their
    label. Where g candidates lie nearer than the true one and t as near, itself among them, a query counts
    clip((k - g) / t, 0, 1): what a random order of equals would give. Queries from a slice against the full gallery are
    KODA's protocol (ICML 2026, arXiv 2606.04180, table 1) as far as its numbers tell; the rule for ties is ours.

    The intervals cover 95 %: Student's t for the cosine, Wilson's score for the others, whose low end takes the
    expected hits rounded down and whose high end takes them rounded up, so that ties make it a little wider. They tell
    what the number of samples leaves open; that a group was chosen by its place in the two models is not in them.

    Args:
        target: one model.
        reference: the other, with the same ids in the same order.
        members: a row per sample of a group: ``group``, ``row``.
        seed: of the queries that stand for the whole set where it has more than 4,096 samples.
        device: where cosines are computed; default the CPU.

    Returns:
        A row per group, model and measure: ``group`` (None for the whole set), ``model`` ("target" or "reference"),
        ``measure``, ``value``, ``low``, ``high`` (nan for the cosine of a single pair), and ``n`` queries. A measure
        that is not defined has no row: all of them where images and texts of a model differ in width, recall without
        captions for every image, zero-shot accuracy without single labels.

    Raises:
        InputError: sample ids that differ, or stand in another order.

    >>> model = Embeddings(np.eye(3), np.eye(3)[[0, 2, 1]])
    >>> groups = pd.DataFrame({"group": 1, "row": [0, 1]})
    >>> found = group_quality(model, model, groups)
    >>> found[(found.model == "target") & (found.measure == "image_to_text_recall@1")].value.round(3).tolist()
    [0.5, 0.333]
    """
    if target.ids != reference.ids:
        raise InputError(
            "the two models' samples differ or stand in another order: use reference.aligned_to(target.ids)"
        )
    n = len(target)
    groups: list[tuple[Any, NDArray[np.int64]]] = [
        (group, part["row"].to_numpy()) for group, part in members.groupby("group", sort=False)
    ]
    drawn = np.random.default_rng(seed).choice(n, min(n, QUERIES), replace=False)
    groups.append((None, drawn))
    rows = np.unique(np.concatenate([part for _, part in groups]))
    records = []
    for role, model in (("target", target), ("reference", reference)):
        measured = dict(_measured(model, rows, device or torch.device("cpu")))
        for group, part in groups:
            places = np.searchsorted(rows, part)
            for measure, values in measured.items():
                interval = _mean_interval if measure == "pair_cosine" else _share_interval
                records.append((group, role, measure, *interval(values[places]), len(part)))
    # of type object throughout, else the None of the whole set would become nan and the groups floats
    frame = pd.DataFrame(records, columns=list(COLUMNS), dtype=object)
    return frame.astype({"value": float, "low": float, "high": float, "n": int})


def answers(model: Embeddings, rows: NDArray[np.int64], most: int = 3) -> str | None:
    """The classes whose prompts lie nearest to these images, the most frequent first; None without classes.

    >>> model = Embeddings(np.eye(2)[[0, 0, 1]], class_text=np.eye(2), class_names=["cat", "dog"])
    >>> answers(model, np.arange(3))
    'cat 67%, dog 33%'
    """
    if model.class_text is None or model.class_text.shape[1] != model.image.shape[1]:
        return None
    names = model.class_names or tuple(map(str, range(len(model.class_text))))
    found = nearest_classes(model.image[rows], model.class_text)
    counts = np.bincount(found, minlength=len(names))
    best = np.argsort(-counts, kind="stable")[:most]
    return ", ".join(f"{names[c]} {counts[c] / len(rows):.0%}" for c in best if counts[c])


def _measured(
    model: Embeddings, rows: NDArray[np.int64], device: torch.device
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Each measure that the model has, with its value of each query (m,)."""
    image = OnDevice(model.image, device)
    queries = torch.from_numpy(rows)
    images = directions(image[queries], "image")
    text = _texts(model, image)
    if text is not None:
        matched = OnDevice(text, device)
        texts = directions(matched[queries], "text")
        own = (images * texts).sum(dim=1)
        yield "pair_cosine", own.cpu().numpy()
        if model.text is not None:
            for way, asked, gallery in (("image_to_text", images, matched), ("text_to_image", texts, image)):
                nearer, tied = ranks(asked, own, gallery, BLOCK)
                for k in AT:
                    yield f"{way}_recall@{k}", expected_hits(nearer, tied, k)
    single = model.labels is not None and model.labels.ndim == 1
    if single and model.class_text is not None and model.class_text.shape[1] == image.shape[1]:
        assert model.labels is not None
        classes = OnDevice(model.class_text, device)
        sought = directions(classes[torch.from_numpy(model.labels[rows])], "class prompt")
        own = (images * sought).sum(dim=1)
        yield "zeroshot_accuracy", expected_hits(*ranks(images, own, classes, BLOCK), 1)


def _texts(model: Embeddings, image: Vectors) -> Any:
    """(n, d) the text of each image where every one has a single text, as wide as the image; else None."""
    if model.text is None and (model.labels is None or model.labels.ndim == 2):
        return None
    if model.text_image is not None and len(np.unique(model.text_image)) < len(model):
        return None
    text = model.pairs().text
    return text if text is not None and text.shape[1] == image.shape[1] else None


def _mean_interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean of cosines, and Student's interval, cut to what a cosine can be."""
    mean, n = float(values.mean()), len(values)
    if n < 2:
        return mean, math.nan, math.nan
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * values.std(ddof=1) / math.sqrt(n))
    return mean, max(mean - half, -1.0), min(mean + half, 1.0)


def _share_interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean of expected hits, and Wilson's interval, from the whole hits below to the whole hits above."""
    hits, n = round(float(values.sum()), 9), len(values)  # a third and two thirds are one hit
    return hits / n, _wilson(math.floor(hits), n)[0], _wilson(math.ceil(hits), n)[1]


@lru_cache(4096)  # the test beside the interval takes most of its time, and few counts differ
def _wilson(hits: int, n: int) -> tuple[float, float]:
    interval = stats.binomtest(hits, n).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)
