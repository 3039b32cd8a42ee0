"""Both sides in the plane that shows the gap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from koda_audit._gap.sides import sides


@dataclass(frozen=True, eq=False)
class GapPlane:
    """Rows of length 1 in two coordinates, from the middle of the two centroids: along the gap, and across it.

    Attributes:
        image: (n, 2).
        text: (m, 2).
        share: of the variance of all rows around their centroids, what either coordinate holds: (2,).
    """

    image: NDArray[np.float64]
    text: NDArray[np.float64]
    share: NDArray[np.float64]


def gap_plane(image: Any, text: Any) -> GapPlane | None:
    """Rows of length 1 along the unit gap and along the first principal direction orthogonal to it (ours).

    The principal direction is that of all rows, each less the centroid of its side; its sign is that of its entry of
    the largest size. The means of the first coordinate lie ``centroid_gap`` apart, those of the second are equal.

    Args:
        image: (n, d).
        text: (m, d).

    Returns:
        None where the gap has no direction: rows of unlike width, centroids that are equal.

    Raises:
        InputError: as ``modality_gap``.

    >>> plane = gap_plane([[1.0, 1.0], [1.0, -1.0]], [[-1.0, 1.0], [-1.0, -1.0]])
    >>> plane.image.round(3).tolist(), plane.share.tolist()
    ([[0.707, 0.707], [0.707, -0.707]], [0.0, 1.0])
    """
    rows = sides(image, text)
    if not rows.comparable:
        return None
    centres = rows.image.mean(dim=0), rows.text.mean(dim=0)
    gap = centres[0] - centres[1]
    length = torch.linalg.vector_norm(gap)
    if length <= torch.finfo(gap.dtype).eps:
        return None
    along = gap / length
    centred = torch.cat([rows.image - centres[0], rows.text - centres[1]])
    scatter = centred.T @ centred
    across = torch.eye(len(gap), dtype=gap.dtype, device=gap.device) - torch.outer(along, along)
    principal = torch.linalg.eigh(across @ scatter @ across).eigenvectors[:, -1]
    principal = principal * principal[principal.abs().argmax()].sign()
    plane = torch.stack([along, principal], dim=1)
    middle = (centres[0] + centres[1]) / 2
    image_places, text_places = (((values - middle) @ plane).cpu().numpy() for values in (rows.image, rows.text))
    share = (plane * (scatter @ plane)).sum(dim=0) / scatter.trace()
    return GapPlane(image_places, text_places, share.cpu().numpy())
