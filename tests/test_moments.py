"""Moments against NumPy, over random shardings and orders, with the stated error of float32 products."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from koda_audit._moments import symmetric
from koda_audit._moments.moments import PRODUCT_ROWS, Moments
from koda_audit.errors import InputError, StoreError

RANDOM = np.random.default_rng(0)
ROWS = torch.from_numpy(RANDOM.standard_normal((200, 30)) * 10.0 ** RANDOM.integers(-3, 4, 30) + 2)
WHOLE = Moments.of([ROWS])


@pytest.fixture(autouse=True)
def narrow_strips(monkeypatch):
    monkeypatch.setattr(symmetric, "STRIP", 7)  # 30 columns: four strips and a rest


def assert_close(moments, expected=WHOLE, precision=1e-10):
    assert moments.count == expected.count
    for name in ("total", "cross"):
        ours, theirs = getattr(moments, name), getattr(expected, name)
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=0, atol=precision * theirs.abs().max().item())
    assert torch.equal(moments.cross, moments.cross.T)


def test_against_numpy():
    rows = ROWS.numpy()
    assert_close(
        Moments.of([ROWS]), Moments(200, torch.from_numpy(rows.sum(0)), torch.from_numpy(rows.T @ rows)), 1e-14
    )


@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(0, 200), max_size=8), shards=st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_order_and_sharding_do_not_matter(seed, cuts, shards):
    """Rows shuffled, cut into chunks (some empty), dealt to shards, each shard streamed, and merged from the right."""
    random = np.random.default_rng(seed)
    chunks = [ROWS[rows] for rows in np.split(random.permutation(200), sorted(cuts))]
    parts = [Moments.of(dealt) for shard in range(shards) if (dealt := chunks[shard::shards])]
    merged = Moments.zero(30)
    for part in reversed(parts):
        merged = part.merge(merged)
    assert_close(merged)


@given(cuts=st.lists(st.integers(0, 200), max_size=4))
@settings(deadline=None, max_examples=20)
def test_updates_are_the_same_as_a_stream(cuts):
    moments = Moments.zero(30)
    for rows in np.split(np.arange(200), sorted(cuts)):
        moments = moments.update(ROWS[rows])
    assert_close(moments)


@pytest.mark.parametrize("width", [1, 6, 7, 8, 14, 30])
def test_every_width_of_the_last_strip(width):
    rows = ROWS[:, :width]
    assert_close(Moments.of(rows.split(60)), Moments(200, rows.sum(0), rows.T @ rows), 1e-14)


def test_values_do_not_change_once_made():
    moments, rows = Moments.of([ROWS]), ROWS.clone()
    before = moments.total.clone(), moments.cross.clone()
    moments.update(ROWS)
    moments.merge(moments)
    Moments.of([ROWS, ROWS])
    assert torch.equal(moments.total, before[0])
    assert torch.equal(moments.cross, before[1])
    assert torch.equal(ROWS, rows)
    with pytest.raises(AttributeError):
        moments.count = 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_float32_products_stay_within_the_stated_error(dtype):
    """Entries of one sign and size, where sums lose most; more rows than one product has."""
    rows = torch.from_numpy(RANDOM.uniform(0.9, 1.1, (3 * PRODUCT_ROWS + 5, 30))).to(dtype)
    exact = Moments.of([rows])
    error = (Moments.of(rows.split(5000), torch.float32).cross - exact.cross).abs()
    diagonal = exact.cross.diagonal()
    assert (error <= 2.5e-4 * torch.sqrt(torch.outer(diagonal, diagonal))).all()
    assert error.max() < 1e-5 * diagonal.max()
    roundings = (PRODUCT_ROWS + 2) * 2.0**-24
    assert roundings / (1 - roundings) < 2.5e-4


def test_float32_rows_lose_nothing_with_float64_products():
    rows = ROWS.to(torch.float32)
    assert_close(Moments.of([rows]), Moments.of([rows.double()]), 1e-15)


def test_float32_products_with_fewer_digits_are_refused(monkeypatch):
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    with pytest.raises(InputError, match="float32 products may have fewer digits in this process"):
        Moments.of([ROWS], torch.float32)
    Moments.of([ROWS])


def test_a_stream_holds_one_matrix(monkeypatch):
    """Made once, and handed out as it is."""
    made = []
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *shape, **form: made.append(zeros(*shape, **form)) or made[-1])
    moments = Moments.of(ROWS.split(10))
    assert [tuple(tensor.shape) for tensor in made] == [(30,), (30, 30)]
    assert moments.cross.data_ptr() == made[1].data_ptr()


def test_saved_and_loaded(tmp_path):
    WHOLE.save(tmp_path / "new" / "moments.safetensors")
    loaded = Moments.load(tmp_path / "new" / "moments.safetensors")
    assert_close(loaded, precision=0)
    assert_close(loaded.merge(Moments.zero(30)))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["moments.safetensors"]


def test_files_that_hold_no_moments(tmp_path):
    path = tmp_path / "m.safetensors"
    with pytest.raises(StoreError, match=r"cannot read moments from .*: No such file"):
        Moments.load(path)
    path.write_bytes(b"not a file of tensors")
    with pytest.raises(StoreError, match="cannot read moments from"):
        Moments.load(path)
    save_file({"count": torch.tensor(1)}, path)
    with pytest.raises(StoreError, match="holds no moments: its format is None"):
        Moments.load(path)
    bad = {"count": torch.tensor(1), "total": torch.zeros(3).double(), "cross": torch.zeros(2, 2).double()}
    save_file(bad, path, metadata={"koda_audit": "moments 1"})
    with pytest.raises(StoreError, match=r"shapes \(\(3,\), \(2, 2\)\): expected \(D,\) and \(D, D\)"):
        Moments.load(path)
    save_file({"count": torch.tensor(1)}, path, metadata={"koda_audit": "moments 1"})
    with pytest.raises(StoreError, match=r"cannot read moments from .*total"):
        Moments.load(path)


WRONG = [
    ([], "no rows: expected at least one chunk"),
    ([torch.ones(2, 3), torch.ones(2, 4)], r"chunk 2 has shape \(2, 4\): expected \(rows, 3\)"),
    (torch.ones(2, 3), r"chunk 1 has shape \(3,\): expected \(rows, columns\)"),
    ([torch.ones(2, 3), torch.tensor([[0, float("nan"), 1]])], "chunk 2 holds a value that is not finite"),
    ([torch.tensor([[1e200]], dtype=torch.float64)], "or whose square is not"),
]


@pytest.mark.parametrize(("chunks", "message"), WRONG)
def test_bad_input_in_one_sentence(chunks, message):
    with pytest.raises(InputError, match=message):
        Moments.of(chunks)


def test_moments_that_do_not_fit():
    with pytest.raises(InputError, match="moments of width 30 and 2 cannot be merged"):
        WHOLE.merge(Moments.zero(2))
    with pytest.raises(InputError, match=r"products are torch.float16: expected torch.float64 or torch.float32"):
        WHOLE.update(ROWS, torch.float16)
    with pytest.raises(InputError, match=r"expected torch\.float64"):
        Moments(1, torch.zeros(2), torch.zeros(2, 2))
