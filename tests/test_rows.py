"""Vectors in parts behave as the array that they would make."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from koda_audit.embeddings.rows import Rows
from koda_audit.errors import InputError

WHOLE = np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)
INDEX = st.one_of(
    st.slices(12),
    st.lists(st.integers(-12, 11)),
    st.integers(-12, 11),
    st.lists(st.booleans(), min_size=12, max_size=12),
)


@given(cuts=st.lists(st.integers(0, 12), max_size=4), seed=st.none() | st.integers(0, 99), key=INDEX)
def test_every_index_as_in_numpy(cuts: list[int], seed: int | None, key: object) -> None:
    rows, whole = Rows(np.split(WHOLE, sorted(cuts))), WHOLE
    if seed is not None:
        for _ in range(2):
            order = np.random.default_rng(seed).integers(0, len(whole), 12)
            rows, whole = rows.take(order), whole[order]
    key = np.array(key, dtype=np.int64) if key == [] else np.array(key) if isinstance(key, list) else key
    np.testing.assert_array_equal(rows[key], whole[key])
    assert (rows.shape, rows.ndim, rows.dtype, len(rows)) == (whole.shape, 2, whole.dtype, 12)


def test_used_as_an_array() -> None:
    rows = Rows([WHOLE[:5], WHOLE[5:]])
    for ours in (rows, rows.take(np.arange(12))):
        np.testing.assert_array_equal(ours @ np.ones(3), WHOLE @ np.ones(3))
        np.testing.assert_array_equal(np.linalg.norm(ours, axis=1), np.linalg.norm(WHOLE, axis=1))
        np.testing.assert_array_equal(ours[:, 1], WHOLE[:, 1])
        assert torch.equal(torch.as_tensor(ours), torch.from_numpy(WHOLE))
    with pytest.raises(IndexError, match="rows 3 to 12 of 12"):
        rows[[3, 12]]


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(InputError, match=r"one width, found 3 columns \(part 0\), 2 columns \(part 1\)"):
        Rows([WHOLE, WHOLE[:, :2]])
    with pytest.raises(InputError, match="rows to take must be numbers from 0 to 11"):
        Rows([WHOLE]).take(np.array([12]))
    rows = Rows([WHOLE])
    assert rows[1, 2] == WHOLE[1, 2]
    with pytest.raises(TypeError):
        rows += 1
