"""What ``find_discrepancies`` returns, and its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from koda_audit._arrays import Vectors
from koda_audit._files import atomic_write, write_csv, write_json


@dataclass(frozen=True)
class Discrepancies:
    """Directions that the target holds and the reference does not, with the samples at their ends.

    Coherences are x'(K/n)x with exact kernels: 1/n for a direction at random, at most the leading eigenvalue.

    Attributes:
        frame: a row per direction and lobe. ``direction`` counts from 1 and ``lobe`` is "positive" or "negative";
            ``n`` samples; ``coherence_target`` and ``coherence_reference`` of the whole direction under the exact
            kernels (``coherence_target_error`` and ``coherence_reference_error``: their standard errors, 0 up to 32,768
            samples, where every pair counts), ``used_target`` and ``used_reference`` under those it was found with (the
            same on the dense path); ``lobe_coherence_target`` and ``lobe_coherence_reference`` of the lobe's part of
            it, scaled to unit length;
            ``excess``, the difference of these two, ``loss``, the excess in parts of the first, and ``excess_narrower``
            and ``excess_wider``, the excess under kernels whose leading eigenvalue is half and twice the rule's;
            ``similarity_target`` and ``similarity_reference``, the mean kernel value over pairs of the lobe's samples
            (0 to 1); for the joint kernel the shares of ``shares.modality_shares``; ``stability``, ``floor``, ``own``,
            ``verdict`` and ``finding``, see ``findings.verdicts``; ``multiplier``, ``duality_gap`` and ``epsilon`` of
            the direction (``epsilon`` nan where a multiplier was given; these and ``used_`` nan where directions were
            turned afterwards, since then no certificate holds).
        directions: (n, T) orthonormal columns over the samples, in the order of the target's ids.
        subsets: a row per sample of a lobe: ``direction``, ``lobe``, ``id``, ``weight`` = |x_i|, ``rank`` from 1,
            ``own`` (a sample may lie in several lobes, and is one's own, see ``findings.owned``), ``finding`` of the
            lobe.
        bandwidths: model ("target", "reference") -> what the bandwidth rule chose and reached; empty for a kernel
            without one.
        spectrum: a row per eigenvalue, a column per model: the largest eigenvalues of K/n, at most 20.
        epsilon: what the coherence in the reference was held to, or None where a multiplier was given.
        settings: all that the numbers depend on besides the embeddings, in plain JSON types.
        vectors: "target" and "reference" -> modality -> (n, d), in the order of the target's ids.
        sigmas: the same of the kernels' widths; empty for a kernel without one.
    """

    frame: pd.DataFrame
    directions: NDArray[np.float64]
    subsets: pd.DataFrame
    bandwidths: dict[str, dict[str, Any]]
    spectrum: pd.DataFrame
    epsilon: float | None
    settings: dict[str, Any]
    vectors: Mapping[str, Mapping[str, Vectors]]
    sigmas: Mapping[str, Mapping[str, float]]

    def save(self, folder: str | Path) -> None:
        """Write directions.npy, frame.csv, subsets.csv and settings.json (with bandwidths and spectrum) to ``folder``.

        Each file replaces an older one at once, or not at all.

        Raises:
            StoreError: the folder cannot be written.
        """
        folder = Path(folder)
        with atomic_write(folder / "directions.npy") as stream:
            np.save(stream, self.directions)
        write_csv(folder / "frame.csv", self.frame)
        write_csv(folder / "subsets.csv", self.subsets)
        spectrum = {model: self.spectrum[model].tolist() for model in self.spectrum}
        write_json(folder / "settings.json", {**self.settings, "bandwidths": self.bandwidths, "spectrum": spectrum})
