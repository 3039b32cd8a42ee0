"""Which alignment, and what it is fitted on: the options of the koda_aligned tasks and of ``koda-audit align``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from inspect import Parameter, signature
from pathlib import Path
from types import MappingProxyType
from typing import Any

from koda_audit.alignment.fit import fit_alignment, method_arguments
from koda_audit.alignment.methods import Method
from koda_audit.alignment.operator import Alignment, load_alignment
from koda_audit.embeddings.container import Embeddings
from koda_audit.errors import InputError, unknown
from koda_audit.registry import alignments

OPTION = "--koda_alignment"
# parameters that no text can give: what they are, and the option of koda-audit align that names them
OBJECTS = MappingProxyType(
    {
        "teacher": ("a teacher", "--teacher MODEL[,PRETRAINED]"),
        "focus": ("samples", "--members FILE.csv"),
    }
)


@dataclass(frozen=True, eq=False)
class Choice:
    """A method with its parameters, still to be fitted, or a saved alignment."""

    method: Method | None
    params: Mapping[str, Any] = field(default_factory=dict)
    saved: Alignment | None = None

    @classmethod
    def parse(cls, text: str | None) -> Choice:
        """NAME[:PARAMETER=VALUE,...], or the folder of a saved alignment.

        Raises:
            InputError: neither, or parameters that the method does not have.
            StoreError: a folder without a whole alignment.

        >>> Choice.parse("mg_shift:lam=0.25,unit=unit").params
        {'lam': 0.25, 'unit': 'unit'}
        """
        if not text:
            raise InputError(
                f"no alignment: name one with {OPTION}, such as center_renorm, or give a saved one's folder"
            )
        name, colon, rest = text.partition(":")
        if name in alignments().names():
            return cls.named(name, rest.split(",") if colon else ())
        if Path(text).is_dir():
            return cls(None, saved=load_alignment(text))
        listed = unknown("alignment", name, alignments().names())
        raise InputError(f"{listed} (or give the folder of a saved alignment)")

    @classmethod
    def named(cls, name: str, settings: Iterable[str], objects: Collection[str] = ()) -> Choice:
        """A method with PARAMETER=VALUE each.

        Args:
            objects: those of ``OBJECTS`` that ``fit`` will be given.

        Raises:
            InputError: an unknown method, a parameter that it does not have, or a value of another kind, such as a word
                in place of a number; an object that it lacks or does not take.
        """
        method = alignments().load(name)
        params, known = distinct(settings), signature(method.fit).parameters
        for key, (what, option) in OBJECTS.items():
            if key in params:
                raise InputError(f"{key} is no PARAMETER=VALUE: name {what} with {option}, in koda-audit align")
            if key in objects and key not in known:
                raise InputError(f"'{name}' takes no {key}: leave {option} out")
            if key not in objects and key in known and known[key].default is Parameter.empty:
                raise InputError(f"'{name}' needs {what}: name it with {option}, in koda-audit align")
        bound = method.fitted_on == "gallery"  # then ``fit_alignment`` takes the side that is ranked, too
        given = {key: value for key, value in params.items() if not (bound and key == "gallery")}
        method_arguments(method, {**given, **dict.fromkeys(objects)})
        return cls(method, params)

    @property
    def needs_samples(self) -> bool:
        """Whether it is fitted on samples that may not be evaluated."""
        return self.method is not None and self.method.fitted_on in ("images", "rows", "pairs")

    def fit(self, target: Embeddings, fit: Embeddings | None, transductive: bool, **objects: Any) -> Alignment:
        """The alignment: the saved one, or fitted on ``fit`` where it needs samples of its own, else on ``target``."""
        if self.saved is not None:
            return self.saved
        assert self.method is not None
        samples = fit if fit is not None and self.needs_samples else target
        return fit_alignment(self.method.name, samples, transductive=transductive, **self.params, **objects)


def check_choice(options: argparse.Namespace) -> Choice:
    """What the options name, if they go together.

    Raises:
        InputError: they do not; the message says what to write instead.
        StoreError: a folder without a whole alignment.
    """
    choice = Choice.parse(options.koda_alignment)
    split, share, transductive = options.koda_fit_split, options.koda_fit_share, options.koda_transductive
    what = f"{OPTION} {options.koda_alignment}"
    check_share(share)
    if split and share is not None:
        raise InputError("--koda_fit_split and --koda_fit_share both name the samples to fit on: give one of them")
    if choice.needs_samples and not (split or share is not None or transductive):
        raise InputError(
            f"{what} is fitted on other samples than are evaluated: name them with --koda_fit_split, or set a part of "
            "these aside with --koda_fit_share 0.5"
        )
    if split and split == options.split and not transductive:
        raise InputError(
            f"--koda_fit_split {split} is the split that is evaluated: name another, or add --koda_transductive"
        )
    if not choice.needs_samples and (split or transductive):
        option = "--koda_fit_split" if split else "--koda_transductive"
        raise InputError(f"{what} is not fitted on samples of its own here: leave {option} out")
    if transductive and share is not None:
        raise InputError("--koda_fit_share keeps the samples of the fit apart: leave --koda_transductive out")
    return choice


def fitted_on(choice: Choice, alignment: Alignment, own_samples: bool, options: argparse.Namespace) -> str:
    """On what, in words; ``own_samples`` says that the options name some that are not evaluated."""
    info = alignment.info
    if choice.saved is not None:
        data: Mapping[str, Any] = ((info["ingredients"] or {}).get("dataset")) or {}
        named = ", ".join(str(data[key]) for key in ("name", "split", "language") if key in data)
        return f"{info['samples']} samples of {named or 'unnamed data'}, and saved"
    if not choice.needs_samples:
        return "the evaluated rows, without labels" if info["gallery_bound"] else "nothing"
    if not own_samples:
        return f"the {info['samples']} samples that are evaluated"
    if options.koda_fit_split:
        return f"{info['samples']} samples of split {options.koda_fit_split}"
    return f"{info['samples']} of the samples, drawn with seed {options.seed} and not evaluated"


def check_share(share: float | None) -> None:
    """Raises InputError for a --koda_fit_share that is none."""
    if share is not None and not 0 < share < 1:
        raise InputError(f"--koda_fit_share {share}: expected more than 0 and less than 1")


def label(alignment: Alignment) -> str:
    """As the option spells it, and marked where it may be judged on samples that it was fitted on."""
    params = ",".join(f"{name}={_spelled(value)}" for name, value in alignment.params.items() if value is not None)
    marks = {"gallery_bound": " (gallery-bound)", "transductive": " (transductive)"}
    mark = next((text for key, text in marks.items() if alignment.info[key]), "")
    return f"{alignment.name}{':' if params else ''}{params}{mark}"


def distinct(settings: Iterable[str]) -> dict[str, Any]:
    """The values of PARAMETER=VALUE each.

    Raises:
        InputError: what is none, or the same parameter twice.
    """
    found: dict[str, Any] = {}
    for name, value in map(setting, settings):
        if name in found:
            raise InputError(f"{name} is given twice: give it once")
        found[name] = value
    return found


def setting(text: str) -> tuple[str, Any]:
    """PARAMETER=VALUE; a value that is no JSON is text.

    >>> setting("k=64"), setting("renormalise=false"), setting("prior=I")
    (('k', 64), ('renormalise', False), ('prior', 'I'))
    """
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InputError(f"'{text}' is no PARAMETER=VALUE: leave the colon out, or name a parameter such as lam=0.5")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _spelled(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
