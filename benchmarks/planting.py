"""Sets of two models' vectors where it is known which groups the reference lost, a kind each.

Lost groups: their vectors say nothing in the reference, or only a part of what they say in the target ("strengths").
The other groups are in both, in the reference rotated and with noise of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import COLUMNS, Planted, planted, planted_in_clip
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Made = tuple[Planted, list[str]]  # and what tells each lost group from the others: its size, or its strength
GROUPS = 16
LOST = (0.10, 0.05, 0.03, 0.03, 0.01)
SIZES = (0.05, 0.03, 0.02, 0.01)
NOISE, NULL_NOISE = (0.4, 0.6, 0.8, 1.0), (0.4, 0.7, 1.0, 1.5)  # of the distance between centres, set by set
STRENGTHS = (0.0, 0.25, 0.5, 0.75)
LEVELS, CELL = 8, 480  # of each of two factors, and the samples that have them
MANY = 0.01  # share of each of many lost groups
OTHERS = 12  # groups that are not lost, beside many that are


@dataclass(frozen=True)
class Kind:
    """``make`` takes a seed and the folder of fixtures; ``sets`` are made by default and ``full`` for acceptance."""

    make: Callable[[int, Path | None], Made]
    n: int
    sets: int
    full: int
    lost: bool = True
    fixtures: bool = False


def two_views(
    seed: int,
    _: Path | None,
    n: int = 500,
    lost: Sequence[float] = LOST,
    stream: int = 9,
    noises: Sequence[float] = NOISE,
    groups: int = GROUPS,
    strengths: Sequence[float] | None = None,
) -> Made:
    """Centres and, turned, the same centres; noise is drawn for each view.

    Args:
        lost: shares of the samples.
        strengths: how much of the inner products within each lost group the reference keeps; by default nothing.
    """
    random = np.random.default_rng([seed, stream])
    noise = noises[seed % len(noises)]
    sizes = [round(share * n) for share in lost]
    shares = np.geomspace(0.01, 0.10, groups - len(lost))
    rest = random.multinomial(n - sum(sizes), shares / shares.sum())
    label = random.permutation(np.repeat(np.arange(groups), [*sizes, *rest]))
    gone = label < len(lost)
    kept_of = np.array(strengths or [0.0] * len(lost))[label[gone], None]
    views: dict[str, list[torch.Tensor]] = {"target": [], "reference": []}
    for columns in COLUMNS.values():
        centres = random.standard_normal((groups, columns))
        turned = centres @ np.linalg.qr(random.standard_normal((columns, columns)))[0]
        held, kept = (c[label] + noise * random.standard_normal((n, columns)) for c in (centres, turned))
        nothing = np.hypot(1, noise) * random.standard_normal((gone.sum(), columns))
        kept[gone] = kept_of**0.5 * kept[gone] + (1 - kept_of) ** 0.5 * nothing
        views["target"].append(torch.from_numpy(held))
        views["reference"].append(torch.from_numpy(kept))
    names = [f"keeps {s:g}" for s in strengths] if strengths else [f"{share:.0%}" for share in lost]
    return _made(views, [np.flatnonzero(label == group) for group in range(len(lost))]), names


def factors(seed: int, _: Path | None) -> Made:
    """Each sample has a level of each of three factors of 8 levels, of which the reference knows one."""
    random = np.random.default_rng([seed, 3])
    label = np.stack([random.permutation(np.arange(CELL) % LEVELS) for _ in range(3)])
    views: dict[str, list[torch.Tensor]] = {"target": [], "reference": []}
    for columns in COLUMNS.values():
        centres = random.standard_normal((3, LEVELS, columns))
        levels = centres[np.arange(3)[:, None], label]
        noise = NOISE[seed % 4] * random.standard_normal((2, CELL, columns))
        nothing = 2**0.5 * random.standard_normal((CELL, columns))
        views["target"].append(torch.from_numpy(levels.sum(axis=0) + noise[0]))
        views["reference"].append(torch.from_numpy(levels[2] + nothing + noise[1]))
    lost = [np.flatnonzero(label[factor] == level) for factor in range(2) for level in range(LEVELS)]
    return _made(views, lost), ["level"] * len(lost)


def gaussians(seed: int, _: Path | None) -> Made:
    """Two models that know nothing, neither of the samples nor of one another."""
    random = np.random.default_rng([seed, 1])
    views = {
        role: [torch.from_numpy(random.standard_normal((500, columns))) for columns in COLUMNS.values()]
        for role in ("target", "reference")
    }
    return _made(views, []), []


def noisy_clip(seed: int, folder: Path | None) -> Made:
    """Real features with two draws of noise, of a quarter to the whole of their own spread."""
    random = np.random.default_rng([seed, 5])
    features = _clip(folder)
    spread = (1 + seed % 4) / 4 * features.std(axis=1, keepdims=True)
    views = {
        role: [torch.from_numpy(part) for part in features + spread * random.standard_normal(features.shape)]
        for role in ("target", "reference")
    }
    return _made(views, []), []


def half_columns(seed: int, folder: Path | None) -> Made:
    """Two halves of the columns of real features: which half makes no difference."""
    features = _clip(folder)
    order = np.random.default_rng([seed, 6]).permutation(features.shape[2])
    halves = (order[::2], order[1::2])
    views = {
        role: [torch.from_numpy(part[:, half].copy()) for part in features]
        for role, half in zip(("target", "reference"), halves, strict=True)
    }
    return _made(views, []), []


def _clip(folder: Path | None) -> Floats:
    assert folder is not None
    features: Floats = np.load(folder / "features_clip.npy").astype(np.float64)
    return features


def _made(views: dict[str, list[torch.Tensor]], lost: list[NDArray[np.int64]]) -> Planted:
    target, reference = (dict(zip(COLUMNS, views[role], strict=True)) for role in ("target", "reference"))
    return Planted(target, reference, lost)


def _in_clip(seed: int, folder: Path | None) -> Made:
    assert folder is not None
    made = planted_in_clip(folder, seed)
    return made, ["3%"] * len(made.lost)


def _planted(seed: int, _: Path | None) -> Made:
    made = planted(2000, seed)
    return made, [f"rank {1 + 5 * rank}" for rank in range(len(made.lost))]


def _many(count: int) -> Kind:
    make = partial(two_views, n=8000, lost=(MANY,) * count, stream=7, groups=count + OTHERS)
    return Kind(make, 8000, 0, 20)


def _sizes(n: int, sets: int, full: int) -> Kind:
    return Kind(partial(two_views, n=n, lost=SIZES, stream=8), n, sets, full)


KINDS: dict[str, Kind] = {
    "null": Kind(partial(two_views, lost=(), stream=4, noises=NULL_NOISE), 500, 3, 200, lost=False),
    "gaussians": Kind(gaussians, 500, 3, 60, lost=False),
    "noisy-clip": Kind(noisy_clip, 500, 3, 60, lost=False, fixtures=True),
    "half-columns": Kind(half_columns, 500, 3, 60, lost=False, fixtures=True),
    "synthetic": Kind(two_views, 500, 2, 20),
    "clip": Kind(_in_clip, 500, 2, 20, fixtures=True),
    "n-300": Kind(partial(two_views, n=300), 300, 2, 40),
    "strengths": Kind(partial(two_views, lost=(0.04,) * 4, stream=10, strengths=STRENGTHS), 500, 2, 40),
    "factors": Kind(factors, CELL, 2, 20),
    "sizes-500": _sizes(500, 2, 40),
    "sizes-2000": _sizes(2000, 1, 20),
    "sizes-8000": _sizes(8000, 0, 20),
    "planted": Kind(_planted, 2000, 1, 20),
    **{f"many-{count}": _many(count) for count in (3, 8, 20, 40)},
}
