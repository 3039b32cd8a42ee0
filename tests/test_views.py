"""Figures: what they are given they show, whatever the names; the same input gives the same file."""

from __future__ import annotations

import io
import subprocess
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from koda_audit import figures as koda_figures
from koda_audit.discrepancy import layout as layouts
from koda_audit.discrepancy import views
from koda_audit.discrepancy.layout import group_layout
from koda_audit.discrepancy.views import group_bars, group_map, spectra

NAMES = {"target": "a_b $x_1$ $", "reference": r"\frac{ <b>&amp; 标题 " + "long " * 30}
RANDOM = np.random.default_rng(0)
VECTORS = {
    role: {"image": torch.from_numpy(RANDOM.normal(size=(120, 5))), "text": torch.ones(120, 2)}
    for role in ("target", "reference")
}
SIGMAS = {role: {"image": 1.0, "text": 1.0} for role in VECTORS}
NONE = {role: {} for role in VECTORS}


def members(k):
    """Samples of k groups; every second sample lies in two."""
    return pd.DataFrame({"group": np.repeat(np.arange(k), 4) + 1, "row": np.arange(4 * k) * 2 % 100})


def bars(k):
    return pd.DataFrame(
        {
            "group": np.arange(k) + 1,
            "coherence_target": RANDOM.random(k),
            "coherence_reference": 0.2,
            "floor": 0.1,
            "finding": np.arange(k) % 2 == 0,
        }
    )


def spectrum(n):
    return pd.DataFrame({"target": 0.5 ** np.arange(n), "reference": 0.4 ** np.arange(n)})


def texts(monkeypatch, draw, *arguments):
    """Every text of a figure."""
    figures = []
    monkeypatch.setattr(koda_figures, "Figure", lambda **options: figures.append(Figure(**options)) or figures[-1])
    draw(*arguments)
    (figure,) = figures
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def figures(k):
    layout = group_layout("rbf", VECTORS, SIGMAS, members(k))
    return {
        "bars": group_bars(bars(k), NAMES),
        "spectra": spectra(spectrum(k), 0.01, NAMES),
        "map": group_map(layout, NAMES),
    }


@pytest.mark.parametrize("k", [1, 4, 30])
def test_pictures_are_as_wide_as_they_should_be(k):
    for name, png in figures(k).items():
        with Image.open(io.BytesIO(png)) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert picture.width == 1350, name
            assert 300 < picture.height < 2200
            assert not set(picture.info) & {"Software", "Creation Time"}


def test_the_same_input_gives_the_same_bytes_in_any_style():
    layout = group_layout("rbf", VECTORS, SIGMAS, members(3))
    frame = bars(3)

    def drawn():
        return group_bars(frame, NAMES), spectra(spectrum(5), None, NAMES), group_map(layout, NAMES)

    plain = drawn()
    with matplotlib.rc_context({"font.size": 30, "text.parse_math": True, "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        assert drawn() == plain
        assert dict(matplotlib.rcParams) == before


def test_names_are_drawn_as_they_are(monkeypatch):
    shown = texts(monkeypatch, group_bars, bars(2), {"target": "$x_1$", "reference": "a" * 20 + "\n\x1b" + "b" * 40})
    assert "in $x_1$" in shown
    assert f"in {'a' * 15}…{'b' * 16}" in shown
    assert sum("1 of 2 groups is a finding" in text for text in shown) == 1


def test_bars_name_groups_findings_and_the_floor(monkeypatch):
    shown = texts(monkeypatch, group_bars, bars(4), {"target": "a", "reference": "b"})
    assert shown.count("finding") == 2
    assert {"group 1", "group 2", "group 3", "group 4", views.FLOOR} <= set(shown)
    without = bars(4).assign(floor=np.nan, finding=False)
    shown = texts(monkeypatch, group_bars, without, {"target": "a", "reference": "b"})
    assert views.FLOOR not in shown
    assert "a against b: 0 of 4 groups are findings" in shown
    assert group_bars(bars(0), NAMES)[1:4] == b"PNG"
    every = texts(monkeypatch, group_bars, bars(3).assign(finding=True), {"target": "a", "reference": "b"})
    assert "a against b: 3 findings" in every
    assert "finding" not in every  # all are, so none is marked


def test_spectra_with_eigenvalues_that_have_no_logarithm(monkeypatch):
    values = pd.DataFrame({"target": [0.5, 0.1, 0.0], "reference": [0.15, 1e-9, -1e-18]})
    shown = texts(monkeypatch, spectra, values, 0.02, {"target": "a", "reference": "b"})
    assert "Largest eigenvalue of the kernel: 0.5 in a and 0.15 in b" in shown
    assert "ε = 0.02, mean of the leading directions in b" in shown
    assert not any("ε" in text for text in texts(monkeypatch, spectra, values, None, NAMES))


def test_a_map_says_that_it_is_no_evidence(monkeypatch):
    shown = texts(monkeypatch, group_map, group_layout("cosine", VECTORS, NONE, members(2)), NAMES)
    assert any("no evidence" in text for text in shown)
    assert {"group 1", "group 2", "other samples"} <= set(shown)


def test_samples_of_a_layout(monkeypatch):
    monkeypatch.setattr(layouts, "MOST", 40)
    monkeypatch.setattr(layouts, "OTHERS", 10)
    # the second group shares five samples with the first, which shows them
    given = pd.DataFrame({"group": np.repeat([3, 1], 40), "row": [*range(40), *range(35, 75)]})
    seen = []

    def kept(kernel, vectors, sigmas, rows):
        seen.append(rows)
        return RANDOM.normal(size=(len(rows), 3))

    monkeypatch.setattr(layouts, "kernel_points", kept)
    layout = group_layout("rbf", VECTORS, SIGMAS, given)
    assert layout.groups == ("group 3", "group 1")  # in the order in which they stand
    assert np.bincount(layout.labels + 1).tolist() == [10, 15, 15]
    assert (seen[0][10:] == [*range(15), *range(40, 55)]).all()
    assert (seen[0][:10] >= 75).all()
    np.testing.assert_array_equal(seen[0], seen[1])


def test_a_layout_keeps_neighbours_and_is_the_same_every_time():
    centres = np.repeat([0, 1], 30)[:, None] * [9.0, 0, 0]
    points = torch.from_numpy(centres + RANDOM.normal(size=(60, 3)))
    vectors = {"target": {"image": points}, "reference": {"image": points[RANDOM.permutation(60)]}}
    given = pd.DataFrame({"group": np.repeat([1, 2], 30), "row": np.arange(60)})
    first, second = (group_layout("rbf", vectors, SIGMAS, given).places for _ in range(2))
    for role in vectors:
        np.testing.assert_array_equal(first[role], second[role])
    gap = first["target"][:, None] - first["target"]
    distances = np.hypot(*gap.T) + np.diag([np.inf] * 60)
    assert (distances.argmin(axis=0) // 30 == np.arange(60) // 30).all()


def test_too_little_for_a_layout():
    assert group_layout("rbf", VECTORS, SIGMAS, members(0)) is None
    few = {role: {"image": torch.eye(3)} for role in VECTORS}
    assert group_layout("cosine", few, NONE, members(1).head(1)) is None
    same = {role: {"image": torch.ones(9, 2)} for role in VECTORS}
    assert np.isfinite(group_layout("cosine", same, NONE, members(1)).places["target"]).all()


def test_pyplot_stays_out_of_it():
    code = "import sys, koda_audit.discrepancy.views; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
