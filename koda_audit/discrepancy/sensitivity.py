"""Does a lobe's excess hang on the bandwidth? The same samples and weights under narrower and wider kernels."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from koda_audit._arrays import Vectors
from koda_audit._kernels.bandwidth import TARGET, fit_bandwidth
from koda_audit._kernels.blocks import Blocks, kernel_blocks
from koda_audit.discrepancy.lobes import Lobe, coherence
from koda_audit.errors import InputError

# what the leading eigenvalue of K/n is set to, as a multiple of the rule's own target
OTHER_TARGETS = {"excess_narrower": 0.5, "excess_wider": 2.0}


def excess_at_other_widths(
    vectors: Mapping[str, Mapping[str, Vectors]], lobes: list[Lobe], seed: int
) -> dict[str, list[float]]:
    """Excess of each lobe where the leading eigenvalues are half and twice the target (ours).

    The direction is not solved again: only the kernels change.

    Args:
        vectors: "target" and "reference" -> modality -> (n, d).
        lobes: of any directions.
        seed: as in the bandwidth rule.

    Returns:
        ``excess_narrower`` and ``excess_wider``, a value a lobe; nan where that eigenvalue cannot be reached.

    >>> import numpy as np
    >>> vectors = {role: {"image": torch.arange(40.0)[:, None] % 20} for role in ("target", "reference")}
    >>> lobe = Lobe(0, "positive", np.array([0, 1]), np.array([0.6, 0.4]))
    >>> excess_at_other_widths(vectors, [lobe], seed=0)
    {'excess_narrower': [0.0], 'excess_wider': [0.0]}
    """
    found = {}
    for key, factor in OTHER_TARGETS.items():
        try:
            target, reference = (
                kernel_blocks("rbf", vectors[role], fit_bandwidth(vectors[role], factor * TARGET, seed).sigmas)
                for role in ("target", "reference")
            )
        except InputError:  # too few samples, or too many equal ones, for so narrow a kernel
            found[key] = [math.nan] * len(lobes)
            continue
        # one part at a time: those of all lobes together would take more memory than anything else
        found[key] = [_coherence(target, lobe) - _coherence(reference, lobe) for lobe in lobes]
    return found


def _coherence(blocks: Blocks, lobe: Lobe) -> float:
    return coherence(blocks.part(torch.from_numpy(lobe.rows)), lobe.weights)
