"""Alignments made of the two means alone."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from koda_audit.alignment.choices import Far, one_width, vector
from koda_audit.alignment.maps import NO_LENGTH, UNIT, Fitted, Step
from koda_audit.errors import InputError


def identity(image: Tensor, text: Tensor) -> Fitted:
    """All rows as they are: what every other alignment is compared with.

    >>> identity(torch.eye(2), torch.eye(2)).first
    ()
    """
    return Fitted((), ())


def center(image: Tensor, text: Tensor) -> Fitted:
    """x - mean x and y - mean y, without renormalisation: the centroid gap of these very rows is then 0.

    >>> center(torch.eye(2), torch.eye(2)).first[0].centre.tolist()
    [0.5, 0.5]
    """
    return _centred(image, text, renormalise=False)


def center_renorm(image: Tensor, text: Tensor) -> Fitted:
    """Norm(x - mean x) and Norm(y - mean y).

    I0T_post of An et al. (ACL 2025) and GR-CLIP of Li et al. (arXiv 2507.19054). Renormalised rows have a mean of their
    own again, so the centroid gap is small and not 0.

    >>> center_renorm(torch.eye(2), torch.eye(2)).first[0].renormalise
    True
    """
    return _centred(image, text, renormalise=True)


def mg_shift(image: Tensor, text: Tensor, lam: Far = 0.5, unit: Literal["raw", "unit"] = "raw") -> Fitted:
    """Norm(x - lam g) and Norm(y + lam g), g = mean x - mean y (Liang et al., NeurIPS 2022, section 5).

    Args:
        image, text: (n, d) and (m, d) unit rows.
        lam: how far each side goes, -1e6 to 1e6; 0.5 of the raw gap is the middle, a negative one opens the gap.
        unit: "raw" takes g as it is, "unit" at length 1. An et al. (ACL 2025) use the latter under the same symbol.

    >>> shift = mg_shift(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), lam=0.25)
    >>> shift.first[0].offset.tolist(), shift.second[0].offset.tolist()
    ([-0.25, 0.25], [0.25, -0.25])
    """
    one_width(image, text)
    gap = image.mean(dim=0) - text.mean(dim=0)
    shift = lam * (gap if unit == "raw" else _direction(gap))
    return Fitted((Step(offset=-shift, renormalise=True),), (Step(offset=shift, renormalise=True),))


def project_out(image: Tensor, text: Tensor, g: Any = None) -> Fitted:
    """Norm(z - u u'z) on both sides, u = g/|g|: no row says anything along g any more.

    Args:
        image, text: (n, d) and (m, d) unit rows.
        g: (d,) direction to remove; default mean x - mean y.

    >>> x, y = torch.tensor([[0.6, 0.8]]), torch.tensor([[0.6, -0.8]])
    >>> project_out(x, y).first[0](x).tolist()
    [[1.0, 0.0]]
    """
    width = one_width(image, text)
    u = _direction(image.mean(dim=0) - text.mean(dim=0) if g is None else vector(g, "g", width))
    step = Step(matrix=torch.eye(width, dtype=u.dtype) - torch.outer(u, u), renormalise=True)
    return Fitted((step,), (step,))


def realign(image: Tensor, text: Tensor) -> Fitted:
    """Texts into the frame of the images: t' = Norm((t - mt) s + mi), s^2 = total variance of images over that of
    texts, then Norm(t' - mean t' + mi) (ReAlign, arXiv 2602.07026). Needs no pairs.

    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    >>> realign(x, x).figures
    {'scale': 1.0}
    """
    one_width(image, text)
    mi, mt = image.mean(dim=0), text.mean(dim=0)
    spread = ((text - mt) ** 2).sum(dim=1).mean()
    if spread.sqrt() <= NO_LENGTH:
        raise InputError("all texts have one direction, so they have no spread that could be scaled: fit on others")
    scale = (((image - mi) ** 2).sum(dim=1).mean() / spread).sqrt()
    first = Step(mt, scale * torch.eye(len(mt), dtype=mt.dtype), mi, renormalise=True)
    again = Step(offset=mi - first(text).mean(dim=0), renormalise=True)
    return Fitted(UNIT, (first, again), "first", {"scale": scale.item()})


def _centred(image: Tensor, text: Tensor, renormalise: bool) -> Fitted:
    first, second = (Step(centre=side.mean(dim=0), renormalise=renormalise) for side in (image, text))
    return Fitted((first,), (second,))


def _direction(gap: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(gap)
    if length <= NO_LENGTH:
        raise InputError("the gap is 0, so it has no direction: there is nothing to close")
    unit: Tensor = gap / length
    return unit
