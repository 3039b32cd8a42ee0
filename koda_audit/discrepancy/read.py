"""How many of the directions are turned together, and the groups that are read off them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from koda_audit.discrepancy.choices import FEWEST, PRICED
from koda_audit.discrepancy.findings import MIN_STABILITY
from koda_audit.discrepancy.groups import Group, heaviest, members
from koda_audit.discrepancy.search import Search
from koda_audit.discrepancy.stability import (
    FIRST,
    MOST,
    Tested,
    may_hold_more,
    search_numbers,
    stable_groups,
    with_more_halves,
)


def read(found: Search, given: int | None, halves: int, bound: float = MIN_STABILITY) -> tuple[Search, Tested]:
    """The directions and how many of them are turned together: more are sought as long as the last ones add groups.

    Args:
        given: that many, if any.
        halves: on which groups are tested.
        bound: of the stability of a finding.
    """
    if _in_order(found):
        return found, Tested(found.columns.shape[1], np.eye(found.columns.shape[1]), np.empty((0, 0)))
    multiplier, seed = float(found.contrast.multiplier[0]), found.plan.seed
    number = None
    if given is not None or not halves:
        number = min(PRICED if given is None else given, found.columns.shape[1])
    tested = search_numbers(found.columns, found.pool, multiplier, halves, seed, number)
    most = min(MOST, found.sides.n // FEWEST)
    while number is None and (least := found.columns.shape[1]) < most:
        if not may_hold_more(tested, found.columns, found.pool, bound, seed):
            break
        more = found.with_columns(min(least + FIRST, most))
        again = search_numbers(more.columns, more.pool, multiplier, halves, seed, least=least)
        both = ((again, more), (tested, found))
        new, old = (stable_groups(each, of.columns, of.pool, bound) for each, of in both)
        if new <= old:
            break
        found, tested = more, again
    if halves:
        tested = with_more_halves(tested, found.columns, found.pool, multiplier, bound, seed)
    return found, tested


def groups_of(found: Search, tested: Tested) -> tuple[NDArray[np.float64], list[Group], list[int]]:
    """The columns (n, T) as they are read, the groups, and the column of each."""
    if _in_order(found):
        groups = heaviest(found.columns)
        return found.columns, groups, list(range(len(groups)))
    columns = found.columns[:, : tested.number] @ tested.turn
    each = members(columns)
    places = [place for place, group in enumerate(each) if group is not None]
    return columns, [group for group in each if group is not None], places


def _in_order(found: Search) -> bool:
    """Whether the directions were found one after the other, as KODA does."""
    return found.plan.block == 0 and found.plan.multiplier is None
