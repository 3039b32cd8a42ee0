"""YAML to plain values, each with its line; nothing in the file is run, and a small file stays small."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from koda_audit._files import digest
from koda_audit.document import printable
from koda_audit.errors import InputError

LARGEST = 100_000  # bytes of a suite
VALUES = 20_000  # in a suite, aliases followed
DEPTH = 20

Place = tuple[str | int, ...]  # the keys that lead to a value


@dataclass(frozen=True)
class Written:
    """``value`` in plain types; ``lines`` has the line of every value and, for a mapping's entries, of their keys."""

    value: Any
    lines: Mapping[Place, int]
    sha256: str

    def line(self, place: Place) -> int:
        """Of the value there, or of the nearest one that holds it."""
        while place not in self.lines:
            place = place[:-1]
        return self.lines[place]


class _Loader(yaml.SafeLoader):
    """Plain words as in YAML 1.2: ``on``, ``no`` and dates are texts, ``1e-3`` is a number."""


_Loader.yaml_implicit_resolvers = {}  # its own, so that SafeLoader keeps those of YAML 1.1

for _tag, _form, _first in (
    ("null", r"~|null|Null|NULL|", [*"~nN", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("int", r"[-+]?[0-9]+", [*"-+0123456789"]),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", [*"-+.0123456789"]),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", [*"-+."]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_form})$"), _first)


def shown(place: Place) -> str:
    """A place as a reader writes it.

    >>> shown(("gates", 0, "metric"))
    'gates[0].metric'
    """
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


def of_plain(value: Any) -> Written:
    """Of a value that is there already, which has no lines: all of it is line 0."""
    return Written(value, {(): 0}, digest(value))


def spot(path: Path, line: int) -> str:
    """Where a reader finds it.

    >>> spot(Path("suite.yaml"), 3), spot(Path("suite"), 0)
    ('suite.yaml:3', 'suite')
    """
    return f"{path}:{line}" if line else str(path)


def read_yaml(path: Path) -> Written:
    """Read one YAML document.

    Raises:
        InputError: cannot be read, too large, no UTF-8, no YAML, a key twice, a tag, aliases that multiply; with line.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(raw) > LARGEST:
        raise InputError(f"{path} is larger than {LARGEST // 1000} kB: this is no suite")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{line}: no UTF-8 text: save it as UTF-8") from error
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = 1 if mark is None else mark.line + 1
        raise InputError(f"{path}:{line}: no YAML: {printable(error.problem or str(error))}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: no YAML: {printable(str(error))}") from error
    except (RecursionError, ValueError) as error:
        raise InputError(f"{path}: no suite: nested too deeply, or a number out of range") from error
    if node is None:
        raise InputError(f"{path} is empty: `koda-audit init` writes a suite, with gates, to start from")
    lines: dict[Place, int] = {}
    value = _Reader(path, loader, lines).plain(node, ())
    return Written(value, lines, digest(text))


@dataclass
class _Reader:
    path: Path
    loader: _Loader
    lines: dict[Place, int]

    def plain(self, node: yaml.Node, place: Place) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(place, line)
        if len(self.lines) > VALUES or len(place) > DEPTH:  # an anchor within itself is infinitely deep
            self._refuse(line, f"more than {VALUES} values or {DEPTH} levels: use fewer anchors and aliases")
        if node.tag.rpartition(":")[0] != "tag:yaml.org,2002" or (node.tag.rpartition(":")[2] not in _TYPES):
            self._refuse(line, f"the tag {printable(node.tag)}: a suite has plain values only")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(item, (*place, number)) for number, item in enumerate(node.value)]
        try:
            return self.loader.construct_object(node)
        except (ValueError, OverflowError, yaml.YAMLError):
            return self._refuse(line, f"{printable(str(node.value))[:40]} is no {node.tag.rpartition(':')[2]}")

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._refuse(line, "a key must be a word")
            key = str(key_node.value)  # 1 and yes are names, too
            if key in found:
                self._refuse(
                    line,
                    f"the key '{printable(key)}' stands here twice: the first is on line {self.lines[(*place, key)]}",
                )
            self.lines.setdefault((*place, key), line)
            found[key] = self.plain(value_node, (*place, key))
        return found

    def _refuse(self, line: int, why: str) -> Any:
        raise InputError(f"{self.path}:{line}: {why}")


_TYPES = ("map", "seq", "str", "int", "float", "bool", "null")
