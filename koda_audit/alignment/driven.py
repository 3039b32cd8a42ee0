"""Training on what discrepancy analysis found: which samples, and what is left of the discrepancy on others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from koda_audit._arrays import OnDevice, chosen
from koda_audit._files import inert
from koda_audit._kernels.bandwidth import fit_bandwidth
from koda_audit._kernels.table import KERNELS, kernel_blocks
from koda_audit.discrepancy.findings import measures
from koda_audit.discrepancy.pool import drawn
from koda_audit.embeddings.container import Embeddings
from koda_audit.errors import InputError

FEWEST = 2  # members of a group on either side; a single one has no pair


def split_members(subsets: pd.DataFrame, share: float = 0.5, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Members to train on, and members of the same groups that are held out.

    Args:
        subsets: ``Discrepancies.subsets``, or some of its rows, such as those of findings. A sample of several groups
            counts in the first.
        share: of each group that is held out, at random; groups with fewer than 2 on either side are left out.

    Raises:
        InputError: no group is left.

    >>> members = pd.DataFrame({"group": 1, "id": list("abcd"), "weight": 0.5})
    >>> train, held = split_members(members)
    >>> len(train), len(held), sorted([*train.id, *held.id])
    (2, 2, ['a', 'b', 'c', 'd'])
    """
    random = np.random.default_rng(seed)
    parts: tuple[list[pd.DataFrame], list[pd.DataFrame]] = ([], [])
    for _, group in subsets.drop_duplicates("id").groupby("group", sort=False):
        count = round(share * len(group))
        if FEWEST <= count <= len(group) - FEWEST:
            held = np.zeros(len(group), dtype=bool)
            held[random.permutation(len(group))[:count]] = True
            parts[0].append(group[~held])
            parts[1].append(group[held])
    if not parts[0]:
        raise InputError(f"no group has {FEWEST} members to train on and {FEWEST} to hold out: find larger ones")
    return pd.concat(parts[0]), pd.concat(parts[1])


def read_members(path: str | Path) -> pd.DataFrame:
    """Rows of a subset that was written as CSV, at least the column ``id``, which stays text.

    Of a table with the column ``finding`` those of findings alone: what is none is not worth training on.

    Raises:
        InputError: a file that cannot be read, or holds no samples, or none of a finding.
    """
    try:
        members = pd.read_csv(path, dtype={"id": str}, keep_default_na=False)
    except (OSError, ValueError) as error:  # pandas' own errors and wrong encodings are ValueErrors
        raise InputError(f"{path} cannot be read as a table of members: {error}") from error
    if "id" not in members or members.empty:
        raise InputError(f"{path} names no samples: expected a CSV with a column id and a row a sample")
    if "finding" in members:
        members = members[members["finding"].astype(str) == "True"]
        if members.empty:
            raise InputError(f"no group of {path} is a finding: leave it out, or leave out its column finding")
    return members


def member_rows(members: pd.DataFrame, ids: Sequence[str]) -> NDArray[np.int64]:
    """Rows of the members in ``ids``, in their order: the ``focus`` of an alignment.

    Raises:
        InputError: a member that is not there.

    >>> member_rows(pd.DataFrame({"id": ["c", "'-a"]}), ["-a", "b", "c"]).tolist()
    [2, 0]
    """
    row_of = {inert(sample): row for row, sample in enumerate(ids)}  # as a CSV of ours has them
    row_of |= {sample: row for row, sample in enumerate(ids)}
    missing = [sample for sample in members["id"] if sample not in row_of]
    if missing:
        raise InputError(f"{len(missing)} members are not among these samples (first: {missing[0]})")
    return np.array([row_of[sample] for sample in members["id"]], dtype=np.int64)


def discrepancy_of(
    members: pd.DataFrame, target: Embeddings, reference: Embeddings, kernel: str = "rbf", seed: int = 0
) -> pd.DataFrame:
    """What the target's images hold together of each group and the reference's do not; before and after an alignment of
    the reference.

    Args:
        members: a row per sample, such as those held out: ``group``, ``id``, ``weight``.
        target, reference: the same samples; widths are set as ``find_discrepancies`` sets them.
        seed: as there.

    Returns:
        A row per group: ``group``, ``n`` and the ``findings.measures``.

    Raises:
        InputError: a member that is not there. DataError: sample ids that differ.

    >>> random = np.random.default_rng(0)
    >>> other = random.normal(size=(40, 4))
    >>> mine = other.copy()
    >>> mine[:4] = mine[0] + 0.01 * random.normal(size=(4, 4))
    >>> members = pd.DataFrame({"group": 1, "id": list("0123"), "weight": 0.5})
    >>> bool(discrepancy_of(members, Embeddings(mine), Embeddings(other)).excess[0] > 0.05)
    True
    """
    sides, pool = [], torch.from_numpy(drawn(target.ids, seed))
    for model in (target, reference.aligned_to(target.ids)):
        vectors = {"image": OnDevice(model.image, torch.device("cpu"))}
        sigmas = fit_bandwidth(chosen(vectors, pool), seed=seed).sigmas if KERNELS[kernel].has_bandwidth else {}
        sides.append(kernel_blocks(kernel, vectors, sigmas))
    rows = []
    for group, part in members.groupby("group", sort=False):
        measured = measures(member_rows(part, target.ids), part["weight"].to_numpy(), *sides)
        rows.append({"group": group, "n": len(part), **measured})
    return pd.DataFrame(rows)
