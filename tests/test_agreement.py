"""k-means against groups, those that one model holds apart and the other does not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from koda_audit.discrepancy.agreement import COLUMNS, group_agreement
from koda_audit.discrepancy.points import kernel_points

RANDOM = np.random.default_rng(0)
LABELS = np.repeat([0, 1, 2], 8)
CENTRES = 5 * RANDOM.normal(size=(3, 6))
APART = CENTRES[LABELS] + RANDOM.normal(size=(24, 6))
MIXED = RANDOM.normal(size=(24, 6))
MEMBERS = pd.DataFrame({"group": LABELS + 1, "row": np.arange(24)})


def sides(target, reference):
    return {
        role: {name: torch.from_numpy(values) for name in ("image", "text")}
        for role, values in (("target", target), ("reference", reference))
    }


def widths(kernel):
    return {role: {"image": 2.0, "text": 3.0} if kernel == "rbf" else {} for role in ("target", "reference")}


@pytest.mark.parametrize("kernel", ["rbf", "cosine", "polynomial"])
def test_groups_separate_where_the_model_holds_them_apart(kernel):
    found = group_agreement(kernel, sides(APART, MIXED), widths(kernel), MEMBERS).set_index(["model", "measure"])
    assert (found.loc["target"]["value"] > 0.7).all()
    assert (found.loc["reference"].loc[["AMI", "ARI"], "value"] < 0.2).all()
    assert set(found.n) == {24}
    assert set(found.k) == {3}


def test_values_are_those_of_ten_seeded_runs():
    found = group_agreement("rbf", sides(APART, MIXED), widths("rbf"), MEMBERS, seed=3)
    points = np.concatenate([MIXED / 2, MIXED / 3], axis=1)
    scores = [
        adjusted_rand_score(LABELS, KMeans(3, n_init=1, random_state=3 + run).fit_predict(points)) for run in range(10)
    ]
    row = found[(found.model == "reference") & (found.measure == "ARI")].iloc[0]
    assert row.value == pytest.approx(np.mean(scores))
    assert row["std"] == pytest.approx(np.std(scores, ddof=1))


def test_fewer_than_two_groups_have_no_agreement():
    for members in (MEMBERS.head(0), MEMBERS.head(8)):
        found = group_agreement("rbf", sides(APART, MIXED), widths("rbf"), members)
        assert found.empty
        assert tuple(found.columns) == COLUMNS


def test_samples_that_are_all_alike():
    same = np.ones((24, 6))
    found = group_agreement("cosine", sides(same, same), widths("cosine"), MEMBERS)
    assert (found.value == 0).all()


def test_a_sample_of_several_groups_counts_in_the_first():
    twice = MEMBERS.tail(8).assign(group=4)
    both = pd.concat([MEMBERS, twice], ignore_index=True)
    for kernel in ("rbf", "cosine"):
        given = (kernel, sides(APART, MIXED), widths(kernel))
        pd.testing.assert_frame_equal(group_agreement(*given, both), group_agreement(*given, MEMBERS))


def test_distances_of_points_are_those_of_the_kernel():
    points = kernel_points("rbf", sides(APART, MIXED)["target"], widths("rbf")["target"], np.arange(4))
    squares = ((APART[:4, None] - APART[:4]) ** 2).sum(axis=2)
    np.testing.assert_allclose(((points[:, None] - points) ** 2).sum(axis=2), squares / 4 + squares / 9, atol=1e-12)
