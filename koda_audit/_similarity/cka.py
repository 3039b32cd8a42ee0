"""Linear centred kernel alignment: how alike the inner products between samples are."""

from __future__ import annotations

import math

from torch import Tensor

from koda_audit._similarity.products import VANISHES, Products, products
from koda_audit._similarity.protocol import Invariance, Measure
from koda_audit.errors import InputError

INVARIANCES: tuple[Invariance, ...] = ("orthogonal", "isotropic scaling", "translation", "permutation of columns")


def linear_cka(pair: Products) -> float:
    """|X'Y|^2 / (|X'X| |Y'Y|) of centred x and y, in Frobenius norms (Kornblith et al. 2019, eqs 3 and 4).

    It is far from 0 for independent representations where samples are few for their width: about
    sqrt(d_x d_y / ((n + d_x) (n + d_y))) for white noise (ours). That falls with n; ``debiased_linear_cka`` is flat.

    Raises:
        InputError: x or y is constant.
    """
    xx, xy, yy = pair.centred()
    return float((xy.norm() / xx.norm()) * (xy.norm() / yy.norm()))


def debiased_linear_cka(pair: Products) -> float:
    """HSIC_1(K, L) / sqrt(HSIC_1(K, K) HSIC_1(L, L)) with K = XX', L = YY' (Nguyen et al. 2021, eqs 2 and 3).

    HSIC_1 is the unbiased estimator of Song et al. (2012, eq 5): with the diagonals of K and L set to 0

        n (n - 3) HSIC_1 = tr KL + 1'K1 1'L1 / ((n - 1) (n - 2)) - 2 1'KL1 / (n - 2)

    The ratio is not unbiased, but near 0 for independent representations at any n; it may be negative, and is reported
    so. From sums over samples (ours), with a_i = |x_i|^2, b_i = |y_i|^2 and s, t the sums of all x_i and y_i:

        tr KL = |X'Y|^2 - a'b,    1'K1 = |s|^2 - 1'a,    1'KL1 = s'X'Yt - a'Yt - s'X'b + a'b

    Raises:
        InputError: fewer than 4 samples; all pairs of rows of x or y equally far apart, where K is constant and this is
            0/0.
    """
    n, split = pair.moments.count, pair.left.shape[1]
    if n < 4:
        raise InputError(f"cka_linear_debiased needs at least 4 samples, and 5 for an interval: {n} are left")
    x, y = slice(split), slice(split, None)
    between, alone_x, alone_y = (_unbiased(pair, left, right) for left, right in ((x, y), (x, x), (y, y)))
    for name, part, alone in (("x", x, alone_x), ("y", y, alone_y)):
        inner = pair.moments.cross[part, part][:-1, :-1]
        if alone <= VANISHES * inner.norm() ** 2:
            raise InputError(
                f"cka_linear_debiased is not defined: all rows of {name} are equal or equally far apart, "
                "or all but those that an interval leaves out; use cka_linear"
            )
    return between / math.sqrt(alone_x) / math.sqrt(alone_y)


def _unbiased(pair: Products, left: slice, right: slice) -> float:
    """n (n - 3) HSIC_1."""
    n, cross = pair.moments.count, pair.moments.cross[left, right]
    (s, a), (t, b) = (_split(pair.moments.total[part]) for part in (left, right))
    xy, xb, ay, ab = cross[:-1, :-1], cross[:-1, -1], cross[-1, :-1], cross[-1, -1]
    trace = xy.norm() ** 2 - ab
    sums = (s @ s - a) * (t @ t - b)
    rows = s @ xy @ t - ay @ t - s @ xb + ab
    return float(trace + sums / ((n - 1) * (n - 2)) - 2 * rows / (n - 2))


def _split(total: Tensor) -> tuple[Tensor, Tensor]:
    return total[:-1], total[-1]


cka_linear = Measure(
    name="cka_linear",
    meaning="alignment of the inner products between samples; grows with the width where samples are few",
    source="Kornblith et al. 2019 (ICML), eqs 3 and 4",
    low=0.0,
    high=1.0,
    higher_is_similar=True,
    invariances=INVARIANCES,
    cost="moments",
    prepare=products,
    formula=linear_cka,
)

cka_linear_debiased = Measure(
    name="cka_linear_debiased",
    meaning="the same without the bias: about 0 for independent representations, and may be negative",
    source="Nguyen et al. 2021 (ICLR), eqs 2 and 3; Song et al. 2012 (JMLR 13), eq 5",
    low=-1.0,
    high=1.0,
    higher_is_similar=True,
    invariances=INVARIANCES,
    cost="moments",
    prepare=products,
    formula=debiased_linear_cka,
)
