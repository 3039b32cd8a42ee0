"""Intervals, p-values, which samples count, measures of other packages, and what is refused."""

from __future__ import annotations

import configparser
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from scipy.stats import ortho_group

from koda_audit._similarity import measure as module
from koda_audit._similarity.matrices import gaussian_matrices
from koda_audit._similarity.measure import DEFAULT, MEASURES, similarity
from koda_audit._similarity.protocol import Measure, Rows, Sides
from koda_audit._stats.jackknife import jackknife_interval, random_groups
from koda_audit._stats.permutation import permutation_p_value, random_orders
from koda_audit.errors import InputError, PluginError
from koda_audit.registry import Registry, measures

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(60, 5)) + 1
Y = X[:, :3] + RANDOM.normal(size=(60, 3))
WIDE = RANDOM.normal(size=(60, 80)) + X[:, :1]


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("y", [Y, WIDE])
def test_permuted_and_left_out_samples_are_what_a_new_computation_gives(name, y):
    """Nothing that is kept from the first computation changes a digit."""
    if name in ("svcca", "pwcca") and y is WIDE:
        pytest.skip("more columns than samples")
    measure = MEASURES[name]
    x, y = torch.from_numpy(X), torch.from_numpy(y)
    prepared = measure.prepare(x, y)
    order = torch.from_numpy(next(random_orders(60, 1, seed=4)))
    assert measure.formula(prepared.permuted(order)) == pytest.approx(
        measure.formula(measure.prepare(x, y[order])), abs=1e-11
    )
    rows = torch.tensor([3, 8, 55])
    rest = torch.from_numpy(np.delete(np.arange(60), rows.numpy()))
    expected = measure.formula(measure.prepare(x[rest], y[rest]))
    # the Gaussian's width is the one of all samples
    assert measure.formula(prepared.without(rows)) == pytest.approx(expected, abs=5e-3 if name == "cka_rbf" else 1e-11)


def test_a_gaussian_keeps_its_width_when_samples_are_left_out():
    x, y = torch.from_numpy(X), torch.from_numpy(Y)
    rest = gaussian_matrices(x, y).without(torch.arange(10)).left.values
    gram = np.exp(-((X[:, None] - X) ** 2).sum(axis=2) / 2 / np.median(stats_distances(X)) ** 2)[10:, 10:]
    expected = gram - gram.mean(axis=0) - gram.mean(axis=1)[:, None] + gram.mean()
    assert rest.numpy() == pytest.approx(expected, abs=1e-12)


def stats_distances(values):
    return np.linalg.norm(values[:, None] - values, axis=2)[np.triu_indices(len(values), 1)]


def test_the_interval_is_the_jackknife_over_random_groups():
    found = similarity(X, Y, ["cka_linear", "mutual_knn"], interval=True, seed=3)
    labels = random_groups(60, seed=3)
    for name, row in found.iterrows():
        rest = [similarity(X[labels != g], Y[labels != g], name)["value"].item() for g in range(20)]
        assert (row["low"], row["high"]) == pytest.approx(jackknife_interval(row["value"], rest), abs=1e-12)


def test_the_interval_covers_the_expected_value():
    """x and y share a signal as large as their noise: CKA of the population is 1/4."""
    covered = 0
    for seed in range(60):
        random = np.random.default_rng([7, seed])
        signal = random.normal(size=(200, 4))
        x, y = (signal + random.normal(size=(200, 4)) for _ in range(2))
        found = similarity(x, y, "cka_linear_debiased", interval=True, seed=seed).iloc[0]
        covered += found["low"] <= 0.25 <= found["high"]
    assert covered >= 52  # 95 % of 60 is 57; fewer than 52 has a chance of 1 %


def test_p_values():
    null = similarity(X, Y, permutations=19, seed=2)
    assert (null["null_mean"] < null["value"]).all()
    copy = X @ ortho_group.rvs(5, random_state=0) * 3 - 1
    names = [name for name in MEASURES if name != "rsa"]
    assert (similarity(X, copy, names, permutations=39)["p_value"] == 1 / 40).all()
    assert similarity(X, X[:, ::-1], "rsa", permutations=39)["p_value"].item() == 1 / 40


