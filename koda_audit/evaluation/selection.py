"""Image-caption selection: the right caption for each image and the right image for each caption of an instance."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from koda_audit._options import whole_number
from koda_audit.errors import InputError
from koda_audit.evaluation.inputs import unit_rows
from koda_audit.evaluation.ranks import TIED, expected_hits
from koda_audit.evaluation.scores import Outcomes, Scores


def image_caption_selection(image: Any, text: Any, instances: int) -> Scores:
    """The numbers of clip_benchmark 1.6 (``metrics/image_caption_selection.py``), in float64.

    Image j of an instance belongs to its caption j, and further images or captions are wrong ones. ``text_acc`` is the
    share of instances in which every image lies nearest to its caption, ``image_acc`` that in which every caption lies
    nearest to its image, ``acc`` that in which both hold: the text, image and group score of Winoground (Thrush et al.,
    CVPR 2022). SugarCrepe has one image and two captions an instance, so ``image_acc`` is 1 there. Of t equally near
    candidates each is taken with chance 1/t, independently; clip_benchmark takes the first, which is often the right
    one: a model that gives all captions one vector gets ``text_acc`` 1 there, and 1/2 here.

    Args:
        image: (instances * I, d) the images of an instance one after the other, any positive length.
        text: (instances * C, d) its captions likewise.
        instances: how many.

    Returns:
        Outcomes, one an instance, whose ``image`` is the row of its first image.

    Raises:
        InputError: vectors of different widths, a zero row, rows that are no multiple of ``instances``.

    >>> image_caption_selection(np.eye(2), [[3, 1], [2, 1]], instances=1).values
    {'image_acc': 0.0, 'text_acc': 1.0, 'acc': 0.0}
    """
    images, texts = unit_rows(image=image, text=text)
    whole_number(instances, "instances", most=None)
    if instances < 1 or len(images) % instances or len(texts) % instances:
        raise InputError(
            f"{len(images)} images and {len(texts)} captions of {instances} instances: every instance needs as many"
        )
    cosines = images.view(instances, -1, images.shape[1]) @ texts.view(instances, -1, texts.shape[1]).mT
    by_image, by_text = _all_right(cosines), _all_right(cosines.mT)
    first = np.arange(instances) * cosines.shape[1]
    hits = {"image_acc": by_text, "text_acc": by_image, "acc": by_image * by_text}
    return Scores.of({name: Outcomes(values, first) for name, values in hits.items()})


def _all_right(cosines: Tensor) -> NDArray[np.float64]:
    """(instances,) chance that each of the first queries (dim 1) takes the candidate (dim 2) of its own place."""
    own = cosines.diagonal(dim1=1, dim2=2)
    ahead = cosines[:, : own.shape[1]] - own[:, :, None]
    nearer, tied = (ahead > TIED).sum(dim=2).double(), (ahead.abs() <= TIED).sum(dim=2).double()
    every: NDArray[np.float64] = expected_hits(nearer, tied, 1).prod(axis=1)
    return every
