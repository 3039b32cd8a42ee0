"""How alike two representations of the same samples are, by measures of any kind, with intervals and p-values."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from math import nan
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from koda_audit._arrays import matrix
from koda_audit._options import one_of, several, whole_number
from koda_audit._similarity.cca import pwcca, svcca
from koda_audit._similarity.cka import cka_linear, cka_linear_debiased
from koda_audit._similarity.matrices import cka_rbf, rsa
from koda_audit._similarity.neighbours import cknna, mutual_knn
from koda_audit._similarity.procrustes import procrustes
from koda_audit._similarity.protocol import Measure, Prepared
from koda_audit._stats.jackknife import GROUPS, jackknife_interval, random_groups
from koda_audit._stats.permutation import permutation_p_value, random_orders
from koda_audit.errors import InputError, unknown
from koda_audit.registry import measures as registered

ROWS = 10_000  # samples up to which all pairs are made

MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        measure.name: measure
        for measure in (
            cka_linear,
            cka_linear_debiased,
            procrustes,
            cka_rbf,
            rsa,
            mutual_knn,
            cknna,
            svcca,
            pwcca,
        )
    }
)
DEFAULT = tuple(name for name in MEASURES if name not in ("svcca", "pwcca"))
COLUMNS = ("value", "low", "high", "p_value", "null_mean", "n", "rows")


def similarity(
    x: Any,
    y: Any,
    measures: str | Measure | Iterable[str | Measure] = DEFAULT,
    *,
    interval: bool = False,
    permutations: int = 0,
    seed: int = 0,
    **options: Any,
) -> pd.DataFrame:
    """How alike ``x`` and ``y`` are: row i of both is the same sample.

    Rows are taken as they come. Whoever compares directions, as retrieval by cosines does, divides each row by its
    length first: that changes every measure but rsa.

    Args:
        x: (n, d_x) real numbers, n at least 4.
        y: (n, d_y); widths may differ.
        measures: names out of ``MEASURES`` or of installed packages, or measures themselves. All of ours by default but
            svcca and pwcca, which need many more samples than columns.
        interval: also ``low`` and ``high``, which cover 95 %, by leaving out each of 20 groups of samples. They tell
            what the number of samples leaves open about the expected value, bias and all, and are not cut at the ends
            of the measure's range. Where x and y are independent the CKAs are no smooth functions of the samples: use
            permutations to tell from chance.
        permutations: how many times the rows of y are permuted, for ``p_value``: the chance to be at least as alike
            when samples are paired at random.
        seed: of groups, permutations and drawn samples.
        options: those of the measures: ``k`` neighbours for mutual_knn and cknna (10).

    Returns:
        A row per measure (the index): ``value``; ``low`` and ``high``; ``p_value`` and ``null_mean``, the mean under
        permutation (nan where not asked for); ``n`` samples that count; ``rows``: "all", or how many were drawn.
        Pairwise measures take at most 10,000 samples, drawn with ``seed`` above that.

    Raises:
        InputError: not two matrices of finite real numbers with the same number of rows; fewer than 4 of them; a
            constant x or y; an unknown measure or option, or one that no measure asked for takes; what a measure
            cannot compare.
        PluginError: a measure of another package that cannot be loaded.

    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> found = similarity(x, x[:, ::-1] * 2 + 1, ["cka_linear", "mutual_knn"], permutations=19)
    >>> found["value"].round(9).to_dict(), found["p_value"].to_dict()
    ({'cka_linear': 1.0, 'mutual_knn': 1.0}, {'cka_linear': 0.05, 'mutual_knn': 0.05})
    """
    whole_number(permutations, "permutations", most=None)
    whole_number(seed, "seed")
    listed = [measures] if isinstance(measures, (str, Measure)) else several(measures, "measures")
    chosen = [_resolved(measure) for measure in listed]
    groups = list(_groups(chosen, options))
    left, right = _checked(x, y)
    found = {}
    for cost, prepare, group in groups:
        rows = _drawn(len(left), seed) if cost == "pairwise" else None
        pair = (left, right) if rows is None else (left[rows], right[rows])
        n = len(pair[0])
        prepared = prepare(*pair)
        values = _values(group, [prepared])[0]
        orders = map(torch.from_numpy, random_orders(n, int(permutations), seed))
        null = _values(group, (prepared.permuted(order.to(left.device)) for order in orders))
        rest = _values(group, _parts(prepared, n, seed, left.device) if interval else ())
        note = "all" if rows is None else f"{n} of {len(left)}, drawn with seed {seed}"
        for number, measure in enumerate(group):
            value = values[number]
            low, high = jackknife_interval(value, rest[:, number]) if interval else (nan, nan)
            p_value, null_mean = nan, nan
            if permutations:
                p_value = permutation_p_value(value, null[:, number], measure.higher_is_similar)
                null_mean = float(null[:, number].mean())
            found[measure.name] = (value, low, high, p_value, null_mean, n, note)
    frame = pd.DataFrame.from_dict(found, orient="index", columns=list(COLUMNS))
    return frame.loc[[measure.name for measure in chosen]].rename_axis("measure")


def _resolved(measure: str | Measure) -> Measure:
    if isinstance(measure, Measure):
        return measure
    if isinstance(measure, str) and measure in MEASURES:
        return MEASURES[measure]
    others = registered()
    one_of(measure, "measure", {*MEASURES, *others.names()})
    return others.load(measure)


def _groups(
    chosen: list[Measure], options: Mapping[str, Any]
) -> Iterator[tuple[str, Callable[[Tensor, Tensor], Prepared], list[Measure]]]:
    """Their cost, what prepares them with the options that it takes, and the measures that are prepared alike."""
    names = [measure.name for measure in chosen]
    if not names or len(set(names)) < len(names):
        raise InputError(f"measures are {names}: expected at least one, and none twice")
    groups: dict[Any, list[Measure]] = {}
    for measure in chosen:
        groups.setdefault((measure.cost, measure.prepare), []).append(measure)
    taken: set[str] = set()
    for (cost, prepare), group in groups.items():
        parameters = inspect.signature(prepare).parameters.values()
        own = {parameter.name for parameter in parameters if parameter.kind == parameter.KEYWORD_ONLY}
        taken |= own
        yield cost, partial(prepare, **{name: options[name] for name in own & options.keys()}), group
    for name in options:
        if name not in taken:
            if taken:
                raise InputError(unknown("option", name, taken))
            raise InputError(f"option '{name}' is none of {', '.join(names)}: leave it out")


def _checked(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    left, right = matrix(x, "x"), matrix(y, "y")
    if len(left) != len(right):
        raise InputError(f"x has {len(left)} rows and y has {len(right)}: expected the same samples in the same order")
    if len(left) < 4:
        raise InputError(f"x and y have {len(left)} rows: expected at least 4 samples")
    for name, values in (("x", left), ("y", right)):
        if (values == values[0]).all():
            raise InputError(f"all rows of {name} are equal: there is nothing to compare")
    return left, right.to(left.device)


def _drawn(n: int, seed: int) -> Tensor | None:
    if n <= ROWS:
        return None
    return torch.from_numpy(np.sort(np.random.default_rng([seed, 2]).choice(n, ROWS, replace=False)))


def _parts(prepared: Prepared, n: int, seed: int, device: torch.device) -> Iterator[Prepared]:
    labels = random_groups(n, min(GROUPS, n), seed)
    for group in range(min(GROUPS, n)):
        yield prepared.without(torch.from_numpy(np.flatnonzero(labels == group)).to(device))


def _values(group: list[Measure], prepared: Iterable[Prepared]) -> NDArray[np.float64]:
    """(number of prepared, number of measures)."""
    return np.array([[measure.formula(pair) for measure in group] for pair in prepared])
