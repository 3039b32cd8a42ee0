"""How well does one number of a model predict another: the gap and the benchmarks, over models and alignments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from koda_audit.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

DRAWS = 2_000
LEVEL = 0.95
MIN_POINTS = 8
MIN_MODELS = 5


def explained(
    table: pd.DataFrame, gaps: Sequence[str], benchmarks: Sequence[str], draws: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """R^2 of the straight line through each benchmark as a function of each gap metric, with a 95 % interval.

    The alignments of one model are no independent points: the interval is the percentile of R^2 over models drawn
    again with all of their rows, leaving out draws in which a side is constant. R^2 cannot fall below 0, so the lower
    end is above 0 whatever the truth: look at the width, and not at whether 0 is outside.

    Args:
        table: a row a (model, alignment), with a column ``model`` and one for each metric; nan where it was not
            measured.
        gaps, benchmarks: names of columns.

    Returns:
        A row a (gap, benchmark): ``r2``, ``slope``, ``low``, ``high``, ``n`` (points), ``models``. ``r2`` and ``slope``
        are nan with fewer than 8 points or where a side is constant, the interval also with fewer than 5 models.

    Raises:
        InputError: the table lacks a column.

    >>> import pandas as pd
    >>> table = pd.DataFrame({"model": list("aabbccddee"), "gap": range(10), "acc1": range(0, 20, 2)})
    >>> explained(table, ["gap"], ["acc1"]).loc[0, ["r2", "slope", "low", "n", "models"]].tolist()
    [1.0, 2.0, 1.0, 10.0, 5.0]
    """
    import pandas as pd

    missing = {"model", *gaps, *benchmarks} - set(table.columns)
    if missing:
        raise InputError(f"the table has no column {', '.join(sorted(missing))}")
    rows = []
    for gap in gaps:
        for benchmark in benchmarks:
            known = table[["model", gap, benchmark]].dropna()
            x, y = (known[name].to_numpy(dtype=np.float64) for name in (gap, benchmark))
            _, owner = np.unique(known["model"].to_numpy(dtype=str), return_inverse=True)
            models = int(owner.max()) + 1 if len(owner) else 0
            r2 = slope = low = high = np.nan
            if len(x) >= MIN_POINTS:
                (r2,), (slope,) = _fit(x, y, np.ones((1, len(x))))
                if models >= MIN_MODELS and np.isfinite(r2):
                    drawn = np.random.default_rng([seed, 9]).multinomial(models, np.full(models, 1 / models), draws)
                    again, _ = _fit(x, y, drawn[:, owner].astype(np.float64))
                    low, high = np.nanquantile(again, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            rows.append((gap, benchmark, r2, slope, low, high, len(x), models))
    return pd.DataFrame(rows, columns=["gap", "benchmark", "r2", "slope", "low", "high", "n", "models"])


def _fit(
    x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(draws,) R^2 and slope of weighted least squares, for each row of ``weights`` (draws, n); nan for a constant."""
    total = weights.sum(axis=1)
    dx = x - (weights @ x / total)[:, None]
    dy = y - (weights @ y / total)[:, None]
    xx, yy, xy = ((weights * product).sum(axis=1) for product in (dx * dx, dy * dy, dx * dy))
    # what rounding leaves of a constant
    flat = (xx <= 1e-24 * total * (x**2).max()) | (yy <= 1e-24 * total * (y**2).max())
    xx, yy = np.where(flat, np.nan, xx), np.where(flat, np.nan, yy)
    return xy**2 / (xx * yy), xy / xx
