"""A checked suite from a file, or all of its faults at once, each with its line and near matches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from koda_audit._yaml import Place, of_plain, read_yaml, shown, spot
from koda_audit.document import printable
from koda_audit.errors import InputError, KodaAuditError, unknown
from koda_audit.registry import tasks
from koda_audit.settings import Expected, sentence_of
from koda_audit.suite.asked import SECTIONS, section_of
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
        lines = [*others, *(f"{spot(self.path, line)}: {sentence}" for line, sentence in found)]
        if lines:
            raise SuiteError("\n".join(lines))

    @property
    def base(self) -> Path:
        """What relative paths are relative to."""
        return self.path.resolve().parent


def load_suite(suite: str | Path | Mapping[str, Any], allow_code: bool = False) -> Loaded:
    """Read and check a suite without importing torch.

    Args:
        suite: a YAML file, or its content; paths are relative to the file, or to the working folder.
        allow_code: whether models given as ``py:`` may run.

    Raises:
        SuiteError: everything that is wrong with it but for models and data that are not there; one line a fault.
    """
    if isinstance(suite, Mapping):
        path, written = Path("suite"), of_plain(dict(suite))
    else:
        path = Path(suite)
        if path.is_dir():
            raise SuiteError(f"{path} is a folder: name the suite's file in it")
        written = read_yaml(path)
    if not isinstance(written.value, dict):
        raise SuiteError(f"{path}:1: a suite is a mapping with the keys suite, models, datasets, …")
    value, found = _validated(written.value)
    if value is not None:
        found += faults_of(value, path.resolve().parent, allow_code)
    stopping = sorted({(written.line(fault.place), fault.sentence) for fault in found if not fault.absent})
    if stopping or value is None:
        raise SuiteError("\n".join(f"{spot(path, line)}: {printable(sentence)}" for line, sentence in stopping))
    missing = (replace(f, sentence=f"{spot(path, written.line(f.place))}: {printable(f.sentence)}") for f in found)
    return Loaded(path, value, written.sha256, tuple(missing), written.line, allow_code)


def _validated(value: dict[str, Any]) -> tuple[Suite | None, list[Fault]]:
    """The suite, without what is wrong with it as long as the rest makes sense, so that its names are checked too."""
    try:
        suite = Suite.model_validate(value)
        faults = _faults_of_tasks(suite)
        good = {
            name: section for name, section in suite.tasks.items() if name not in {fault.place[1] for fault in faults}
        }
        return suite.model_copy(update={"tasks": good}), faults
    except ValidationError as error:
        found = _described_faults(Suite, error, value)
    rest = copy.deepcopy(value)
    try:
        for place in sorted((fault.place for fault in found), key=len, reverse=True):
            _remove(rest, place)
        return Suite.model_validate({**rest, "tasks": {}}), found
    except (ValidationError, LookupError, TypeError):
        return None, found


def _described_faults(kind: type[BaseModel], error: ValidationError, value: Any, at: Place = ()) -> list[Fault]:
    """One fault a place, though each member of a union complains; ``at`` is where the value stands in the suite."""
    found: dict[Place, str] = {}
    for one in error.errors(include_url=False):
        place, sentence = _described(kind, one, value)
        found.setdefault((*at, *place), f"{shown((*at, *place))}: {sentence}" if (*at, *place) else sentence)
    return [Fault(place, sentence) for place, sentence in found.items()]


def _faults_of_tasks(suite: Suite) -> list[Fault]:
    """What is wrong with the sections of tasks that are no part of the schema."""
    found = []
    for name, values in suite.tasks.items():
        place = ("tasks", name)
        try:
            task = tasks().load(name)
            if task.needs.fit:
                raise InputError("is made of the host's options: say alignments and benchmark in place of it")
            if name in (SECTIONS.get(key) for key in suite.model_fields_set):
                raise InputError("has a section of its own in this suite: say it once")
            section_of(task).model_validate(values)
        except KodaAuditError as error:
            found.append(Fault(place, f"{shown(place)}: {error}"))
        except ValidationError as error:
            found += _described_faults(section_of(task), error, values, place)
    return found


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


def _described(root: type[BaseModel], error: Any, value: Any) -> tuple[Place, str]:
    """Where pydantic's error lies in the value of that type, and the sentence for it."""
    place: list[str | int] = []
    kind: Any = root
    described = None
    for part in error["loc"]:
        inside = part in value if isinstance(value, dict) else isinstance(value, list) and part in range(len(value))
        if not inside:
            break
        place.append(part)
        value = value[part]
        kind, expected = _within(kind, part)
        described = expected or described
    at = tuple(place)
    rest = error["loc"][len(place) :]
    name = error["type"]
    if name == "extra_forbidden":
        return at, _unknown_key(root, at)
    if name == "missing":
        return (*at, *rest), f"is missing{_meaning((*at, *rest))}"
    if rest and rest[0] == "[key]":
        return (*at,), error["msg"].removeprefix("Value error, ")
    if described:
        return _described_place(root, at), f"expected {described}"
    return at, sentence_of(error)


def _described_place(kind: Any, place: Place) -> Place:
    """The entry that says what is expected of it, not a value deep in it."""
    for depth, part in enumerate(place):
        kind, expected = _within(kind, part)
        if expected:
            return place[: depth + 1]
    return place


def _within(kind: Any, part: str | int) -> tuple[Any, str | None]:
    """The type of an entry of that type, and what is expected of it."""
    for choice in _choices(kind):
        if isinstance(choice, type) and issubclass(choice, BaseModel) and part in choice.model_fields:
            field = choice.model_fields[str(part)]
            return field.annotation, next((one for one in field.metadata if isinstance(one, Expected)), None)
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
