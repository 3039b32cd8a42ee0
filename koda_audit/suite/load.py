"""A checked suite from a file, or all of its faults at once, each with its line and near matches."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from koda_audit._yaml import Place, read_yaml, shown
from koda_audit.document import printable
from koda_audit.errors import InputError, unknown
from koda_audit.suite.checks import Fault, faults_of
from koda_audit.suite.schema import Suite


class SuiteError(InputError):
    """A suite that cannot be run: one line a fault."""


@dataclass(frozen=True)
class Loaded:
    """A suite that can be run. ``missing`` are models and data that are not where it says: their cells will fail."""

    path: Path
    suite: Suite
    sha256: str
    missing: tuple[Fault, ...]
    line: Callable[[Place], int]
    allow_code: bool  # whether code that comes with a model may run

    def refuse(self, faults: Iterable[Fault], others: Iterable[str] = ()) -> None:
        """Raises SuiteError for faults that were found later, if there are any; a line each, after ``others``."""
        found = sorted((self.line(fault.place), printable(fault.sentence)) for fault in faults)
        lines = [*others, *(f"{self.path}:{line}: {sentence}" for line, sentence in found)]
        if lines:
            raise SuiteError("\n".join(lines))

    @property
    def base(self) -> Path:
        """What relative paths are relative to."""
        return self.path.resolve().parent


def load_suite(path: str | Path, allow_code: bool = False) -> Loaded:
    """Read and check a suite without importing torch.

    Args:
        allow_code: whether models given as ``py:`` may run.

    Raises:
        SuiteError: everything that is wrong with it but for models and data that are not there; one line a fault.
    """
    path = Path(path)
    if path.is_dir():
        raise SuiteError(f"{path} is a folder: name the suite's file in it")
    written = read_yaml(path)
    if not isinstance(written.value, dict):
        raise SuiteError(f"{path}:1: a suite is a mapping with the keys suite, models, datasets, …")
    suite, found = _validated(written.value)
    if suite is not None:
        found += faults_of(suite, path.resolve().parent, allow_code)
    stopping = sorted({(written.line(fault.place), fault.sentence) for fault in found if not fault.absent})
    if stopping or suite is None:
        raise SuiteError("\n".join(f"{path}:{line}: {printable(sentence)}" for line, sentence in stopping))
    missing = (replace(f, sentence=f"{path}:{written.line(f.place)}: {printable(f.sentence)}") for f in found)
    return Loaded(path, suite, written.sha256, tuple(missing), written.line, allow_code)


def _validated(value: dict[str, Any]) -> tuple[Suite | None, list[Fault]]:
    """The suite, without what is wrong with it as long as the rest makes sense, so that its names are checked too."""
    try:
        return Suite.model_validate(value), []
    except ValidationError as error:
        described = [_described(one, value) for one in error.errors(include_url=False)]
    found: dict[Place, str] = {}  # one fault a place: each member of a union complains
    for place, sentence in described:
        found.setdefault(place, f"{shown(place)}: {sentence}" if place else sentence)
    faults = [Fault(place, sentence) for place, sentence in found.items()]
    rest = copy.deepcopy(value)
    try:
        for place in sorted(found, key=len, reverse=True):
            _remove(rest, place)
        return Suite.model_validate(rest), faults
    except (ValidationError, LookupError, TypeError):
        return None, faults


def _remove(value: Any, place: Place) -> None:
    index = next((depth for depth, part in enumerate(place) if isinstance(part, int)), len(place))
    place = place[:index]  # of a list all of it: what follows in it would have another number, and so another line
    if (len(place) < 2 and place not in (("gates",), ("published",))) or (
        len(place) == 2 and place[0] in ("models", "datasets", "alignments")
    ):
        raise LookupError  # others may speak of it
    for part in place[:-1]:
        value = value[part]
    value.pop(place[-1], None)


def _described(error: Any, value: Any) -> tuple[Place, str]:
    """Where pydantic's error lies in the file, and the sentence for it."""
    place: list[str | int] = []
    kind: Any = Suite
    described = None
    for part in error["loc"]:
        inside = part in value if isinstance(value, dict) else isinstance(value, list) and part in range(len(value))
        if not inside:
            break
        place.append(part)
        value = value[part]
        kind, description = _within(kind, part)
        described = description or described
    at = tuple(place)
    rest = error["loc"][len(place) :]
    name = error["type"]
    if name == "extra_forbidden":
        return at, _unknown_key(Suite, at)
    if name == "missing":
        return (*at, *rest), f"is missing{_meaning((*at, *rest))}"
    if rest and rest[0] == "[key]":
        return (*at,), error["msg"].removeprefix("Value error, ")
    if described:
        return _described_place(at), f"expected {described}"
    if name == "too_short" and not error["input"]:
        return at, "is empty: list at least one, or leave it out"
    context = error.get("ctx", {})
    if name == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"])
        given = error["input"]
        return at, unknown("value", given, choices) if isinstance(given, str) else f"expected {context['expected']}"
    message = error["msg"].removeprefix("Value error, ").replace("Input should be ", "expected ")
    message = message.replace("a valid dictionary or instance of", "a mapping with the keys of")
    shown = "" if isinstance(error["input"], (dict, list)) else f", found {str(error['input'])[:60]!r}"
    return at, f"{message}{shown}"


def _described_place(place: Place) -> Place:
    """The entry that has a description, not a value deep in it."""
    kind: Any = Suite
    for depth, part in enumerate(place):
        kind, description = _within(kind, part)
        if description:
            return place[: depth + 1]
    return place


def _within(kind: Any, part: str | int) -> tuple[Any, str | None]:
    """The type of an entry of that type, and its description."""
    for choice in _choices(kind):
        if isinstance(choice, type) and issubclass(choice, BaseModel) and part in choice.model_fields:
            field = choice.model_fields[str(part)]
            return field.annotation, field.description
        if get_origin(choice) in (dict, list):
            return get_args(choice)[-1], None
    return None, None


def _choices(kind: Any) -> Iterator[Any]:
    origin = get_origin(kind)
    if origin is None or origin in (dict, list):
        yield kind
        return
    for inner in get_args(kind):
        yield from _choices(inner)


def _unknown_key(root: type[BaseModel], place: Place) -> str:
    kind: Any = root
    for part in place[:-1]:
        kind, _ = _within(kind, part)
    known: Iterable[str] = next(
        (
            choice.model_fields
            for choice in _choices(kind)
            if isinstance(choice, type) and hasattr(choice, "model_fields")
        ),
        (),
    )
    return unknown("key", str(place[-1]), known)


def _meaning(place: Place) -> str:
    known = {"suite": ": give the suite a name", "models": ": name at least one", "datasets": ": name at least one"}
    known["source"] = ": say who published it, and where"
    return known.get(str(place[-1]), "")
