"""Figures of a comparison, as PNG files: groups as bars, spectra of both kernels, a map of the groups' samples."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from koda_audit.discrepancy.layout import Layout
from koda_audit.figures import COLOURS, FAINT, INK, drawn, legend, short

ROLE_COLOURS = MappingProxyType({"target": COLOURS[0], "reference": COLOURS[4]})
MARKERS = "os^D"  # with seven colours: 28 groups before any looks like another
WIDE = 300  # ratio of eigenvalues from which only powers of ten are named
FLOOR = "floor: an excess below this says nothing"


def group_bars(frame: pd.DataFrame, names: Mapping[str, str]) -> bytes:
    """The coherence of each group in both models, and what the target's must exceed to make it a finding.

    Args:
        frame: a row per group: ``group``, ``coherence_target``, ``coherence_reference``,
            ``floor`` (of the excess: target minus reference; nan where there is none) and ``finding`` (bool).
        names: "target" and "reference" -> what the model is called.

    Returns:
        A PNG file; the same bytes for the same input.

    >>> group = {"group": 1, "coherence_target": 0.02, "coherence_reference": 0.01}
    >>> group_bars(pd.DataFrame([{**group, "floor": 0.005, "finding": True}]), {"target": "a", "reference": "b"})[1:4]
    b'PNG'
    """
    ours, theirs = (short(names[role]) for role in ("target", "reference"))
    k, found = len(frame), int(frame["finding"].sum())
    room = 0.62 if k <= 6 else 0.48 if k <= 12 else 0.36  # inches a group
    verdict = "is a finding" if found == 1 else "are findings"
    title = f"{ours} against {theirs}: {found} of {k} group{'s' * (k != 1)} {verdict}"
    if found == k:
        title = f"{ours} against {theirs}: {k} finding{'s' * (k != 1)}"
    with drawn(1.9 + k * room, title, 1) as (figure, (axes,), stream):
        at = np.arange(k, dtype=float)
        bar = 0.36
        target, reference = (frame[f"coherence_{role}"].to_numpy(dtype=float) for role in ("target", "reference"))
        handles: list[Any] = [
            axes.barh(at - bar / 2, target, bar, color=ROLE_COLOURS["target"], label=f"in {ours}"),
            axes.barh(at + bar / 2, reference, bar, color=ROLE_COLOURS["reference"], label=f"in {theirs}"),
        ]
        floors = reference + frame["floor"].to_numpy(dtype=float)
        if np.isfinite(floors).any():
            axes.hlines(at, reference, floors, color=INK, linewidth=1.2)
            handles.append(axes.vlines(floors, at - bar, at + bar / 2, color=INK, linewidth=2, label=FLOOR))
        for place, value, limit, finding in zip(at, target, floors, frame["finding"], strict=True):
            if finding and found < k:
                end = np.nanmax([value, limit])
                axes.annotate("finding", (end, place - bar / 2), (6, 0), textcoords="offset points", va="center")
        axes.set_yticks(at, [f"group {number}" for number in frame["group"]])
        axes.set_ylim(k - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.margins(x=0.12)
        axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
        axes.set_xlabel("coherence of the group (0: none)")
        legend(figure, handles, 3 if len(ours) + len(theirs) < 20 else 1)
    return stream.getvalue()


def spectra(spectrum: pd.DataFrame, epsilon: float | None, names: Mapping[str, str]) -> bytes:
    """The largest eigenvalues of both kernels K/n, on a logarithmic scale, and epsilon.

    Args:
        spectrum: a row per eigenvalue, largest first; columns "target" and "reference". Eigenvalues that are not
            positive are left out.
        epsilon: what the reference was held to, or None.
        names: "target" and "reference" -> what the model is called.

    Returns:
        A PNG file; the same bytes for the same input.

    >>> spectrum = pd.DataFrame({"target": [0.2, 0.1], "reference": [0.2, 0.05]})
    >>> spectra(spectrum, 0.01, {"target": "a", "reference": "b"})[1:4]
    b'PNG'
    """
    shown = {role: short(names[role]) for role in ("target", "reference")}
    largest = [f"{spectrum[role].iloc[0]:.3g} in {name}" for role, name in shown.items()]
    with drawn(4.8, f"Largest eigenvalue of the kernel: {' and '.join(largest)}", 1) as (figure, (axes,), stream):
        ranks = np.arange(1, len(spectrum) + 1)
        for role, marker in (("target", "o"), ("reference", "s")):
            values = spectrum[role].where(spectrum[role] > 0).to_numpy(dtype=float)
            axes.plot(ranks, values, marker=marker, markersize=6, color=ROLE_COLOURS[role], label=shown[role])
        if epsilon is not None and epsilon > 0:
            label = f"ε = {epsilon:.3g}, mean of the leading directions in {shown['reference']}"
            axes.axhline(epsilon, color=INK, linestyle="--", linewidth=1.2, label=label)
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < WIDE * low else (1,)))
        axes.yaxis.set_major_formatter(FuncFormatter(_plain))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks([1, *range(5, len(spectrum) + 1, 5)] if len(spectrum) > 6 else ranks)
        axes.grid(axis="y", color=FAINT, linewidth=0.5)
        axes.set_xlabel("eigenvalue, largest first")
        legend(figure, axes.get_lines(), 1)
    return stream.getvalue()


def group_map(layout: Layout, names: Mapping[str, str]) -> bytes:
    """The samples of the groups in the plane under both models, side by side; a group has one colour and sign in both.

    Args:
        layout: from ``group_layout``.
        names: "target" and "reference" -> what the model is called.

    Returns:
        A PNG file; the same bytes for the same input.

    >>> places = np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> layout = Layout(("group 1",), np.array([-1, 0]), {"target": places, "reference": places})
    >>> group_map(layout, {"target": "a", "reference": "b"})[1:4]
    b'PNG'
    """
    title = "t-SNE of the groups' samples under each model: a picture, no evidence"
    with drawn(4.4 + 0.25 * -(-(len(layout.groups) + 1) // 5), title, 2) as (figure, both, stream):
        for axes, role in zip(both, ("target", "reference"), strict=True):
            handles: list[Any] = []
            places = layout.places[role]
            for number in range(-1, len(layout.groups)):
                x, y = places[layout.labels == number].T
                label = layout.groups[number] if number >= 0 else "other samples"
                dots = axes.scatter(x, y, label=label, linewidths=0.5, edgecolors="white", **_sign(number))
                handles.append(dots)
            axes.set_title(short(names[role]), loc="left")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(True)
        legend(figure, [*handles[1:], handles[0]], 5)
    return stream.getvalue()


def _sign(number: int) -> dict[str, Any]:
    """Colour and marker of a group; of no group for -1."""
    if number < 0:
        return {"color": FAINT, "marker": "o", "s": 18}
    colours = len(COLOURS)
    marker = MARKERS[number // colours % len(MARKERS)]
    return {"color": COLOURS[number % colours], "marker": marker, "s": 44, "zorder": 3}


def _plain(value: float, _: int) -> str:
    return f"{value:g}"
