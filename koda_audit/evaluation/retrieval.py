"""Retrieval of images by text and of texts by image, with any number of captions an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from koda_audit._options import several, whole_number
from koda_audit.embeddings.checks import whole_numbers
from koda_audit.errors import InputError
from koda_audit.evaluation.inputs import unit_rows
from koda_audit.evaluation.ranks import BLOCK, TIED, expected_hits, mutual_ranks
from koda_audit.evaluation.scores import Outcomes, Scores, per_image

AT = (1, 5, 10)


def zeroshot_retrieval(image: Any, text: Any, text_image: ArrayLike | None = None, at: Sequence[int] = AT) -> Scores:
    """The numbers of clip_benchmark 1.6 (``metrics/zeroshot_retrieval.py``), in float64 and block by block.

    ``image_retrieval_recall@k`` is the share of texts whose image is among the k images nearest to them;
    ``text_retrieval_recall@k`` the share of images with at least one of their texts among the k nearest texts. An image
    without a text counts as a miss, as there. Where candidates are equally near, a query counts the chance of a hit in
    a random order of them; clip_benchmark takes the order of its sort.

    Args:
        image: (n, d), any positive length.
        text: (m, d)
        text_image: (m,) the image row of each text; default one text an image, in order.
        at: the k; beyond the size of the gallery every query with a right answer is a hit.

    Returns:
        Outcomes, one a text of ``image_retrieval_recall@k``, one an image of ``text_retrieval_recall@k``.

    Raises:
        InputError: vectors of different widths, a zero row, ``text_image`` that does not fit, no k, one that
            is no whole number of 1 or more.

    >>> found = zeroshot_retrieval(np.eye(2), [[1, 0], [0, 1], [2, 1]], text_image=[0, 1, 1], at=[1])
    >>> {name: round(value, 3) for name, value in found.values.items()}
    {'image_retrieval_recall@1': 0.667, 'text_retrieval_recall@1': 1.0}
    """
    at = [whole_number(k, "k", least=1, most=None) for k in several(at, "at")]
    if not at:
        raise InputError("at is empty: recall needs at least one k")
    images, texts = unit_rows(image=image, text=text)
    n, m = len(images), len(texts)
    rows = np.arange(m) if text_image is None else whole_numbers(text_image, "text_image")
    if rows.shape != (m,) or (text_image is None and m != n):
        raise InputError(f"{m} texts for {n} images: say with text_image which image each text belongs to")
    if rows.min() < 0 or rows.max() >= n:
        raise InputError(f"text_image must lie in 0..{n - 1}, found {rows.min()}..{rows.max()}")
    owner = torch.from_numpy(rows).to(images.device)
    own = texts.new_empty(m)
    for part, some, their in zip(*(torch.split(each, BLOCK) for each in (own, texts, owner)), strict=True):
        part.copy_((some * images[their]).sum(dim=1))
    best = own.new_full((n,), -torch.inf).scatter_reduce(0, owner, own, "amax")
    right = torch.zeros_like(best).index_add(0, owner, (own >= best[owner] - TIED).to(own))
    by_text, by_image = mutual_ranks(texts, own, images, best)
    outcomes = {}
    for k in at:
        outcomes[f"image_retrieval_recall@{k}"] = Outcomes(expected_hits(*by_text, k), rows)
        outcomes[f"text_retrieval_recall@{k}"] = per_image(expected_hits(*by_image, k, right))
    return Scores.of(outcomes)
