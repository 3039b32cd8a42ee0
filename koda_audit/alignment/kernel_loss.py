"""The loss of kernel alignment (KUEA, ICML 2025, arXiv 2506.02557): pull a kernel matrix of images towards a teacher's.

    K(x, y)  = cos([x ; rho^-1/2], [y ; rho^-1/2])^p       the published (gamma x'y + c)^p / norm with rho = gamma / c
    L_k      = mean over pairs i != j of (K_ij - T_ij)^2   T the teacher's kernel matrix
    A        = mean_i |x_i - x0_i|^2 / s                   x0 the embeddings before training
    L        = w L_k + A                                   (equation 6)

Only rho = gamma / c matters, as K is the same for t gamma and t c, and this form keeps its digits where the power of a
squared length would overflow (both ours). Images alone enter; texts and labels never do.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from koda_audit._kernels.directions import cosines
from koda_audit._kernels.rbf import squared_distances
from koda_audit.errors import InputError

Kernel = Literal["polynomial", "gaussian", "cosine"]
Pairs = Literal["offdiag", "all"]
KERNELS: tuple[Kernel, ...] = ("polynomial", "gaussian", "cosine")
DEGREE = 3
GRID = torch.linspace(-4, 4, 61, dtype=torch.float64)  # of log10 rho
GRID_ROWS = 512  # images that rho is chosen on, and a teacher judged by
MIN_SPREAD = 1e-3  # standard deviation of a teacher's kernel values, below which there is nothing to learn from


def kernel_matrix(x: Tensor, log_rho: Tensor | float, kernel: Kernel = "polynomial", degree: int = DEGREE) -> Tensor:
    """(n, n) float64 with ones on its diagonal; gradients reach ``x`` and ``log_rho``.

    Args:
        x: (n, d) raw embeddings, of any scale: dividing them by a is the same as multiplying rho by a^2.
        log_rho: natural logarithm of rho, an inverse squared length. "polynomial": as above, between all ones
            (rho -> 0) and the cosine's power (rho -> infinity). "gaussian": exp(-rho |x - y|^2 / 2). "cosine" has none.
        degree: p of "polynomial".

    >>> kernel_matrix(torch.tensor([[1.0], [2.0]]), 0.0, degree=2).round(decimals=6).tolist()
    [[1.0, 0.9], [0.9, 1.0]]
    """
    x = x.to(torch.float64)
    rho = torch.as_tensor(log_rho, dtype=torch.float64, device=x.device).exp()
    if kernel == "gaussian":
        return torch.exp(-rho / 2 * squared_distances(x))
    if kernel == "polynomial":
        x = torch.cat([x, rho.rsqrt().expand(len(x), 1)], dim=1)
    units = x / torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return cosines(units) ** (degree if kernel == "polynomial" else 1)


def kernel_mse(student: Tensor, teacher: Tensor, pairs: Pairs = "offdiag") -> Tensor:
    """Mean squared difference of two (n, n) kernel matrices.

    Args:
        pairs: "offdiag" takes the pairs i != j; "all" counts the zeros of the diagonal too, as the published code
            does: the former times (n - 1) / n.

    >>> same, apart = torch.ones(2, 2), torch.eye(2)
    >>> kernel_mse(same, apart).item(), kernel_mse(same, apart, "all").item()
    (1.0, 0.5)
    """
    n = len(student)
    return ((student - teacher) ** 2).sum() / (n * (n - 1 if pairs == "offdiag" else n))


def anchor_loss(x: Tensor, before: Tensor, scale: float = 1.0) -> Tensor:
    """mean_i |x_i - x0_i|^2 / scale: what keeps the embeddings in the space that the texts know.

    >>> anchor_loss(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2), scale=5.0).item()
    5.0
    """
    squares: Tensor = ((x.to(torch.float64) - before.to(torch.float64)) ** 2).sum(dim=1)
    return squares.mean() / scale


def cosine_bound(x: Tensor, before: Tensor) -> Tensor:
    """(n,) the most by which the cosine of a row with any text can have changed: 2|x - x0| / (|x| + |x0|).

    Tighter than the paper's proposition 3.2, which divides by the larger length twice; ours.

    >>> cosine_bound(torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0]])).tolist()
    [1.0]
    """
    lengths = torch.linalg.vector_norm(x, dim=1) + torch.linalg.vector_norm(before, dim=1)
    bound: Tensor = 2 * torch.linalg.vector_norm(x - before, dim=1) / lengths
    return bound


def best_log_rho(
    x: Tensor, teacher: Tensor, kernel: Kernel = "polynomial", degree: int = DEGREE
) -> tuple[float, float]:
    """log rho in a grid of 61 values from 1e-4 to 1e4, and the kernel_mse that it leaves.

    Compare models at the best rho of each: a loss can fall because rho moved alone.

    Args:
        x: (n, d) embeddings. teacher: (n, n) kernel matrix of the same samples.

    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    >>> log_rho, left = best_log_rho(x, kernel_matrix(x, math.log(100.0)))
    >>> round(math.exp(log_rho), 6), round(left, 12)
    (100.0, 0.0)
    """
    grid = (GRID * math.log(10)).tolist()
    losses = [kernel_mse(kernel_matrix(x, log_rho, kernel, degree), teacher).item() for log_rho in grid]
    best = min(range(len(grid)), key=losses.__getitem__)
    return grid[best], losses[best]


def teacher_log_rho(
    teacher: Tensor, rho: float | None = None, kernel: Kernel = "polynomial", degree: int = DEGREE
) -> float:
    """The teacher's log rho: of ``rho``, by default 1/d, the published choice for a layer-normalised teacher.

    Raises:
        InputError: kernel values that hardly differ between pairs, so that there is nothing to learn from.

    >>> round(teacher_log_rho(4 * torch.eye(4, 2)[:, :2] + torch.arange(4)[:, None]), 6)
    -0.693147
    """
    log_rho = math.log(rho or 1 / teacher.shape[1])
    gram = kernel_matrix(teacher[:GRID_ROWS], log_rho, kernel, degree)
    spread = gram[~torch.eye(len(gram), dtype=torch.bool, device=gram.device)].std().item()
    if not spread >= MIN_SPREAD:
        raise InputError(
            f"the teacher sees all images alike: its kernel values have a standard deviation of {spread:.1e}; "
            "its embeddings are constant, or too short for this rho: take another teacher or a larger rho_teacher"
        )
    return log_rho
