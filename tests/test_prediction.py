"""How well the gap predicts a benchmark: against scikit-learn, and what R^2 and its interval must not depend on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

from koda_audit._stats.prediction import MIN_MODELS, MIN_POINTS, explained
from koda_audit.errors import InputError

FEW = {"draws": 200}


def points(seed: int, models: int = 7, each: int = 3, noise: float = 0.3) -> pd.DataFrame:
    """Alignments of a model share most of their deviation from the line."""
    random = np.random.default_rng(seed)
    model = np.repeat([f"m{number}" for number in range(models)], each)
    gap = random.normal(size=len(model))
    own = np.repeat(random.normal(size=models), each)
    return pd.DataFrame({"model": model, "gap": gap, "acc1": 2 * gap + noise * (own + random.normal(size=len(model)))})


def row(table: pd.DataFrame, **options) -> pd.Series:
    return explained(table, ["gap"], ["acc1"], **{**FEW, **options}).loc[0]


def fitted(table: pd.DataFrame) -> tuple[float, float]:
    line = LinearRegression().fit(table[["gap"]], table["acc1"])
    return line.score(table[["gap"]], table["acc1"]), line.coef_[0]


@pytest.mark.parametrize("noise", [0.0, 0.3, 3.0])
def test_r2_and_slope_are_those_of_scikit_learn(noise):
    table = points(1, noise=noise)
    np.testing.assert_allclose(row(table)[["r2", "slope"]].to_numpy(float), fitted(table), rtol=1e-10)


def test_interval_is_that_of_whole_models_drawn_again():
    """The oracle stacks the rows of drawn models and fits each stack anew."""
    table = points(2, models=5, each=4)
    found = row(table, draws=100, seed=3)
    names = table["model"].unique()
    counts = np.random.default_rng([3, 9]).multinomial(len(names), np.full(len(names), 1 / len(names)), 100)
    again = [
        fitted(pd.concat([table[table["model"] == name] for name in np.repeat(names, count)]))[0] for count in counts
    ]
    np.testing.assert_allclose([found["low"], found["high"]], np.quantile(again, [0.025, 0.975]), rtol=1e-10)


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100), st.floats(-10, 10), st.booleans())
@settings(max_examples=25, deadline=None)
def test_units_and_origin_of_either_side_change_the_slope_alone(seed, scale, shift, mirrored):
    table = points(seed)
    scale = -scale if mirrored else scale
    before, after = row(table), row(table.assign(gap=scale * table["gap"] + shift))
    same = ["r2", "low", "high", "n", "models"]
    np.testing.assert_allclose(after[same].to_numpy(float), before[same].to_numpy(float), rtol=1e-6)
    assert after["slope"] * scale == pytest.approx(before["slope"], rel=1e-6)
    swapped = explained(table, ["acc1"], ["gap"], **FEW).loc[0]
    assert swapped["r2"] == pytest.approx(before["r2"], rel=1e-9)
    assert swapped["slope"] * before["slope"] == pytest.approx(before["r2"], rel=1e-9)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_order_does_not_matter_and_the_interval_is_in_0_to_1(seed):
    table = points(seed, noise=2.0)
    found, shuffled = row(table), row(table.sample(frac=1, random_state=0))
    np.testing.assert_allclose(shuffled.iloc[2:].to_numpy(float), found.iloc[2:].to_numpy(float), rtol=1e-9)
    assert 0 <= found["low"] <= found["high"] <= 1 + 1e-12


def test_copies_of_points_add_no_certainty():
    """Seven copies of each point of a model are one model still: R^2 and interval stay."""
    one = points(4, models=9, each=1, noise=1.0)
    copied = one.loc[one.index.repeat(7)]
    same = ["r2", "slope", "low", "high", "models"]
    np.testing.assert_allclose(row(copied)[same].to_numpy(float), row(one)[same].to_numpy(float), rtol=1e-9)


@pytest.mark.parametrize(
    ("table", "known"),
    [
        (points(5, models=MIN_POINTS - 1, each=1), ()),
        (points(5, models=MIN_MODELS - 1, each=3), ("r2", "slope")),
        (points(5, models=MIN_POINTS, each=1), ("r2", "slope", "low", "high")),
        (points(5).assign(gap=0.1), ()),
        (points(5).assign(acc1=1e9), ()),
    ],
)
def test_what_is_too_little_is_nan(table, known):
    found = row(table)[["r2", "slope", "low", "high"]].astype(float)
    assert tuple(found.index[found.notna()]) == known
    assert (row(table)["n"], row(table)["models"]) == (len(table), table["model"].nunique())


def test_points_without_a_number_are_left_out():
    table = points(6)
    holes = table.assign(gap=table["gap"].where(table.index % 5 != 0))
    left = table[table.index % 5 != 0]
    assert row(holes)["r2"] == pytest.approx(fitted(left)[0])
    assert row(holes)["n"] == len(left)


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(InputError, match="no column rmg"):
        explained(points(7), ["gap", "rmg"], ["acc1"])


def test_same_seed_same_interval():
    assert row(points(8)).equals(row(points(8)))
    assert not row(points(8)).equals(row(points(8), seed=1))
