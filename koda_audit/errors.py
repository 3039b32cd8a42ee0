"""One root exception; every subclass says whose fault it is.

    KodaAuditError
    ├── InputError     an argument, option or file that the caller gave
    ├── DataError      a dataset or a sample in it
    ├── ModelError     a model, its checkpoint or its loader
    ├── StoreError     the embedding store
    └── PluginError    a registered task, alignment or measure

    KodaAuditWarning   a UserWarning: worth knowing, stops nothing

The command line prints the message alone and exits with 2.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from koda_audit.document import printable


class KodaAuditError(Exception):
    """Something that the caller can mend; the message says what and how."""


class InputError(KodaAuditError, ValueError):
    """An argument, option or file that the caller gave."""


class DataError(KodaAuditError):
    """A dataset, or a sample in it."""


class ModelError(KodaAuditError):
    """A model, its checkpoint or its loader."""


class StoreError(KodaAuditError):
    """The embedding store."""


class PluginError(KodaAuditError):
    """A registered task, alignment or measure."""


class KodaAuditWarning(UserWarning):
    """Something the caller should know that stops nothing."""


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """For a command line: our warnings as one line each, without file and line number; all others as ever."""
    shown = warnings.showwarning

    def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, KodaAuditWarning):
            print(f"koda_audit: warning: {printable(str(message))}", file=sys.stderr)
        else:
            shown(message, category, *where, **more)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def unknown(kind: str, name: Any, choices: Iterable[str]) -> str:
    """The sentence for an unknown name, which need be no text: near matches first, else all choices (at most 12)."""
    name, known = str(name), sorted(choices)
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"unknown {kind} '{name}': did you mean {' or '.join(repr(match) for match in near)}?"
    listed = ", ".join(known[:12]) + (f", … ({len(known)} in all)" if len(known) > 12 else "")
    return f"unknown {kind} '{name}': choose one of {listed}"
