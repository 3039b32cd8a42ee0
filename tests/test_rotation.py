"""Directions turned by varimax: the same span, groups apart, and none with a certificate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koda_audit import Embeddings, find_discrepancies
from koda_audit.discrepancy.rotation import varimax
from koda_audit.errors import InputError

GROUPS = np.kron(np.eye(4), np.ones((5, 1))) / 5**0.5  # four groups of five samples


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_groups_that_were_mixed_come_apart(seed):
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(4, 4)))[0]
    found = varimax(GROUPS @ turn)
    np.testing.assert_allclose(np.sort((found.T @ GROUPS) ** 2, axis=1), np.sort(np.eye(4), axis=1), atol=1e-8)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_the_span_stays_and_no_single_turn_of_two_columns_does_better(seed, count):
    columns = np.linalg.qr(np.random.default_rng(seed).normal(size=(30, count)))[0]
    found = varimax(columns)
    np.testing.assert_allclose(found @ found.T, columns @ columns.T, atol=1e-10)

    def criterion(x):
        return (x**2).var(axis=0).sum()

    reached = criterion(found)
    assert reached >= criterion(columns) * (1 - 1e-9)
    for i in range(count - 1):
        for angle in (-0.05, 0.05):
            turned = found.copy()
            turned[:, i] = np.cos(angle) * found[:, i] + np.sin(angle) * found[:, i + 1]
            turned[:, i + 1] = np.cos(angle) * found[:, i + 1] - np.sin(angle) * found[:, i]
            assert criterion(turned) <= reached * (1 + 1e-9)


def test_directions_of_a_search_are_turned_within_their_span():
    random = np.random.default_rng(0)
    label = np.repeat(np.arange(8), 15)
    mine = 3 * random.normal(size=(8, 12))[label] + random.normal(size=(120, 12))
    other = mine.copy()
    other[label < 3] = 3 * random.normal(size=(45, 12))  # three groups of equal strength are lost
    given = {"modality": "image", "kernel": "cosine", "n_directions": 3, "halves": 6}
    plain, found = (
        find_discrepancies(Embeddings(mine), Embeddings(other), rotation=rotation, **given)
        for rotation in ("none", "varimax")
    )
    np.testing.assert_allclose(found.directions @ found.directions.T, plain.directions @ plain.directions.T, atol=1e-9)
    kernels = [x @ x.T / 120 for x in (model / np.linalg.norm(model, axis=1)[:, None] for model in (mine, other))]
    for kernel, role in zip(kernels, ("target", "reference"), strict=True):
        expected = np.einsum("it,ij,jt->t", found.directions, kernel, found.directions)
        by_direction = found.frame.drop_duplicates("direction")[f"coherence_{role}"]
        np.testing.assert_allclose(by_direction, expected, rtol=1e-9)
    assert found.frame[["duality_gap", "multiplier", "used_target", "epsilon"]].isna().all(axis=None)
    assert plain.frame[["duality_gap", "multiplier", "used_target", "epsilon"]].notna().all(axis=None)
    largest = found.frame.sort_values("excess").groupby("direction").tail(1)
    pure = [label[[int(i) for i in part.id]] for _, part in found.subsets.groupby(["direction", "lobe"])]
    groups = {int(np.bincount(part).argmax()) for part in pure if np.bincount(part).max() >= 0.9 * len(part)}
    assert {0, 1, 2} <= groups
    assert len(largest) == 3
    assert found.settings["rotation"] == "varimax"


def test_own_samples_are_in_one_lobe_each():
    random = np.random.default_rng(1)
    models = [Embeddings(random.normal(size=(60, 6))) for _ in range(2)]
    found = find_discrepancies(*models, modality="image", kernel="cosine", n_directions=4, halves=4)
    own = found.subsets[found.subsets.own]
    assert own.id.is_unique
    assert set(own.id) == set(found.subsets.id)
    counts = own.groupby(["direction", "lobe"]).size()
    for row in found.frame.itertuples():
        assert counts.get((row.direction, row.lobe), 0) == row.own


def test_an_unknown_rotation_names_the_known_ones():
    model = Embeddings(np.eye(5))
    with pytest.raises(InputError, match=r"unknown rotation 'varimx'.*varimax"):
        find_discrepancies(model, model, modality="image", rotation="varimx")
