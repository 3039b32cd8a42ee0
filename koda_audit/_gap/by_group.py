"""The gap of each class, or other group of pairs, by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from koda_audit._gap.means import means
from koda_audit._gap.measured import first_order
from koda_audit._gap.sides import sides
from koda_audit._host_arrays import host_array
from koda_audit.errors import InputError


def modality_gap_by_group(image: Any, text: Any, labels: ArrayLike, *, normalize: bool = True) -> pd.DataFrame:
    """The first-order metrics of ``modality_gap`` for the pairs of each label.

    Args:
        image: (n, d).
        text: (n, d); row i belongs to image i.
        labels: (n,) numbers or names, none missing.
        normalize: divide rows by their length first.

    Returns:
        A row a label, in their order, under the index ``label``; ``n`` pairs, and a column a metric. nan where one pair
        is too few.

    Raises:
        InputError: as ``modality_gap``; widths that differ, or labels that do not fit.

    >>> frame = modality_gap_by_group([[1, 0], [0, 1], [1, 0]], [[1, 0], [0, -1], [1, 0]], ["cat", "dog", "cat"])
    >>> frame[["n", "raw_gap_rms"]].values.tolist()
    [[2.0, 0.0], [1.0, 2.0]]
    """
    checked = sides(image, text, normalize, paired=True)
    if not checked.comparable:
        raise InputError(f"image rows are {checked.image.shape[1]} wide, text rows {checked.text.shape[1]}: no gap")
    given = host_array(labels, "labels")
    # among texts numpy makes one of what is missing
    if given.shape != (len(checked.image),) or pd.isna(labels if isinstance(labels, list) else given).any():
        raise InputError(
            f"labels of shape {given.shape} for {len(checked.image)} pairs: expected one a pair, none missing"
        )
    if given.dtype.kind == "O" and len(kinds := {type(label).__name__ for label in given}) > 1:
        raise InputError(f"labels are of several types ({', '.join(sorted(kinds))}): expected names or numbers")
    units = checked if normalize else checked.directions()
    names, numbers = np.unique(given, return_inverse=True)
    rows = []
    for number in range(len(names)):
        members = np.flatnonzero(numbers == number)
        of_rows = means(checked.chosen(members, members))
        of_units = of_rows if units is checked else means(units.chosen(members, members))
        metrics = {key: value.item() for key, value in first_order(of_rows, of_units).items()}
        rows.append({"n": len(members), **metrics})
    return pd.DataFrame(rows, index=pd.Index(names, name="label"))
