"""What a reader sees of koda_gap_robustness: agreement and accuracy while the gallery moves."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pandas as pd

from koda_audit._gap.robustness import GapRobustness
from koda_audit.document import Picture, Section
from koda_audit.embeddings.container import Embeddings
from koda_audit.figures import COLOURS, FAINT, INK, drawn, legend, short

FLIPS = 3  # named in the text

READING = (
    "*agreement* is the share of images whose nearest text stays the same under noise on the texts, 1 (all) to 0; a "
    "wrong answer that stays wrong counts too, so read the accuracies beside it, and *gain* says whether closing the "
    "gap helps."
)
MORE = (
    "The texts are moved by alpha times the part of the gap that is orthogonal to all of their differences, which "
    "changes no Euclidean ranking without noise: *clean_kept* is 1. At alpha 1 all of that part is closed. A gain "
    "counts where it is more than two standard errors (*se*, over trials) from 0."
)


def robustness_section(model: Embeddings, found: GapRobustness, gallery: str, flips: pd.DataFrame, end: str) -> Section:
    """``end`` tells it from the sections of other variances."""
    name = str(model.meta.get("model", "the model"))
    settings = found.settings
    size = f"{settings['n_queries']:,} images against {settings['n_gallery']:,} {gallery}"
    closes = (
        f"Of the gap of {settings['gap']:.3g}, {settings['residual_gap']:.3g} is left at alpha 1."
        if settings["movable"]
        else "Nothing of the gap is orthogonal to the texts, so nothing can be moved and every alpha is the same."
    )
    curve = partial(robustness_curve, found.frame, name, noise(settings))
    return Section(
        f"Robustness of {name} to noise on texts{f' of variance {end[1:]}' if end else ''}",
        f"{size}. {noise(settings)}. {READING} {MORE} {closes} `tables/flips.csv` counts which answer became which.",
        found.frame,
        pictures=(Picture(f"robustness{end}", f"Answers of {name} under noise", curve),),
    )


def noise(settings: Mapping[str, Any]) -> str:
    """In words.

    >>> noise({"noise": "quantise", "bins": 64})
    'Entries rounded to 64 bins'
    """
    if settings["noise"] == "quantise":
        return f"Entries rounded to {settings['bins']} bins"
    return f"Gaussian noise of total variance {settings['total_var']:g}, {settings['trials']} trials"


def robustness_curve(frame: pd.DataFrame, name: str, what: str) -> bytes:
    """Agreement over alpha, and beside it clean and noisy accuracy where they are known; bars are standard errors.

    Args:
        frame: of ``gap_robustness``.
        name: of the model.
        what: the noise in words.

    Returns:
        A PNG file; the same bytes for the same input.

    >>> frame = pd.DataFrame({"alpha": [0.0, 1.0], "agreement": [0.6, 0.7], "agreement_se": [0.01, 0.01]})
    >>> robustness_curve(frame, "a", "some noise")[1:4]
    b'PNG'
    """
    known = "clean_accuracy" in frame
    with drawn(4.4, f"{short(name)}: {what}", 1 + known) as (figure, panels, stream):
        alpha = frame["alpha"]
        style: dict[str, Any] = {"marker": "o", "markersize": 5, "capsize": 3}
        handles: list[Any] = [
            panels[0].errorbar(
                alpha, frame["agreement"], frame["agreement_se"], color=COLOURS[0], label="agreement", **style
            )
        ]
        panels[0].set_ylabel("agreement")
        if known:
            handles += panels[1].plot(
                alpha, frame["clean_accuracy"], color=INK, linestyle="--", label="accuracy without noise"
            )
            handles.append(
                panels[1].errorbar(
                    *(alpha, frame["noisy_accuracy"], frame["noisy_accuracy_se"]),
                    **style,
                    color=COLOURS[1],
                    label="accuracy under noise",
                )
            )
            panels[1].set_ylabel("accuracy")
        for axes in panels:
            axes.set_xlabel("alpha (0: as it is, 1: all that can be closed)")
            axes.grid(axis="y", color=FAINT, linewidth=0.5)
        legend(figure, handles, 3)
    return stream.getvalue()
