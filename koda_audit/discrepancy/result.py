"""What ``find_discrepancies`` returns, and its files."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from koda_audit._arrays import Vectors
from koda_audit._files import atomic_write, write_csv, write_json
from koda_audit.errors import StoreError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 4  # findings in the short form
COLUMNS_SHOWN = ("group", "n", "finding", "stability", "separation", "retention", "excess", "theme")


@dataclass(frozen=True)
class Discrepancies:
    """Groups of samples that the target holds together and the reference does not.

    Coherences are x'(K/n)x with exact kernels: 1/n for a direction at random, at most the leading eigenvalue.

    Attributes:
        groups: a row a group, what matters most first. ``group`` counts from 1; ``n`` samples; ``stability`` with its
            ``stability_error``, ``floor``, ``verdict``, ``near`` (the bound) and ``finding``, see
            ``findings.verdicts``; ``fit``, see ``groups.Group``; ``separation`` and ``retention``, see ``Pool.apart``;
            ``coherence_target`` and ``coherence_reference`` of the group's part of its column, ``excess``, ``loss``,
            ``similarity_target`` and ``similarity_reference``, see ``findings.measures``; for the joint kernel the
            shares of ``shares.modality_shares``; ``theme``, words that stand in more of the group's captions than of
            the others' (share in the group, share of the others); ``accuracy_`` (or ``recall_at_5_``) of ``target`` and
            ``reference`` on the group, with ``_low`` and ``_high``; ``answers_target`` and ``answers_reference``, the
            classes that each model says most often there; and witnesses with their permutation p, see ``witness``.
        directions: (n, G) the turned column of each group, in the order of the target's ids.
        subsets: a row a sample of a group: ``group``, ``id``, ``weight``, ``rank`` from 1, ``finding`` of the group. A
            sample may lie in several groups.
        quality: a row per group, model and measure, and for the whole set, see ``quality.group_quality``.
        subspace: ``n_directions`` of the span that groups were read off, the mean coherence of its directions under
            the exact kernels (``coherence_target``, ``coherence_reference``) and under those it was found with
            (``used_target``, ``used_reference``), ``multiplier``, and ``duality_gap``, the most that a span of the same
            coherence in the reference could hold beyond it, a direction.
        bandwidths: model ("target", "reference") -> what the bandwidth rule chose and reached; empty for a kernel
            without one.
        spectrum: a row per eigenvalue, a column per model: the largest eigenvalues of K/n on the pool, at most 20.
        epsilon: what the mean coherence in the reference was held to, over the given number of directions or else the
            leading 8 (``settings["priced_directions"]``), which sets the price for all; None with a multiplier.
        settings: all that the numbers depend on besides the embeddings, in plain JSON types.
        vectors: "target" and "reference" -> modality -> (n, d), in the order of the target's ids.
        sigmas: the same of the kernels' widths; empty for a kernel without one.
    """

    groups: pd.DataFrame
    directions: NDArray[np.float64]
    subsets: pd.DataFrame
    quality: pd.DataFrame
    subspace: dict[str, float]
    bandwidths: dict[str, dict[str, Any]]
    spectrum: pd.DataFrame
    epsilon: float | None
    settings: dict[str, Any]
    vectors: Mapping[str, Mapping[str, Vectors]]
    sigmas: Mapping[str, Mapping[str, float]]

    @property
    def frame(self) -> pd.DataFrame:
        """The groups, as ``groups``."""
        return self.groups

    def __repr__(self) -> str:
        """The findings, in five lines at most."""
        found = self.groups[self.groups["finding"].astype(bool)]
        lines = [f"Discrepancies({self.settings['n']} samples: {len(found)} findings of {len(self.groups)} groups)"]
        for row in found.head(SHOWN).itertuples():
            theme = f", {row.theme}" if isinstance(row.theme, str) and row.theme else ""
            lines.append(f"  group {row.group}: {row.n} samples, stability {row.stability:.2f}{theme}")
        if len(found) > SHOWN:
            lines[-1] += f"; and {len(found) - SHOWN} more"
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The same with the picture, for a notebook."""
        picture = base64.b64encode(self._drawn()[1]).decode()
        shown = self.groups[[name for name in COLUMNS_SHOWN if name in self.groups]]
        figure = f'<img alt="coherence of each group" width="900" src="data:image/png;base64,{picture}">'
        return f"<pre>{html.escape(repr(self))}</pre>{shown.to_html(index=False)}{figure}"

    def plot(self) -> Figure:
        """How much each group coheres in either model, findings in full colour."""
        return self._drawn()[0]

    def _drawn(self) -> tuple[Figure, bytes]:
        from koda_audit.figures import COLOURS, drawn, legend

        groups = self.groups
        place = np.arange(len(groups))
        with drawn(1.6 + 0.35 * len(groups), "Coherence of each group in both models", 1) as (figure, (axes,), stream):
            handles = []
            for shift, side, colour in ((-0.2, "target", COLOURS[0]), (0.2, "reference", COLOURS[1])):
                values = groups[f"coherence_{side}"]
                bars = axes.barh(place + shift, values, 0.38, color=colour, label=side)
                for bar, finding in zip(bars, groups["finding"].astype(bool), strict=True):
                    bar.set_alpha(1.0 if finding else 0.35)
                handles.append(bars)
            axes.set_yticks(place, [f"{row.group} ({row.n})" for row in groups.itertuples()])
            axes.invert_yaxis()
            axes.set_xlabel("coherence x'(K/n)x; pale: no finding")
            axes.set_ylabel("group (samples)")
            legend(figure, handles, 2)
        return figure, stream.getvalue()

    def save(self, folder: str | Path) -> None:
        """Write directions.npy, groups.csv, subsets.csv, quality.csv and settings.json to ``folder``.

        Each file replaces an older one at once, or not at all.

        Raises:
            StoreError: the folder cannot be written.
        """
        folder = Path(folder)
        with atomic_write(folder / "directions.npy") as stream:
            np.save(stream, self.directions)
        for name, table in (("groups", self.groups), ("subsets", self.subsets), ("quality", self.quality)):
            write_csv(folder / f"{name}.csv", table)
        spectrum = {model: self.spectrum[model].tolist() for model in self.spectrum}
        more = {"subspace": self.subspace, "bandwidths": self.bandwidths, "spectrum": spectrum}
        write_json(folder / "settings.json", {**self.settings, **more})

    @classmethod
    def load(cls, folder: str | Path) -> Discrepancies:
        """What ``save`` wrote, without the embeddings' vectors and their kernels' widths, which it does not keep.

        Raises:
            StoreError: a file is missing or damaged.
        """
        folder = Path(folder)
        try:
            settings = json.loads((folder / "settings.json").read_text("utf-8"))
            more = {name: settings.pop(name) for name in ("subspace", "bandwidths")}
            spectrum = pd.DataFrame(settings.pop("spectrum"))
            directions = np.load(folder / "directions.npy", allow_pickle=False)
            groups, subsets, quality = (
                pd.read_csv(folder / f"{name}.csv", dtype={"id": str}) for name in ("groups", "subsets", "quality")
            )
        except (OSError, ValueError, LookupError, AttributeError) as error:
            raise StoreError(f"{folder} holds no whole discrepancies: {error}") from error
        return cls(groups, directions, subsets, quality, **more, spectrum=spectrum, epsilon=settings["epsilon"],
                   settings=settings, vectors={}, sigmas={})  # fmt: skip
