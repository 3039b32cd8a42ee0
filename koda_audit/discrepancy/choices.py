"""What is asked of find_discrepancies: whether it can be done, and how."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Real

import torch

from koda_audit._contrast.solve import check_settings
from koda_audit._kernels.bandwidth import TARGET
from koda_audit._kernels.table import KERNELS
from koda_audit._options import LARGEST, finite_number, one_of, whole_number
from koda_audit.discrepancy.memory import available_memory, check_memory
from koda_audit.discrepancy.paths import Plan, feature_width
from koda_audit.discrepancy.stability import FIRST, MOST
from koda_audit.embeddings.container import Embeddings, check_embeddings
from koda_audit.errors import InputError

FEATURES = ("auto", "exact", "random")
PRESETS = ("paper",)
N_FEATURES = 3000  # as in the paper
PAPER_QUANTILE = 0.5
PAPER_DIRECTIONS = 10
PRICED = 8  # directions that set the price of coherence in the reference, for every number of them
FEWEST = 4  # samples a direction where their number is not given
MOST_HALVES = 10_000
EXACT_UP_TO = 10_000  # samples, 4.5 GiB; above, the exact path is not chosen unless asked for


def plan(
    n: int,
    *,
    n_directions: int | None = None,
    kernel: str = "rbf",
    features: str = "auto",
    path: str = "auto",
    n_features: int = N_FEATURES,
    epsilon: float | None = None,
    epsilon_quantile: float | None = None,
    multiplier: float | None = None,
    preset: str | None = None,
    device: torch.device | None = None,
    seed: int = 0,
) -> Plan:
    """How ``find_discrepancies`` will do what its arguments ask of n samples.

    Raises:
        InputError: arguments that contradict each other, a value out of range, too few samples for it, not enough
            memory.

    >>> how = plan(100, n_directions=1)
    >>> how.path, how.epsilon, how.rule, how.n_directions
    ('dense', 0.02, '2/n', 1)
    >>> plan(100_000, preset="paper").quantile, plan(400).n_directions
    (0.5, 20)
    """
    check_settings(n, 0.0, 1 if n_directions is None else n_directions, None)
    columns, block = _columns(n, n_directions, preset)
    n_features = int(n_features)
    if KERNELS[kernel].has_bandwidth and n * TARGET <= 1:
        raise InputError(
            f"{n} samples are too few for the kernel '{kernel}': at least {int(1 / TARGET) + 1} are needed"
        )
    if preset is not None:
        clashes = {
            "epsilon": epsilon is not None,
            "multiplier": multiplier is not None,
            "features='exact'": features == "exact",
            "path='dense'": path == "dense",
        }
        found = [name for name, clash in clashes.items() if clash]
        if found:
            raise InputError(
                f"preset='{preset}' sets epsilon and takes random features: leave out {' and '.join(found)}"
            )
        features = "random"
        epsilon_quantile = PAPER_QUANTILE if epsilon_quantile is None else epsilon_quantile
    if epsilon_quantile is not None and (epsilon is not None or multiplier is not None):
        raise InputError("give one of epsilon, epsilon_quantile and multiplier")
    available = available_memory(device)
    width = feature_width(kernel, n_features)
    most = columns if n_directions is not None or preset is not None else min(MOST, n // FEWEST)
    few = n < width + most
    path = _path(n, few, features, path)
    rule = None if multiplier is not None else "given"
    if epsilon_quantile is not None:
        rule = _quantile_rule(n, path, epsilon_quantile, width // 2)
    elif epsilon is None and multiplier is None:
        epsilon, rule = 2 / n, "2/n"
        if path != "dense" and 1 / n_features > epsilon:
            epsilon, rule = 1 / n_features, "1/n_features"
    check_settings(n, 0.0 if epsilon_quantile is not None else epsilon, columns, multiplier)
    if path == "reduced" and few:
        raise InputError(
            f"path='reduced' with {width:,} columns needs at least {width + most:,} samples, and there are "
            f"{n:,}: take path='sample', which is the same problem, or fewer n_features"
        )
    check_memory(n, path, width, available, few)
    return Plan(
        path, epsilon, epsilon_quantile, multiplier, rule, columns, block, n_features, int(seed), preset is None
    )


def _columns(n: int, n_directions: int | None, preset: str | None) -> tuple[int, int]:
    if preset is not None:
        return PAPER_DIRECTIONS if n_directions is None else int(n_directions), 0
    if n_directions is not None:
        return int(n_directions), int(n_directions)
    columns = max(1, min(FIRST, n // FEWEST))
    return columns, min(PRICED, columns)


def check_choices(
    models: dict[str, Embeddings], names: Mapping[str, tuple[str, Iterable[str]]], **numbers: int
) -> None:
    for kind, (name, known) in names.items():
        one_of(name, kind, known)
    check_numbers(**numbers)
    for role, model in models.items():
        check_embeddings(model, f"the {role}")


def check_numbers(**numbers: int) -> None:
    """Raises InputError for a seed, or a number of features or of halves, that is none.

    >>> check_numbers(seed=0, n_features=1)
    """
    for name, number in numbers.items():
        least = 1 if name.endswith("n_features") else 0
        whole_number(number, name, least, MOST_HALVES if name.endswith("halves") else LARGEST)
        if name.endswith("halves") and number == 1:
            raise InputError(f"{name} is 1: give at least 2, whose spread is the error of a stability, or 0 for none")


def check_rule(floor: float | None, min_stability: float) -> None:
    """Raises InputError for a floor or a bound on stability that is none.

    >>> check_rule(floor=None, min_stability=0.75)
    """
    for name, number, most in (("floor", floor, math.inf), ("min_stability", min_stability, 1)):
        if name != "floor" or number is not None:
            finite_number(number, name, 0, most)


def _path(n: int, few: bool, features: str, path: str) -> str:
    """The path that ``features`` and ``path`` ask for, or the exact one for few samples, or the cheaper random one.

    ``few`` says that there are fewer samples than columns.
    """
    if path != "auto":
        if features != "auto" and (features == "exact") != (path == "dense"):
            raise InputError(
                f"features='{features}' cannot take path='{path}': exact features are dense, random ones are not"
            )
        return path
    if features == "exact" or (features == "auto" and n <= EXACT_UP_TO):
        return "dense"
    return "sample" if few else "reduced"


def _quantile_rule(n: int, path: str, quantile: float, width: int) -> str:
    if not isinstance(quantile, Real) or isinstance(quantile, bool) or not 0 <= quantile <= 1:
        raise InputError(f"epsilon_quantile is {quantile!r}: expected a number from 0 to 1")
    quantile = float(quantile)
    if path == "dense":
        return f"{quantile:g} quantile of the {n} eigenvalues of the reference's exact kernel matrix"
    if width - n >= 1 + (width - 1) * quantile:  # that many eigenvalues are 0
        raise InputError(
            f"the {quantile:g} quantile of the reference's {width:,} covariance eigenvalues is 0 with {n:,} samples, "
            f"and no direction has so little: take more than {(width - 1) * (1 - quantile):,.0f} samples, fewer "
            "n_features, or a larger epsilon_quantile"
        )
    return f"{quantile:g} quantile of the {width} eigenvalues of the reference's covariance"
