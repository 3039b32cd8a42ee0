"""The feature maps of each kernel under its name, drawn alike."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

import torch

from koda_audit._features.fourier import FourierFeatures
from koda_audit._features.maps import FeatureMap
from koda_audit._features.projection import ProjectedFeatures
from koda_audit._kernels.table import POWERS, no_bandwidth


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


def _projected(kernel: str) -> DrawRandom:
    degree, offset = POWERS[kernel]

    def draw(
        input_widths: Mapping[str, int],
        sigmas: Mapping[str, float],
        count: int,
        seed: int,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> FeatureMap:
        no_bandwidth(kernel, sigmas)
        return ProjectedFeatures.draw(input_widths, count, seed, dtype, device, degree, offset)

    return draw


RANDOM_FEATURES: Mapping[str, DrawRandom] = MappingProxyType(
    {"rbf": FourierFeatures.draw, **{kernel: _projected(kernel) for kernel in POWERS}}
)
