"""What is asked of find_discrepancies: whether it can be done, and by which path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Integral

from koda_audit._contrast.solve import check_settings
from koda_audit.discrepancy.memory import available_memory, check_memory, dense_fits
from koda_audit.discrepancy.paths import feature_width
from koda_audit.embeddings.container import Embeddings
from koda_audit.errors import InputError, unknown

FEATURES = ("auto", "exact", "random")
N_FEATURES = 3000  # as in the paper
EXACT_UP_TO = 20_000  # samples; above, the exact path is not chosen unless asked for


def check_size(
    n: int,
    epsilon: float | None,
    n_directions: int,
    multiplier: float | None = None,
    path: str = "dense",
    kernel: str = "rbf",
    n_features: int = N_FEATURES,
) -> float | None:
    """Whether ``n`` samples are enough, and few enough for the memory of the path; returns epsilon or its default.

    Raises:
        InputError: too few samples, a value out of range, not enough memory.
    """
    level = epsilon
    if epsilon is None and multiplier is None:
        level = 2 / n if path == "dense" else max(2 / n, 1 / n_features)
    check_settings(n, level, n_directions, multiplier)
    check_memory(n, path, feature_width(kernel, n_features), available_memory())
    return level


def check_choices(
    models: dict[str, Embeddings], names: Mapping[str, tuple[str, Iterable[str]]], **numbers: int
) -> None:
    for kind, (name, known) in names.items():
        if name not in known:
            raise InputError(unknown(kind, str(name), known))
    for name, number in numbers.items():
        least = 1 if name == "n_features" else 0
        if not isinstance(number, Integral) or isinstance(number, bool) or number < least:
            raise InputError(f"{name} is {number!r}: expected a whole number from {least}")
    for role, model in models.items():
        if not isinstance(model, Embeddings):
            raise InputError(f"the {role} is of type {type(model).__name__}: expected koda_audit.Embeddings")


def choose_path(n: int, kernel: str, features: str, path: str, n_features: int) -> str:
    """The path that ``features`` and ``path`` ask for, or else the exact one where it fits, or the cheaper random one.

    Raises:
        InputError: they contradict each other.

    >>> choose_path(100, "rbf", "random", "auto", 3000), choose_path(100_000, "rbf", "random", "auto", 3000)
    ('sample', 'reduced')
    """
    if path != "auto":
        if features != "auto" and (features == "exact") != (path == "dense"):
            raise InputError(
                f"features='{features}' cannot take path='{path}': exact features are dense, random ones are not"
            )
        return path
    if features == "exact" or (features == "auto" and n <= EXACT_UP_TO and dense_fits(n, available_memory())):
        return "dense"
    return "reduced" if n >= feature_width(kernel, n_features) else "sample"
