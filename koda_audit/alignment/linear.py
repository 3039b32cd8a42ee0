"""Linear maps of the texts onto the images, fitted on pairs or on both covariances."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from koda_audit.alignment.choices import Count, Size, one_width, whole
from koda_audit.alignment.maps import UNIT, Fitted, Step

Target = Literal["shared", "image"]
RANK = 1e-12  # of the largest eigenvalue: what is below is rounding


def procrustes(image: Tensor, text: Tensor, frame: Target = "shared", renormalise: bool = True) -> Fitted:
    """y -> (y - my) R with the orthogonal R that brings the centred texts closest to their images (Schönemann 1966).

    R = U V' where (y - my)'(x - mx) = U S V'. All distances between texts stay as they are before renormalisation.

    Args:
        image, text: (n, d) pairs.
        frame: "shared" centres the images too; "image" leaves them and moves the texts to their mean.
        renormalise: whether rows come out at length 1.

    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    >>> turned = x.flip(1)
    >>> torch.allclose(procrustes(x, turned, "image").second[0](turned), x)
    True
    """
    one_width(image, text)
    mx, my = image.mean(dim=0), text.mean(dim=0)
    u, _, vt = torch.linalg.svd((text - my).T @ (image - mx))
    return _onto_images(u @ vt, mx, my, frame, renormalise)


def ridge(
    image: Tensor,
    text: Tensor,
    lam: Size = 1.0,
    prior: Literal["I", 0] = "I",
    frame: Target = "shared",
    renormalise: bool = True,
) -> Fitted:
    """y -> (y - my) W, W = argmin |(x - mx) - (y - my) W|^2 + lam |W - prior|^2.

    With centred rows X, Y: W = prior + (Y'Y + lam I)^-1 Y'(X - Y prior). At lam = 0 it is least squares, of least
    length where pairs are fewer than dimensions. With prior "I" a large lam gives the identity, which is the safe end.

    Args:
        image, text: (n, d_i) and (n, d_t) pairs.
        lam: not negative, in units of summed squares of unit rows.
        prior: "I", which needs equal widths, or 0.
        frame: as in ``procrustes``.
        renormalise: whether rows come out at length 1.

    >>> y = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    >>> twice = ridge(2 * y, y, lam=0.0, prior=0).second[0].matrix
    >>> torch.allclose(twice, 2 * torch.eye(2, dtype=torch.float64))
    True
    """
    mx, my = image.mean(dim=0), text.mean(dim=0)
    x, y = image - mx, text - my
    inverse = matrix_power(y.T @ y, -1, lam)
    if str(prior) == "0":
        return _onto_images(inverse @ (y.T @ x), mx, my, frame, renormalise)
    eye = torch.eye(one_width(image, text), dtype=x.dtype)
    return _onto_images(eye + inverse @ (y.T @ (x - y)), mx, my, frame, renormalise)


def coral(image: Tensor, text: Tensor, eps: Size = 0.01, frame: Target = "image", renormalise: bool = True) -> Fitted:
    """y -> (y - my) (Cy + eps I)^-1/2 (Cx + eps I)^1/2: the texts take on the covariance of the images (Sun, Feng and
    Saenko, AAAI 2016). Needs no pairs.

    Args:
        image, text: (n, d) and (m, d) unit rows.
        eps: not negative; added to the eigenvalues of both covariances, whose sum is at most 1.
        frame: as in ``procrustes``.
        renormalise: whether rows come out at length 1.

    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    >>> torch.allclose(coral(x, x).second[0].matrix, torch.eye(2, dtype=torch.float64))
    True
    """
    one_width(image, text)
    colouring = matrix_power(covariance(text), -0.5, eps) @ matrix_power(covariance(image), 0.5, eps)
    return _onto_images(colouring, image.mean(dim=0), text.mean(dim=0), frame, renormalise)


def zca(image: Tensor, text: Tensor, eps: Size = 0.01, renormalise: bool = True) -> Fitted:
    """x -> (x - mx) (Cx + eps I)^-1/2, each side with its own mean and covariance: symmetric whitening.

    Of all whitenings it turns the rows least (Kessy, Lewin and Strimmer 2018), so both sides still share their axes.

    Args:
        image, text: (n, d_i) and (m, d_t) unit rows.
        eps: not negative; added to the eigenvalues of the covariances, whose sum is at most 1.
        renormalise: whether rows come out at length 1.

    >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-2.0, 0.0], [0.0, -1.0]], dtype=torch.float64)
    >>> covariance(zca(x, x, eps=0.0, renormalise=False).first[0](x)).round(decimals=9).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    first, second = (
        Step(side.mean(dim=0), matrix_power(covariance(side), -0.5, eps), renormalise=renormalise)
        for side in (image, text)
    )
    return Fitted((first,), (second,))


