"""One registry for everything a third party can add: entry points, loaded only when asked for.

A package adds a task by the entry-point group ``clip_benchmark.tasks``, a measure of similarity by
``koda_audit.measures``, a post-hoc alignment by ``koda_audit.alignments``; ours are registered the same way::

    [options.entry_points]
    clip_benchmark.tasks =
        my_task = my_package.my_module:task
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from koda_audit.errors import InputError, PluginError, unknown

if TYPE_CHECKING:
    from koda_audit._similarity.protocol import Measure
    from koda_audit.alignment.methods import Method
    from koda_audit.tasks.protocol import Task

T = TypeVar("T")


class Registry(Generic[T]):
    """The entry points of one group.

    Args:
        group: the entry-point group.
        kind: what one of them is called in messages, e.g. "task".
        attributes: what a loaded object must have.
        protocol: the file that says what they are, for messages.
    """

    def __init__(
        self,
        group: str,
        kind: str,
        attributes: tuple[str, ...] = (),
        protocol: str = "koda_audit/tasks/protocol.py",
    ) -> None:
        self.group = group
        self.kind = kind
        self.attributes = attributes
        self.protocol = protocol
        self._loaded: dict[str, T | PluginError] = {}

    def names(self) -> list[str]:
        """All registered names, sorted; imports nothing, so a broken plugin is among them."""
        return sorted(self._entries())

    def packages(self, name: str) -> list[str]:
        """The distributions that register ``name``; more than one is a collision.

        Raises:
            InputError: nobody does.
        """
        return sorted({_package(entry) for entry in self._claims(name)})

    def load(self, name: str) -> T:
        """The object behind ``name``; imported once, and a failure is remembered too.

        Raises:
            InputError: unknown name; near matches are listed.
            PluginError: claimed twice, cannot be imported, or lacks an attribute.
        """
        if not isinstance(name, str):
            raise InputError(unknown(self.kind, name, self.names()))
        if name not in self._loaded:
            try:
                self._loaded[name] = self._load(name)
            except PluginError as error:
                self._loaded[name] = error
        loaded = self._loaded[name]
        if isinstance(loaded, PluginError):
            raise loaded
        return loaded

    def usable(self) -> Iterator[tuple[str, T]]:
        """Name and object of all that load; the others are in ``problems``."""
        for name in self.names():
            try:
                loaded = self.load(name)
            except PluginError:
                continue
            yield name, loaded

    def problems(self) -> dict[str, str]:
        """Name -> what is wrong, for each one that cannot be loaded."""
        found = {}
        for name in self.names():
            try:
                self.load(name)
            except PluginError as error:
                found[name] = str(error)
        return found

    def _entries(self) -> dict[str, list[EntryPoint]]:
        found: dict[str, list[EntryPoint]] = {}
        for entry in entry_points(group=self.group):
            claims = found.setdefault(entry.name, [])
            # an editable install can be seen twice, in site-packages and in the working folder
            if (_package(entry), entry.value) not in [(_package(other), other.value) for other in claims]:
                claims.append(entry)
        return found

    def _claims(self, name: str) -> list[EntryPoint]:
        entries = self._entries()
        if name not in entries:
            if not entries:
                raise InputError(f"unknown {self.kind} '{name}': none is registered; install koda_audit with pip")
            raise InputError(unknown(self.kind, name, entries))
        return entries[name]

    def _load(self, name: str) -> T:
        claims = self._claims(name)
        if len(claims) > 1:
            owners = " and ".join(f"{_package(entry)} ({entry.value})" for entry in claims)
            raise PluginError(f"{self.kind} '{name}' is registered by {owners}: uninstall one of them")
        where = f"{self.kind} '{name}' of {_package(claims[0])} ({claims[0].value})"
        try:
            loaded = claims[0].load()
        except Exception as error:  # whatever a plugin raises on import must not stop the others
            raise PluginError(f"{where} cannot be imported: {type(error).__name__}: {error}") from error
        missing = [attribute for attribute in self.attributes if not hasattr(loaded, attribute)]
        if missing:
            raise PluginError(f"{where} has no {', '.join(missing)}: see {self.protocol}")
        if getattr(loaded, "name", name) != name:
            raise PluginError(f"{where} calls itself '{loaded.name}': name and entry point must agree")
        return cast(T, loaded)


@lru_cache(maxsize=1)
def tasks() -> Registry[Task]:
    """The tasks of ``clip_benchmark eval`` that come from plugins, ours among them."""
    return Registry(
        "clip_benchmark.tasks",
        "task",
        ("name", "help", "prefix", "version", "needs", "Settings", "metrics", "check", "run"),
    )


@lru_cache(maxsize=1)
def alignments() -> Registry[Method]:
    """The post-hoc alignments, ours among them; ``koda_audit/alignment/methods.py`` says what one is."""
    attributes = ("name", "definition", "fitted_on", "fit")
    return Registry("koda_audit.alignments", "alignment", attributes, "koda_audit/alignment/methods.py")


@lru_cache(maxsize=1)
def measures() -> Registry[Measure]:
    """The measures of ``similarity`` that are installed, ours among them."""
    described = ("meaning", "source", "low", "high", "higher_is_similar", "invariances", "cost")
    attributes = ("name", *described, "prepare", "formula")
    return Registry("koda_audit.measures", "measure", attributes, "koda_audit/_similarity/protocol.py")


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "an unnamed package"
