"""The feasible combination of two vectors, where no single eigenvector is optimal."""

from __future__ import annotations

import torch
from torch import Tensor

SLACK = 1e-12  # relative: what rounding may add to x'Dx


def mix(a: Tensor, d: Tensor, level: float, inside: Tensor, outside: Tensor) -> tuple[Tensor, float]:
    """The best unit vector of the plane of ``inside`` and ``outside`` with x'Dx = level, or ``inside`` itself.

    Where the leading eigenvalue of A - lambda D is multiple at the optimal lambda, x'Dx jumps over the level and the
    paper's rule (Algorithm 1: the best feasible leading eigenvector) is feasible but not optimal. Any vector of the
    leading eigenspace that meets the level is optimal, and the plane of the limits from both sides holds one. With
    x = inside + tau outside the level is a quadratic in tau with one positive and one negative root; neither loses
    digits where x'Dx is tiny, as angles in the plane would. (Ours; correction of KODA, arXiv 2606.04180, sec 4.)

    Args:
        a: (m, m) symmetric A.
        d: (m,) the diagonal of D, not negative.
        level: the right-hand side.
        inside: (m,) unit vector with x'Dx <= level.
        outside: (m,) unit vector with x'Dx > level.

    Returns:
        The vector (m,) and x'Ax.

    >>> a = torch.diag(torch.tensor([10.0, 6.0, 1.0], dtype=torch.float64))
    >>> d = torch.tensor([8.0, 1.0, 0.1], dtype=torch.float64)
    >>> e1, e2, _ = torch.eye(3, dtype=torch.float64)
    >>> x, value = mix(a, d, 4.0, inside=e2, outside=e1)
    >>> round(7 * value, 9), [round(7 * v, 9) for v in (x**2).tolist()]
    (54.0, [3.0, 4.0, 0.0])
    """
    if outside @ inside < 0:
        outside = -outside  # one root is then a short step away from a near-parallel pair
    square = (d * outside * outside).sum().item() - level
    half = (d * inside * outside).sum().item() - level * (inside @ outside).item()
    constant = (d * inside * inside).sum().item() - level
    root = max(half * half - square * constant, 0.0) ** 0.5
    stable = -(half + root) if half > 0 else root - half
    best, value = inside, (inside @ a @ inside).item()
    for numerator, denominator in ((stable, square), (constant, stable)):
        if denominator == 0:
            continue
        x = inside + (numerator / denominator) * outside
        x = x / torch.linalg.vector_norm(x)
        # the coefficients cancel where the two vectors nearly agree: a candidate counts only as far as it is checked
        if (d * x * x).sum().item() <= level * (1 + SLACK) and (x @ a @ x).item() > value:
            best, value = x, (x @ a @ x).item()
    return best, value


def plane_multiplier(a: Tensor, d: Tensor, x: Tensor, other: Tensor) -> float:
    """lambda of (A - lambda D - nu) x = 0 within the plane of ``x`` (m,) and ``other`` (m,); nan where undefined.

    >>> a = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    >>> x = torch.tensor([0.25, 0.75], dtype=torch.float64).sqrt()
    >>> round(plane_multiplier(a, torch.tensor([4.0, 0.0], dtype=torch.float64), x, torch.eye(2).double()[0]), 9)
    0.25
    """
    across = other - (other @ x) * x
    slope = (d * across * x).sum().item()
    return (across @ a @ x).item() / slope if slope != 0 else float("nan")
