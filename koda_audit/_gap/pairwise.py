"""Energy distance, MMD, uniformity and nearest neighbours: one pass over all pairs of rows, without their matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from koda_audit._gap.folds import Groups
from koda_audit._gap.sides import Sides

ROWS = 1024  # rows and columns of distances that are made at a time
POTENTIAL = 2.0  # t of exp(-t |z - z'|^2) in the uniformity (Wang and Isola, ICML 2020)
TIED = 1e-12  # squared distances that differ by less, as a part of the mean squared length, are equal


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
        paired: whether there are "matched" pairs.
    """

    rows: Tensor
    distance: dict[str, Tensor]
    kernel: dict[str, Tensor]
    potential: dict[str, Tensor]
    same: Tensor
    paired: bool

    def metrics(self, without: int = -1) -> dict[str, float]:
        """Of all groups, or ``without`` one: then with the centroids, the bandwidth and the neighbours of all.

        Energy is 2 E|x - y| - E|x - x'| - E|y - y'| with each row also paired with itself (V-statistic, never below 0);
        MMD^2 leaves these pairs out (U-statistic: 0 on average for samples of one distribution, so it may be negative).
        """
        keep = torch.arange(self.rows.shape[1], device=self.rows.device) != without
        rows = self.rows[:, keep].sum(dim=1)
        n, m = rows.tolist()
        distance, kernel = (
            {name: table[keep][:, keep].sum().item() for name, table in tables.items()}
            for tables in (self.distance, self.kernel)
        )

        def energy(cross: str) -> float:
            return 2 * distance[cross] / (n * m) - distance["image"] / n**2 - distance["text"] / m**2

        def uniformity(pairs: float, *names: str) -> float:
            logs = torch.stack([self.potential[name][keep][:, keep] for name in names])
            mean: float = logs.flatten().logsumexp(dim=0).item() - math.log(pairs)
            return mean

        own = kernel["image"] / (n * (n - 1)) + kernel["text"] / (m * (m - 1))
        image, text = (self.same[:, keep].sum(dim=1) / rows).tolist()
        return {
            "energy": energy("cross"),
            "energy_centred": energy("centred"),
            "mmd2_u_centred": own - 2 * kernel["centred"] / (n * m),
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


@dataclass(frozen=True, eq=False)
class _Part:
    """Some centred rows of one group of a side: ``squares`` (k,) of their lengths, ``along`` (k,) their z'g.

    ``same`` and ``other`` (k,) are the smallest squared distances yet to a row of the same and of the other modality.
    """

    group: int
    rows: Tensor
    squares: Tensor
    along: Tensor
    same: Tensor
    other: Tensor


def _parts(values: Tensor, groups: NDArray[np.int64], gap: Tensor) -> list[_Part]:
    centre, parts = values.mean(dim=0), []
    for group in range(groups.max() + 1):
        for chunk in torch.split(torch.from_numpy(np.flatnonzero(groups == group)).to(values.device), ROWS):
            rows = values[chunk] - centre
            far = rows.new_full((len(rows),), torch.inf)
            parts.append(_Part(group, rows, (rows * rows).sum(dim=1), rows @ gap, far, far.clone()))
    return parts


def _squared_distances(a: _Part, b: _Part) -> Tensor:
    return torch.addmm(a.squares[:, None] + b.squares, a.rows, b.rows.T, alpha=-2).clamp_(min=0)


def pair_sums(sides: Sides, groups: Groups, gamma: float) -> PairSums:
    """Exact, in blocks of 1,024 x 1,024 pairs; about (n + m)^2 d operations, and a copy of the rows.

    >>> from koda_audit._gap.sides import sides
    >>> both = sides([[1, 0], [0, 1]], [[0, -1], [-1, 0]])
    >>> found = pair_sums(both, (np.zeros(2, dtype=int), np.zeros(2, dtype=int)), gamma=1.0).metrics()
    >>> round(found["energy_centred"], 9), round(found["uniformity_image"], 9), found["mix_bias_image"]
    (0.0, -4.0, 0.5)
    """
    count = int(max(numbers.max() for numbers in groups)) + 1
    gap = sides.image.mean(dim=0) - sides.text.mean(dim=0)
    images, texts = _parts(sides.image, groups[0], gap), _parts(sides.text, groups[1], gap)
    zero = sides.image.new_zeros(count, count)
    distance = {name: zero.clone() for name in ("image", "text", "cross", "centred")}
    kernel = {name: zero.clone() for name in ("image", "text", "centred")}
    potential = {name: zero.log() for name in ("image", "text", "cross", "matched")}

    for name, parts in (("image", images), ("text", texts)):
        for number, a in enumerate(parts):
            for b in parts[number:]:
                squares = _squared_distances(a, b)
                if a is b:
                    squares.fill_diagonal_(0.0)
                apart = squares.sqrt().sum()
                if a is b:
                    squares.fill_diagonal_(torch.inf)  # a row is no neighbour of its own
                _keep_nearest(squares, a.same, b.same)
                near, log = (squares * -gamma).exp_().sum(), (squares.flatten() * -POTENTIAL).logsumexp(dim=0)
                for i, j in [(a.group, a.group)] if a is b else [(a.group, b.group), (b.group, a.group)]:
                    distance[name][i, j] += apart
                    kernel[name][i, j] += near
                    potential[name][i, j] = torch.logaddexp(potential[name][i, j], log)

    for k, a in enumerate(images):
        for q, b in enumerate(texts):
            at = a.group, b.group
            squares = _squared_distances(a, b)
            distance["centred"][at] += squares.sqrt().sum()
            kernel["centred"][at] += (squares * -gamma).exp_().sum()
            # |x - y|^2 of the rows as they are: x - y is the difference of the centred rows plus the gap
            squares.add_((2 * a.along)[:, None] - 2 * b.along + gap @ gap).clamp_(min=0)
            distance["cross"][at] += squares.sqrt().sum()
            _keep_nearest(squares, a.other, b.other)
            if sides.paired and k == q:
                logs = torch.stack([potential["matched"][at], (squares.diagonal() * -POTENTIAL).logsumexp(dim=0)])
                potential["matched"][at] = logs.logsumexp(dim=0)
                squares.fill_diagonal_(torch.inf)
            log = (squares.flatten() * -POTENTIAL).logsumexp(dim=0)
            potential["cross"][at] = torch.logaddexp(potential["cross"][at], log)

    both = (images, texts)
    tied = TIED * torch.cat([part.squares + gap @ gap for parts in both for part in parts]).mean()
    rows, same = (torch.stack([zero[0], zero[0]]) for _ in range(2))
    for side, parts in enumerate(both):
        for part in parts:
            rows[side, part.group] += len(part.rows)
            same[side, part.group] += (1 + _sign(part.other - part.same, tied)).sum() / 2
    return PairSums(rows, distance, kernel, potential, same, sides.paired)


def _keep_nearest(squares: Tensor, of_rows: Tensor, of_columns: Tensor) -> None:
    torch.minimum(of_rows, squares.amin(dim=1), out=of_rows)
    torch.minimum(of_columns, squares.amin(dim=0), out=of_columns)


def _sign(values: Tensor, tied: Tensor) -> Tensor:
    return values.sign() * (values.abs() > tied)