def cca(
    image: Tensor, text: Tensor, k: Count = 64, reg: Size = 1e-3, scale: Size = 1.0, renormalise: bool = True
) -> Fitted:
    """Both sides onto the k pairs of directions that correlate most (regularised CCA; Hotelling 1936, Vinod 1976).

    A = (Cx + reg I)^-1/2, B = (Cy + reg I)^-1/2, A Cxy B = U S V'; x -> (x - mx) A U_k S_k^scale and
    y -> (y - my) B V_k S_k^scale. S are the canonical correlations, largest first, and stand in ``figures``.

    Args:
        image, text: (n, d_i) and (n, d_t) pairs.
        k: directions kept, at most the smaller width and n - 1.
        reg: not negative; added to the eigenvalues of the covariances, whose sum is at most 1.
        scale: the power of the correlations that weights the directions; 0 weights all alike.
        renormalise: whether rows come out at length 1.

    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], dtype=torch.float64)
    >>> [round(c, 9) for c in cca(x, 3 * x.flip(1), k=2, reg=0.0).figures["correlations"]]
    [1.0, 1.0]
    """
    whole(k, "k", min(image.shape[1], text.shape[1], len(image) - 1), "the smaller width and the pairs less one")
    mx, my = image.mean(dim=0), text.mean(dim=0)
    a, b = (matrix_power(covariance(side), -0.5, reg) for side in (image, text))
    u, s, vt = torch.linalg.svd(a @ ((image - mx).T @ (text - my) / len(image)) @ b)
    correlations = s[:k].clamp(max=1)  # above 1 is rounding
    first, second = (
        Step(mean, root @ (vectors[:, :k] * correlations**scale), renormalise=renormalise)
        for mean, root, vectors in ((mx, a, u), (my, b, vt.T))
    )
    return Fitted((first,), (second,), "shared", {"correlations": correlations.tolist()})


def covariance(rows: Tensor) -> Tensor:
    """(d, d): the mean of (x - mx)(x - mx)' over n rows.

    >>> covariance(torch.tensor([[1.0], [3.0]])).tolist()
    [[1.0]]
    """
    centred = rows - rows.mean(dim=0)
    return centred.T @ centred / len(rows)


def matrix_power(symmetric: Tensor, power: float, ridge: float = 0.0) -> Tensor:
    """(C + ridge I)^power of a positive semidefinite C; directions of eigenvalue 0 stay 0 (pseudo-inverse).

    >>> matrix_power(torch.diag(torch.tensor([4.0, 0.0])), -0.5).tolist()
    [[0.5, 0.0], [0.0, 0.0]]
    """
    values, vectors = torch.linalg.eigh(symmetric)
    values = values.clamp(min=0) + ridge
    kept = values > RANK * values[-1]
    powered: Tensor = (vectors[:, kept] * values[kept] ** power) @ vectors[:, kept].T
    return powered


def _onto_images(matrix: Tensor, mx: Tensor, my: Tensor, frame: Target, renormalise: bool) -> Fitted:
    if frame == "shared":
        return Fitted(
            (Step(centre=mx, renormalise=renormalise),), (Step(my, matrix, renormalise=renormalise),), "shared"
        )
    return Fitted(UNIT, (Step(my, matrix, mx, renormalise),), "first")