def test_p_values_are_uniform_where_nothing_belongs_together():
    random = np.random.default_rng(11)
    found = [similarity(*random.normal(size=(2, 24, 3)), permutations=19, seed=s)["p_value"] for s in range(80)]
    found = pd.DataFrame(found)
    assert list(found) == list(DEFAULT)
    for name in set(DEFAULT) - {"mutual_knn"}:  # that one has few values, and ties
        assert stats.kstest(found[name] - 1 / 40, "uniform").pvalue > 0.01, name
    assert (found <= 0.1).mean().between(0.0, 0.2).all()
    assert found["mutual_knn"].mean() >= 0.45


@pytest.mark.parametrize(("higher", "expected"), [(True, 4 / 6), (False, 5 / 6)])
def test_ties_count_as_extreme_and_rounding_breaks_none(higher, expected):
    assert permutation_p_value(2.0, [2 - 1e-15, 2 + 1e-15, 3.0, 1.0, 0.0], higher) == expected


def test_the_null_mean_is_that_of_the_permuted_rows():
    found = similarity(X, Y, "rsa", permutations=5, seed=9)["null_mean"].item()
    expected = [similarity(X, Y[order], "rsa")["value"].item() for order in random_orders(60, 5, seed=9)]
    assert found == pytest.approx(np.mean(expected), abs=1e-12)


def test_what_was_not_asked_for_is_nan_and_seeds_decide():
    plain = similarity(X, Y)
    assert plain.index.tolist() == list(DEFAULT)
    assert plain[["low", "high", "p_value", "null_mean"]].isna().all(axis=None)
    assert (plain["n"] == 60).all()
    assert (plain["rows"] == "all").all()
    both = [similarity(X, Y, interval=True, permutations=9, seed=seed) for seed in (1, 1, 2)]
    pd.testing.assert_frame_equal(both[0], both[1], check_exact=True)
    assert (both[0]["low"] != both[2]["low"]).all()


def test_pairwise_measures_take_a_sample_above_their_limit(monkeypatch):
    monkeypatch.setattr(module, "ROWS", 40)
    found = similarity(X, Y, ["rsa", "cka_linear", "mutual_knn"], interval=True, permutations=3, seed=5)
    assert found["n"].to_dict() == {"rsa": 40, "cka_linear": 60, "mutual_knn": 40}
    assert found["rows"].to_dict() == {
        "rsa": "40 of 60, drawn with seed 5",
        "cka_linear": "all",
        "mutual_knn": "40 of 60, drawn with seed 5",
    }
    rows = np.sort(np.random.default_rng([5, 2]).choice(60, 40, replace=False))
    monkeypatch.undo()
    assert found["value"]["rsa"] == similarity(X[rows], Y[rows], "rsa")["value"].item()


def test_measures_that_are_prepared_alike_are_prepared_once(monkeypatch):
    counts = []

    def prepare(x, y):
        counts.append(len(x))
        return Sides(Rows(x), Rows(y))

    first = replace(MEASURES["rsa"], name="first", prepare=prepare, formula=lambda pair: float(pair.right.values[0, 0]))
    second = replace(first, name="second", higher_is_similar=False)
    found = similarity(X, Y, [first, second], permutations=4, interval=True)
    assert counts == [60]
    assert found["value"].tolist() == [Y[0, 0]] * 2
    draws = [Y[order[0], 0] for order in random_orders(60, 4)]
    assert found["p_value"].tolist() == [(1 + np.sum(draws >= Y[0, 0])) / 5, (1 + np.sum(draws <= Y[0, 0])) / 5]


