"""What sums over pairs of rows tell: energy distance, MMD, uniformity, nearest neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PairSums:
    """Sums over pairs of groups of rows, from which the metrics of all groups, or of all but one, follow.

    Pairs are "image" and "text": two different rows of a side, in both orders; "cross": an image and a text; "matched":
    the two rows of a pair, where there are pairs; "centred": "cross" with each side centred.

    Attributes:
        rows: (2, G) images and texts in each group.
        distance: "image", "text", "cross", "centred" -> (G, G) sums of |z - z'|.
        kernel: "image", "text", "centred" -> (G, G) sums of exp(-gamma |z - z'|^2).
        potential: "image", "text", "cross", "matched" -> (G, G) logs of sums of exp(-2 |z - z'|^2); "cross" is without
            "matched".
        same: (2, G) images whose nearest other row is an image, and texts whose nearest is a text; a tie of both
            modalities counts one half.
        moved: "distance", "kernel" -> (G,) what the means over "centred" gain, to first order, as the centroids move
            where a group is left out.
        paired: whether there are "matched" pairs.
    """

    rows: Tensor
    distance: dict[str, Tensor]
    kernel: dict[str, Tensor]
    potential: dict[str, Tensor]
    same: Tensor
    moved: dict[str, Tensor]
    paired: bool

    def metrics(self, without: int = -1) -> dict[str, float]:
        """Of all groups, or ``without`` one: then with the bandwidth and the neighbours of all.

        Energy is 2 E|x - y| - E|x - x'| - E|y - y'| with each row also paired with itself (V-statistic, never below 0);
        MMD^2 leaves these pairs out (U-statistic: 0 on average for samples of one distribution, so it may be negative).
        """
        keep = torch.arange(self.rows.shape[1], device=self.rows.device) != without
        rows = self.rows[:, keep].sum(dim=1)
        n, m = (float(count) for count in rows)
        distance, kernel = (
            {name: float(table[keep][:, keep].sum()) for name, table in tables.items()}
            for tables in (self.distance, self.kernel)
        )

        def energy(cross: str) -> float:
            return 2 * distance[cross] / (n * m) - distance["image"] / n**2 - distance["text"] / m**2

        def uniformity(pairs: float, *names: str) -> float:
            logs = torch.stack([self.potential[name][keep][:, keep] for name in names])
            return float(logs.flatten().logsumexp(dim=0)) - math.log(pairs)

        own = kernel["image"] / (n * (n - 1)) + kernel["text"] / (m * (m - 1))
        further, nearer = (0.0 if without < 0 else self.moved[name][without].item() for name in ("distance", "kernel"))
        image, text = (self.same[:, keep].sum(dim=1) / rows).tolist()
        return {
            "energy": energy("cross"),
            "energy_centred": energy("centred") + 2 * further,
            "mmd2_u_centred": own - 2 * (kernel["centred"] / (n * m) + nearer),
            "uniformity_image": uniformity(n * (n - 1), "image"),
            "uniformity_text": uniformity(m * (m - 1), "text"),
            "uniformity_cross": uniformity(n * m - n * self.paired, "cross"),
            "uniformity_joint": uniformity(
                (n + m) * (n + m - 1), "image", "text", "cross", "cross", "matched", "matched"
            ),
            "mix_bias_image": image,
            "mix_bias_text": text,
        }

    def mean_distances(self) -> tuple[float, float]:
        """Mean distance of two different images, and of two different texts."""
        image, text = (
            (self.distance[name].sum() / (rows * (rows - 1))).item()
            for name, rows in zip(("image", "text"), self.rows.sum(dim=1), strict=True)
        )
        return image, text
