"""Random Fourier features of the Gaussian kernel of one or both modalities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from koda_audit._features.maps import check_count, check_inputs, check_vectors, generator
from koda_audit.errors import InputError


@dataclass(frozen=True, eq=False)
class FourierFeatures:
    """Rows [cos | sin] / sqrt(r) of r random phases; ``frequencies`` are modality -> (d, r), divided by the widths.

        omega ~ N(0, I),    phase_l = omega_x,l' u / sigma_x + omega_t,l' v / sigma_t
        <phi, phi'> = (1/r) sum_l cos(phase_l - phase'_l),    on average exp(-|z - z'|^2 / 2)

    KODA (ICML 2026, arXiv 2606.04180, eq 22) adds the phases of both modalities; that is the ordinary map of Rahimi and
    Recht (2007) on z = [u/sigma_x ; v/sigma_t]. Rows have length 1, so the diagonal of the kernel is exact. Off it the
    variance is (1 - k^2)^2/2r: a root mean square error of at most 1/sqrt(2r), .013 with 3,000 frequencies.
    """

    frequencies: Mapping[str, Tensor]

    @classmethod
    def draw(
        cls,
        input_widths: Mapping[str, int],
        sigmas: Mapping[str, float],
        count: int,
        seed: int,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> FourierFeatures:
        """The map of ``count`` frequencies (r); the width is twice that.

        Args:
            input_widths: modality -> columns of its vectors.
            sigmas: modality -> width of the kernel, positive, in the units of the vectors.
            count: from 1.
            seed: not negative. Two models with vectors of equal width need two seeds, or their errors agree.
            dtype: float32 or float64, of the phases too: float32 costs |phase| 6e-8 of each.
            device: where the map lies and its features come out.

        Raises:
            InputError: a value out of range, sigmas for other modalities.

        >>> map = FourierFeatures.draw({"image": 2}, {"image": 1.0}, count=2000, seed=0)
        >>> rows = map({"image": torch.tensor([[0.0, 0.0], [1.0, 0.0]])})
        >>> rows.shape, round((rows[0] @ rows[1]).item(), 1), round(math.exp(-1 / 2), 1)
        (torch.Size([2, 4000]), 0.6, 0.6)
        """
        check_inputs(input_widths, dtype)
        check_count("count", count)
        check_count("seed", seed, least=0)
        if set(sigmas) != set(input_widths):
            raise InputError(f"sigmas are given for {sorted(sigmas)}: expected {sorted(input_widths)}")
        for name, sigma in sigmas.items():
            if not 0 < sigma < math.inf:
                raise InputError(f"sigma of the {name} kernel is {sigma!r}: expected a positive number")
        drawn = {
            name: torch.from_numpy(generator(seed, name).standard_normal((count, columns)) / sigmas[name]).T
            for name, columns in input_widths.items()
        }
        return cls({name: values.to(device=device, dtype=dtype) for name, values in drawn.items()})

    @property
    def width(self) -> int:
        """2r."""
        return 2 * next(iter(self.frequencies.values())).shape[1]

    def __call__(self, vectors: Mapping[str, Tensor]) -> Tensor:
        """Features (n, 2r) of modality -> (n, d) vectors.

        Raises:
            InputError: vectors of other modalities or columns, numbers of rows that differ.
        """
        check_vectors(vectors, {name: len(values) for name, values in self.frequencies.items()})
        r = self.width // 2
        (first, frequencies), *others = self.frequencies.items()
        features = frequencies.new_empty(len(vectors[first]), self.width)
        # phases are made where the sines will be: blocks of their own, a little below the size that goes back to the
        # system when it is freed, would pile up over the chunks of a stream
        phases = features[:, r:]
        torch.mm(vectors[first].to(frequencies), frequencies, out=phases)
        for name, values in others:
            phases.addmm_(vectors[name].to(values), values)
        torch.cos(phases, out=features[:, :r])
        phases.sin_()
        return features.div_(math.sqrt(r))