PLUGIN = """
import torch
from koda_audit._similarity.protocol import Measure, Rows, Sides

def prepare(x, y, *, power=1):
    return Sides(Rows(x ** power), Rows(y ** power))

def formula(pair):
    return float((pair.left.values[:, 0] - pair.right.values[:, 0]).abs().mean())

first_column = Measure("first_column", "distance of first columns", "none", 0.0, None, False, (), "moments",
                       prepare, formula)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that makes a distribution importable: its name, its module's source, its entry points."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(distribution, source, entries):
        name = distribution.replace("-", "_")
        if source is not None:
            (tmp_path / f"{name}.py").write_text(source)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[koda_audit.measures]\n" + entries + "\n")
        monkeypatch.delitem(sys.modules, name, raising=False)

    return make


def fresh():
    known = measures()
    return Registry(known.group, known.kind, known.attributes, known.protocol)


def test_a_measure_of_another_package(package):
    package("sim-good", PLUGIN, "first_column = sim_good:first_column")
    found = similarity(X, X[:, :2] + 0.25, ["first_column", "cka_linear"], permutations=19, power=1)
    assert found["value"]["first_column"] == pytest.approx(0.25)
    assert found["p_value"]["first_column"] == 0.05  # small is similar
    with pytest.raises(InputError, match="unknown measure 'first_colum': did you mean 'first_column'"):
        similarity(X, Y, "first_colum")
    with pytest.raises(InputError, match="unknown option 'powr': did you mean 'power'"):
        similarity(X, Y, "first_column", powr=2)


def test_a_measure_that_lacks_something_says_where_to_look(package):
    package("sim-bad", "bad = object()\n", "sim_bad_one = sim_bad:bad")
    with pytest.raises(PluginError, match=r"sim-bad.* has no name, meaning.*_similarity/protocol.py"):
        similarity(X, Y, "sim_bad_one")


def test_ours_are_registered_as_a_third_party_registers_one(package):
    config = configparser.ConfigParser()
    config.read(Path(__file__).parents[1] / "setup.cfg")
    package("koda-audit", None, config["options.entry_points"]["koda_audit.measures"])
    registry = fresh()
    assert registry.names() == sorted(MEASURES)
    assert registry.problems() == {}
    assert all(registry.load(name) is measure for name, measure in MEASURES.items())
    assert all(isinstance(measure, Measure) for measure in MEASURES.values())


BAD_ROW = np.where(np.arange(60)[:, None] == 7, 2.0, X)
WIDER = np.random.default_rng(1).normal(size=(60, 5_000))
NAN = np.where(np.arange(60)[:, None] == 7, np.nan, X)


@pytest.mark.parametrize(
    ("x", "y", "asked", "message"),
    [
        (X, Y[:-1], {}, "x has 60 rows and y has 59"),
        (X[:3], Y[:3], {}, "have 3 rows: expected at least 4 samples"),
        (np.ones((9, 2)), Y[:9], {}, "all rows of x are equal"),
        (X[:9], np.zeros((9, 2)), {}, "all rows of y are equal"),
        (NAN, Y, {}, r"x is not finite: entry \(7, 0\)"),
        (X, Y.astype(complex), {}, "y has dtype complex128: expected real numbers"),
        (X.astype(object), Y, {}, "x has dtype object: expected real numbers"),
        (X[:, 0], Y, {}, r"x has shape \(60,\): expected \(rows, columns\)"),
        (X, Y, {"measures": "cka_liner"}, "unknown measure 'cka_liner': did you mean 'cka_linear'"),
        (X, Y, {"measures": []}, "expected at least one"),
        (X, Y, {"measures": ["rsa", "rsa"]}, "none twice"),
        (X, Y, {"kk": 3}, "unknown option 'kk'"),
        (X, Y, {"measures": "rsa", "k": 3}, "option 'k' is none of rsa"),
        (X, Y, {"k": 60}, "k is 60, and 60 samples are left: neighbours are 1 to 59"),
        (X, Y, {"k": 0}, "k is 0"),
        (X, Y, {"k": 2.5}, "k is 2.5: expected a whole number"),
        (X, Y, {"k": 58, "interval": True}, "k is 58, and 57 samples are left"),
        (X, Y, {"permutations": -1}, "permutations is -1"),
        (X, Y, {"permutations": True}, "permutations is True"),
        (BAD_ROW, Y, {"measures": "rsa"}, "row 7 of x is the same in all columns"),
        (np.eye(60), Y, {"measures": "cka_linear_debiased"}, "rows of x are equal or equally far apart"),
        (X, np.eye(60), {"measures": "rsa"}, "all pairs of rows of y are equally far apart"),
        (
            X[:4],
            Y[:4],
            {"measures": "cka_linear_debiased", "interval": True},
            "4 samples, and 5 for an interval: 3 are",
        ),
        (np.eye(60)[:, :1], Y, {"measures": "cka_linear", "interval": True}, "all rows of x, or all but those"),
        (
            np.eye(60)[:, :1],
            Y,
            {"measures": "cka_rbf", "interval": True},
            "rows of x are equally far apart, or all but",
        ),
        (WIDER, Y, {"measures": "svcca"}, "svcca needs more samples: 60, and x has 59 components"),
        (Y, WIDE, {"measures": "pwcca"}, "pwcca needs more samples: 60, and y has so many columns"),
    ],
)
def test_one_sentence_for_bad_input(x, y, asked, message):
    with pytest.raises(InputError, match=message):
        similarity(x, y, **asked)
