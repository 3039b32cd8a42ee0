"""What a sample says about one number: an estimate, and a one-sided confidence bound at any level.

Everything that is tested is read from the bound: a number is beyond a tolerance where its bound is, and the p-value is
the level at which the bound reaches the tolerance. A verdict and a bound can therefore never contradict each other.
Large numbers are the bad ones throughout: a fall is the number before minus the number after.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv, ndtri

from koda_audit._stats.permutation import TIED

LEAST = 1e-12  # p-values below it are given as this
POWER = 0.8
Bound = Callable[[float], float]


@dataclass(frozen=True)
class Evidence:
    """What is known of one number.

    Attributes:
        estimate: the number.
        bound: level -> lower confidence bound; rises with the level. None where nothing is left to chance, as in a
            count.
        error: standard error of the estimate; nan where it is not known.
        n: independent units behind it; None where they are not known.
        method: in words.
        above: level -> upper confidence bound; falls with the level.
    """

    estimate: float
    bound: Bound | None
    error: float
    n: int | None
    method: str
    above: Bound | None = None

    def p_value(self, tolerance: float) -> float | None:
        """The least level at which the bound is beyond the tolerance; 1 where none below 1/2 will do.

        >>> round(share(8, 8).p_value(0.5) * 2**8, 9)  # eight heads of a fair coin
        1.0
        """
        if self.bound is None:
            return None
        low, high = math.log(LEAST), math.log(0.5)
        if not beyond(self.bound(0.5), tolerance):
            return 1.0
        if beyond(self.bound(LEAST), tolerance):
            return LEAST
        while high - low > 1e-13:
            middle = (low + high) / 2
            low, high = (low, middle) if beyond(self.bound(math.exp(middle)), tolerance) else (middle, high)
        return math.exp(high)

    def smallest_detectable(self, tolerance: float, level: float) -> float | None:
        """The smallest true value that would be found beyond the tolerance with a chance of 80 %; None where n values
        in [0, 1] are too few for any.

        The root of (x - t)^2 = z^2 (error^2 + (x - t)(1 - x + t) / n), z the sum of the normal quantiles of
        1 - level and of the power: to the noise that this sample shows comes that of a change of x - t, which turns
        some of the n units and leaves the others (without n, only the first). Ours.

        >>> round(Evidence(0.0, None, 0.0, 1000, "").smallest_detectable(0.01, 0.05), 4)
        0.0161
        """
        if not math.isfinite(self.error):
            return None
        square = float(ndtri(1 - level) + ndtri(POWER)) ** 2
        share = 0.0 if self.n is None else square / self.n
        root = math.sqrt(share**2 + 4 * (1 + share) * square * self.error**2)
        smallest = tolerance + (share + root) / (2 * (1 + share))
        return smallest if self.n is None or smallest <= 1 else None


def beyond(value: float, tolerance: float) -> bool:
    """Larger by more than rounding.

    >>> beyond(0.87 - 0.86, 0.01), 0.87 - 0.86 > 0.01
    (False, True)
    """
    return value > tolerance + TIED * max(1.0, abs(tolerance))


def exact(estimate: float) -> Evidence:
    """A number that is what it is: a count, or what was drawn with no chance at all."""
    return Evidence(estimate, None, 0.0, None, "compared as it is")


def lower_share(hits: float, n: float, level: float) -> float:
    """Exact lower confidence bound of a share (Clopper and Pearson 1934, Biometrika 26).

    ``hits`` may be a sum of values in [0, 1]: no such value varies more than a coin of the same mean.

    >>> lower_share(8, 8, 0.5**8)
    0.5
    """
    return float(betaincinv(hits, n - hits + 1, level)) if hits > 0 else 0.0


def share(hits: float, n: int) -> Evidence:
    """A share of n independent units, with its exact bound.

    >>> round(share(95, 100).bound(0.05), 4)
    0.8977
    """
    mean = hits / n
    error = math.sqrt(max(mean * (1 - mean), 0.0) / n)
    return Evidence(
        mean,
        lambda level: lower_share(hits, n, level),
        error,
        n,
        "exact binomial",
        lambda level: 1 - lower_share(n - hits, n, level),
    )


def stated(estimate: float, low: float, high: float) -> Evidence:
    """A number with a two-sided 95 % interval, of which each side is asked by itself.

    An end lies 1.96 standard errors from the estimate, and so gives the bound at every level; an estimate that
    is outside of its interval is replaced by the middle. Ours, and exact for a normal distribution.

    >>> round(stated(1.0, 0.8, 1.1).bound(0.025), 9)
    0.8
    """
    if low == high == estimate:
        return exact(estimate)
    centre = estimate if low <= estimate <= high else (low + high) / 2
    return _normal(estimate, centre, centre - low, high - centre, "stated interval")


def stated_difference(
    left: tuple[float, float, float], right: tuple[float, float, float], method: str = "stated intervals, not paired"
) -> Evidence:
    """left minus right, each (estimate, low, high) with a 95 % interval of its own, from independent samples.

    The lower end is (l - r) - sqrt((l - low_l)^2 + (high_r - r)^2) (Zou and Donner 2008, Statistics in Medicine 27;
    "square and add"). On the same samples both errors mostly agree, and the bound is on the safe side.

    >>> round(stated_difference((1.0, 0.7, 1.2), (0.5, 0.1, 0.9)).bound(0.025), 9)
    0.0
    """
    (a, low_a, high_a), (b, low_b, high_b) = left, right
    if low_a == high_a == a and low_b == high_b == b:
        return exact(a - b)
    centre_a = a if low_a <= a <= high_a else (low_a + high_a) / 2
    centre_b = b if low_b <= b <= high_b else (low_b + high_b) / 2
    ends = math.hypot(centre_a - low_a, high_b - centre_b), math.hypot(high_a - centre_a, centre_b - low_b)
    return _normal(a - b, centre_a - centre_b, *ends, method)


def _normal(estimate: float, centre: float, below: float, above: float, method: str) -> Evidence:
    errors = [end / float(ndtri(0.975)) for end in (below, above)]
    return Evidence(
        estimate,
        lambda level: centre - errors[0] * float(ndtri(1 - level)),
        errors[0],
        None,
        method,
        lambda level: centre + errors[1] * float(ndtri(1 - level)),
    )


def holm_levels(p_values: Sequence[float], levels: Sequence[float]) -> list[float]:
    """The level at which each of k hypotheses stands by itself, so that together they keep Holm's (1979).

    The smallest p-value is held against level / k, the next against level / (k - 1), and so on; from the first that is
    not below, all others are held against the same as that one. p <= its level here exactly where Holm rejects at the
    hypothesis's own ``levels``; the chance of any false rejection is at most the largest of them.

    >>> holm_levels([0.3, 0.01, 0.02], [0.05] * 3) == [0.05, 0.05 / 3, 0.05 / 2]
    True
    """
    k = len(p_values)
    order = np.argsort(np.asarray(p_values, dtype=np.float64), kind="stable")
    found = [0.0] * k
    for place, index in enumerate(order):
        passed = (j for j in range(place) if p_values[order[j]] * (k - j) > levels[index])
        found[index] = levels[index] / (k - next(passed, place))
    return found
