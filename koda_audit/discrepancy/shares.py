"""How much of a group's excess comes from the images, and how much from the texts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from koda_audit._kernels.blocks import Blocks
from koda_audit._kernels.rbf import MODALITIES


def modality_shares(
    blocks: Mapping[str, Mapping[str, Blocks]], rows: NDArray[np.int64], weights: NDArray[np.float64]
) -> dict[str, float]:
    """The excess of a group under the joint kernel as a sum of what images and texts add to it.

    The joint kernel is a product, so either factor can be taken from either model. With w the weights at length 1,
    P the model of the image kernel and Q that of the text kernel (T target, R reference)

        v(P, Q) = w'(K_x^P ∘ K_t^Q / n) w
        image_share = ((v(T, T) - v(R, T)) + (v(T, R) - v(R, R))) / 2
        text_share  = ((v(T, T) - v(T, R)) + (v(R, T) - v(R, R))) / 2
        interaction = v(T, T) - v(T, R) - v(R, T) + v(R, R)

    The two shares add up to the excess v(T, T) - v(R, R); each is the mean, over both orders, of what the excess gains
    when that factor is exchanged (the Shapley value of two players). ``interaction`` is how much more both factors do
    together than one by one; where it is 0, the order does not matter. KODA (ICML 2026, arXiv 2606.04180)
    gives no attribution; this one is ours.

    Args:
        blocks: "target" and "reference" -> "image" and "text" -> that modality's kernel alone, on the same n samples:
            ``kernel_blocks(kernel, {"image": vectors}, {"image": sigma})``.
        rows: (m,) samples of the group.
        weights: (m,) their weights, not all 0.

    Returns:
        ``image_share``, ``text_share``, ``interaction``, and the coherences w'(K_x/n)w and w'(K_t/n)w of each modality
        alone: ``image_coherence_target``, ``image_coherence_reference``, ``text_coherence_target``,
        ``text_coherence_reference``. All in the units of a coherence.

    >>> from koda_audit._kernels.table import kernel_blocks
    >>> def alone(vectors):
    ...     values = {name: torch.tensor(rows) for name, rows in vectors.items()}
    ...     return {name: kernel_blocks("rbf", {name: rows}, {name: 1.0}) for name, rows in values.items()}
    >>> same, apart = [[0.0], [0.0]], [[0.0], [9.0]]
    >>> target, reference = alone({"image": same, "text": same}), alone({"image": apart, "text": same})
    >>> shares = modality_shares({"target": target, "reference": reference}, np.arange(2), np.ones(2))
    >>> round(shares["image_share"], 6), round(shares["text_share"], 6), round(shares["interaction"], 6)
    (0.5, 0.0, 0.0)
    """
    w = torch.from_numpy(weights / np.linalg.norm(weights))
    chosen = torch.tensor(rows)
    parts = {
        (name, role): blocks[role][name].part(chosen)
        for name in MODALITIES["joint"]
        for role in ("target", "reference")
    }
    n = blocks["target"]["image"].n

    def coherence(gram: Tensor) -> float:
        return (w @ gram @ w).item()

    # a part is K/n, so the product of two has one n too many
    value = {
        (p, q): n * coherence(parts["image", p] * parts["text", q])
        for p in ("target", "reference")
        for q in ("target", "reference")
    }
    both, image = value["target", "target"], value["target", "reference"]
    text, neither = value["reference", "target"], value["reference", "reference"]
    return {
        "image_share": ((both - text) + (image - neither)) / 2,
        "text_share": ((both - image) + (text - neither)) / 2,
        "interaction": both - image - text + neither,
        **{f"{name}_coherence_{role}": coherence(part) for (name, role), part in parts.items()},
    }
