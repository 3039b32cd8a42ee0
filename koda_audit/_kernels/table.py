"""All kernels under their names: a record each, beside the file of its formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from koda_audit._arrays import Vectors, chosen
from koda_audit._features.fourier import FourierFeatures
from koda_audit._features.maps import FeatureMap
from koda_audit._features.projection import ProjectedFeatures
from koda_audit._kernels.blocks import Blocks, Points
from koda_audit._kernels.directions import common_rows
from koda_audit._kernels.polynomial import DEGREE, OFFSET, polynomial, polynomial_points
from koda_audit._kernels.rbf import gaussian, scaled_points
from koda_audit.errors import InputError

CENTRE = 4096  # rows, evenly spaced, whose median is the origin


class DrawRandom(Protocol):
    """``sigmas`` (modality -> width) are empty for a kernel without a bandwidth; ``count`` is the map's r or l."""

    def __call__(
        self,
        input_widths: Mapping[str, int],
        sigmas: Mapping[str, float],
        count: int,
        seed: int,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> FeatureMap: ...


@dataclass(frozen=True)
class Kernel:
    """A positive semidefinite kernel with k(x, x) = 1.

    Attributes:
        points: modality -> (n, d) vectors and modality -> width -> what ``between`` needs of these samples; pictures
            and clusters take the columns of all of it as coordinates.
        between: points of a and of b samples -> (a, b), the kernel.
        features: draws its random features.
        columns: of the features of one model, in parts of their count.
        has_bandwidth: whether widths are needed; where not, they must be empty. Such a kernel depends on differences
            of points alone, so points are centred, since an offset would cost digits.
    """

    points: Callable[[Mapping[str, Tensor], Mapping[str, float]], Points]
    between: Callable[[Points, Points], Tensor]
    features: DrawRandom
    columns: int
    has_bandwidth: bool


def _powers(name: str, degree: int, offset: float) -> Kernel:
    def draw(
        input_widths: Mapping[str, int],
        sigmas: Mapping[str, float],
        count: int,
        seed: int,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> FeatureMap:
        check_widths(name, sigmas)
        return ProjectedFeatures.draw(input_widths, count, seed, dtype, device, degree, offset)

    return Kernel(
        lambda vectors, sigmas: polynomial_points(vectors, offset), partial(polynomial, degree=degree), draw, 1, False
    )


KERNELS: Mapping[str, Kernel] = MappingProxyType(
    {
        "rbf": Kernel(
            lambda vectors, sigmas: (scaled_points(vectors, sigmas),),
            lambda p, q: gaussian(p[0], q[0]),
            FourierFeatures.draw,
            2,
            True,
        ),
        "cosine": _powers("cosine", 1, 0.0),
        "polynomial": _powers("polynomial", DEGREE, OFFSET),
    }
)


def check_widths(kernel: str, sigmas: Mapping[str, float]) -> None:
    """Raises InputError where widths are given to a kernel that would not use them.

    >>> check_widths("cosine", {})
    """
    if sigmas and not KERNELS[kernel].has_bandwidth:
        raise InputError(f"the {kernel} kernel has no bandwidth: give no sigmas, got {dict(sigmas)}")


def kernel_blocks(kernel: str, vectors: Mapping[str, Vectors], sigmas: Mapping[str, float]) -> Blocks:
    """The blocks of a kernel of ``KERNELS`` on modality -> (n, d) vectors.

    Raises:
        InputError: numbers of rows that differ, widths that would not be used; at use, what the kernel's points raise.

    >>> blocks = kernel_blocks("rbf", {"image": torch.tensor([[0.0], [2.0]])}, {"image": 1.0})
    >>> blocks.part(torch.arange(2)).round(decimals=6).tolist()
    [[0.5, 0.067668], [0.067668, 0.5]]
    """
    check_widths(kernel, sigmas)
    n, record = common_rows(vectors), KERNELS[kernel]
    if not record.has_bandwidth:
        return Blocks(vectors, lambda part: record.points(part, sigmas), record.between)
    evenly = torch.arange(0, n, -(-n // CENTRE))
    # the median, unlike the mean, is not moved by an outlier
    centres = [points.median(dim=0).values for points in record.points(chosen(vectors, evenly), sigmas)]

    def centred(part: Mapping[str, Tensor]) -> Points:
        return tuple(points - centre for points, centre in zip(record.points(part, sigmas), centres, strict=True))

    return Blocks(vectors, centred, record.between)
