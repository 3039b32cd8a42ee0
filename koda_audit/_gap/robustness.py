"""How often noise on a gallery changes the nearest row of a query, and whether closing the gap helps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from koda_audit._arrays import matrix
from koda_audit._gap.sides import check_scale, unit_rows
from koda_audit._gap.translate import FARTHEST, METRICS, nearest_rows, orthogonal_gap, translated
from koda_audit._host_arrays import host_array
from koda_audit._options import finite_number, one_of, several, whole_number
from koda_audit.errors import InputError

NOISES = ("gaussian", "quantise", "perturbed")

Alphas = Sequence[float]
Trial = list[tuple[Tensor, Alphas]]  # rows, and by how much of g' they are still to be moved


@dataclass(frozen=True, eq=False)
class GapRobustness:
    """What ``gap_robustness`` measured.

    Attributes:
        frame: a row per alpha; see there.
        settings: what was asked for, and ``s``, ``rank``, ``gap`` ||g||, ``orthogonal_gap`` ||g'||, ``residual_gap``
            ||V V'g|| and ``movable``, False where g' = 0 and every alpha is the same.
        clean: (alphas, m) gallery row nearest to each query.
        noisy: (trials, alphas, m) the same under noise.
    """

    frame: pd.DataFrame
    settings: dict[str, Any]
    clean: NDArray[np.int32]
    noisy: NDArray[np.int32]

    def flips(self, alpha: float) -> pd.DataFrame:
        """The flip matrix without its zeros: how often answer ``clean`` became ``noisy``, over all queries and trials.

        Sorted by ``count``, largest first; answers that stayed are in it too.

        Raises:
            InputError: an alpha that was not measured.
        """
        measured = self.frame["alpha"].tolist()
        if alpha not in measured:
            raise InputError(f"alpha {alpha!r} was not measured: choose one of {measured}")
        noisy = self.noisy[:, measured.index(alpha)]
        clean = np.broadcast_to(self.clean[measured.index(alpha)], noisy.shape)
        pairs, counts = np.unique(np.stack([clean.ravel(), noisy.ravel()]), axis=1, return_counts=True)
        frame = pd.DataFrame({"clean": pairs[0], "noisy": pairs[1], "count": counts})
        return frame.sort_values("count", ascending=False, kind="stable", ignore_index=True)


def gap_robustness(
    gallery: Any,
    queries: Any,
    truth: Any = None,
    noise: str = "gaussian",
    total_var: float = 0.02,
    bins: int = 64,
    perturbed: Any = None,
    metric: str = "euclidean",
    alphas: Alphas = (0.0, 0.5, 1.0),
    rank: int | float | None = None,
    trials: int = 20,
    seed: int = 0,
    *,
    classes: Any = None,
    normalize: bool = True,
) -> GapRobustness:
    """Agreement of noisy with clean nearest rows (arXiv 2603.29080, equation 10) once a gallery X moved by alpha g'.

    Noise acts on X + alpha g', g' the gap orthogonal to X (``orthogonal_gap``); its draws are the same for all alphas.
    Agreement is with the model's own clean answer: a wrong answer that stays wrong counts as robust, so give ``truth``
    and read the accuracies beside it. Rows whose scores differ by rounding are tied, and the first of them is the
    nearest, clean and noisy alike.

    What is known of alpha:

    - Euclidean distance: at full rank, clean answers are the same for every alpha, exactly (``clean_kept`` is 1).
      Noise that is independent of alpha flips fewer answers the nearer X is to the queries. That distance is smallest
      on average at alpha = 1, and beyond it nothing is monotonic.
    - Dot products: a translation of X changes all scores of a query alike. No alpha has any effect, at any rank, on
      clean answers or on Gaussian or perturbed ones, exactly for the same draws; only a quantiser rounds other values.
    - Cosine: clean answers stay where rows have length 1 and the rank is full, since all moved rows then are of one
      length. With ``normalize=False`` or a lower rank nothing is promised, and under noise nothing is in any case.

    Args:
        gallery: (c, d) rows that are retrieved, e.g. class texts. Only these are noisy, and only these move.
        queries: (m, d), e.g. images.
        truth: (m,) whole numbers, the class of each query: its right gallery row unless ``classes`` says otherwise.
        noise: "gaussian": independent entries of variance s^2 = total_var/d; "quantise": entries become the middle of
            one of ``bins`` equal bins between the smallest and the largest entry of the moved gallery;
            "perturbed": rows are those of ``perturbed``, moved by the same alpha g', e.g. of other prompt templates.
        total_var: of "gaussian": expected squared length of a row's noise; 0 gives agreement 1. The paper leaves open
            whether its variance is that of a row or of an entry; at .04 an entry, agreement of CLIP is near chance.
        bins: of "quantise", at least 2.
        perturbed: (c, d), or a sequence of such arrays: a trial each.
        metric: "euclidean", "cosine" or "dot".
        alphas: how far to move, 1e6 at most; 0 is always measured. 1 closes all that can be closed.
        rank: of ``orthogonal_gap``.
        trials: draws of "gaussian"; a quantiser has one trial.
        seed: trial t draws from ``default_rng([seed, t])``.
        classes: (c,) class of each gallery row where several are right; agreement is about rows all the same.
        normalize: divide all rows by their length first.

    Returns:
        A frame with ``alpha``; ``gap``, the distance of the centroids then; ``clean_kept``, the share of clean answers
        that are those of alpha 0; ``agreement`` and ``agreement_gain``, the difference to alpha 0 in the same trials;
        with truth ``clean_accuracy``, ``noisy_accuracy`` and ``noisy_accuracy_gain``; of a quantiser ``range_low`` and
        ``range_high``. ``_se`` is the standard error over trials (nan for one), which leaves out the choice of queries.

    Raises:
        InputError: matrices that are not finite or of different width, rows of length 0 that need one, options out of
            range, ``perturbed`` of another shape, truth that is no class of the gallery.

    >>> rows, images = torch.eye(3)[:2], torch.tensor([[1.0, 0.2, 2.0], [0.4, 1.0, 2.0]])
    >>> found = gap_robustness(rows, images, truth=[0, 1], total_var=0.5, alphas=[1], trials=50)
    >>> found.frame[["alpha", "gap", "agreement", "clean_accuracy", "clean_kept"]].round(2).to_numpy().tolist()
    [[0.0, 0.94, 0.64, 1.0, 1.0], [1.0, 0.03, 0.76, 1.0, 1.0]]
    """
    alphas = check_settings(noise, metric, total_var, bins, trials, alphas)
    whole_number(seed, "seed")
    if (noise == "perturbed") != (perturbed is not None):
        raise InputError("perturbed and noise='perturbed' belong together: give both or neither")
    x, y = _rows(gallery, "gallery", normalize), _rows(queries, "queries", normalize)
    gap = orthogonal_gap(x, y, rank)
    y = _rows(y, "queries", metric == "cosine").to(x.device)  # a query's length changes no ranking of its cosines
    right = None if truth is None else _right(truth, classes, len(x), len(y))
    s = math.sqrt(total_var / x.shape[1])
    draws: Iterable[Trial]
    ranges: dict[str, list[float]] = {}
    if noise == "gaussian":
        draws = ([(x + s * _normal(x, [seed, trial]), alphas)] for trial in range(trials))
        options = {"total_var": total_var, "s": s, "seed": seed}
    elif noise == "quantise":  # what it rounds depends on alpha, so a product for each
        moved = [translated(x, gap.shift, alpha) for alpha in alphas]
        draws = [[(quantised(rows, bins), (0.0,)) for rows in moved]]
        ranges["range_low"] = [rows.min().item() for rows in moved]
        ranges["range_high"] = [rows.max().item() for rows in moved]
        options = {"bins": bins}
    else:
        draws = [[(rows, alphas)] for rows in _perturbed(perturbed, x, normalize)]
        options = {}

    clean = _answers([(x, alphas)], y, gap.shift, metric)
    noisy = np.stack([_answers(trial, y, gap.shift, metric) for trial in draws])
    base = alphas.index(0.0)
    columns: dict[str, Any] = {
        "alpha": alphas,
        "gap": [gap.remaining(alpha) for alpha in alphas],
        "clean_kept": (clean == clean[base]).mean(axis=1),
        **_over_trials("agreement", (noisy == clean).mean(axis=2), base),
    }
    if right is not None:
        columns["clean_accuracy"] = right(clean).mean(axis=1)
        columns |= _over_trials("noisy_accuracy", right(noisy).mean(axis=2), base)
    settings = {
        "noise": noise,
        **options,
        "trials": len(noisy),
        "metric": metric,
        "normalize": normalize,
        "n_gallery": len(x),
        "n_queries": len(y),
        "rank": gap.rank,
        "gap": gap.remaining(0.0),
        "orthogonal_gap": torch.linalg.vector_norm(gap.shift).item(),
        "residual_gap": gap.residual,
        "movable": gap.movable,
    }
    return GapRobustness(pd.DataFrame(columns | ranges), settings, clean, noisy)


def quantised(values: Tensor, bins: int) -> Tensor:
    """Each entry as the middle of its bin, of ``bins`` equal ones from the smallest to the largest entry.

    >>> quantised(torch.tensor([[0.0, 0.9], [2.2, 4.0]]), bins=2).tolist()
    [[1.0, 1.0], [3.0, 3.0]]
    """
    low, high = values.min(), values.max()
    width = (high - low) / bins
    if width == 0:  # all entries are equal: nothing to round
        return values
    return low + (((values - low) / width).floor().clamp(max=bins - 1) + 0.5) * width


def check_settings(noise: str, metric: str, total_var: float, bins: int, trials: int, alphas: Alphas) -> Alphas:
    """All alphas that ``gap_robustness`` measures with these, 0 among them, in order.

    Raises:
        InputError: it cannot work with these.

    >>> check_settings("gaussian", "euclidean", total_var=0.02, bins=64, trials=20, alphas=[1])
    [0.0, 1.0]
    """
    one_of(noise, "noise", NOISES)
    one_of(metric, "metric", METRICS)
    finite_number(total_var, "total_var", low=0)
    whole_number(bins, "bins", least=2)
    whole_number(trials, "trials", least=1)
    return sorted({0.0, *(finite_number(alpha, "alpha", -FARTHEST, FARTHEST) for alpha in several(alphas, "alphas"))})


def _answers(trial: Trial, queries: Tensor, shift: Tensor, metric: str) -> NDArray[np.int32]:
    return np.concatenate([nearest_rows(rows, queries, shift, alphas, metric) for rows, alphas in trial])


def _over_trials(name: str, values: NDArray[np.float64], base: int) -> dict[str, NDArray[np.float64]]:
    """Mean and standard error of (trials, alphas) values, and of their paired differences to column ``base``."""
    columns: dict[str, NDArray[np.float64]] = {}
    for key, part in ((name, values), (f"{name}_gain", values - values[:, [base]])):
        spread = part.std(axis=0, ddof=1) if len(part) > 1 else np.full(part.shape[1], np.nan)
        columns |= {key: part.mean(axis=0), f"{key}_se": spread / math.sqrt(len(part))}
    return columns


def _normal(like: Tensor, seed: list[int]) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(tuple(like.shape))).to(like.device)


def _rows(values: Any, name: str, normalize: bool) -> Tensor:
    rows = matrix(values, name)
    if normalize:
        return unit_rows(rows, name)
    check_scale(rows, name, zero=True)
    return rows


def _perturbed(perturbed: Any, gallery: Tensor, normalize: bool) -> list[Tensor]:
    arrays = [perturbed] if getattr(perturbed, "ndim", 3) == 2 else list(perturbed)
    found = []
    for number, values in enumerate(arrays):
        rows = _rows(values, f"perturbed array {number}", normalize).to(gallery.device)
        if rows.shape != gallery.shape:
            raise InputError(
                f"perturbed array {number} has shape {tuple(rows.shape)}: expected that of the gallery, "
                f"{tuple(gallery.shape)}"
            )
        found.append(rows)
    if not found:
        raise InputError("perturbed is empty: give at least one array of the gallery's shape")
    return found


def _right(truth: Any, classes: Any, rows: int, queries: int) -> Callable[[NDArray[np.int32]], NDArray[np.bool_]]:
    """What tells right answers, (..., m) gallery rows, from wrong ones."""
    wanted = _whole(truth, "truth", queries, "query")
    given = np.arange(rows) if classes is None else _whole(classes, "classes", rows, "gallery row")
    strange = ~np.isin(wanted, given)
    if strange.any():
        query = int(strange.argmax())
        raise InputError(
            f"truth of query {query} is {wanted[query]}: expected "
            + (f"a gallery row, 0 to {rows - 1}" if classes is None else "one of the classes of the gallery")
        )
    return lambda answers: given[answers] == wanted


def _whole(values: Any, name: str, count: int, of: str) -> NDArray[Any]:
    array = host_array(values, name)
    if array.shape != (count,) or array.dtype.kind not in "iu":
        raise InputError(
            f"{name} has shape {array.shape} and dtype {array.dtype}: expected ({count},), a whole number per {of}"
        )
    return array
