"""Extends the module ``clip_benchmark.cli`` in memory: more tasks, two more kinds of models, readable errors.

The host's own tasks, options and errors stay what they are.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable
from functools import wraps
from types import ModuleType, SimpleNamespace
from typing import Any

from koda_audit.document import printable
from koda_audit.errors import InputError, KodaAuditError, PluginError, one_line_warnings
from koda_audit.host.options import OURS, extend_parser
from koda_audit.registry import tasks
from koda_audit.terminal import steady_output
from koda_audit.user_code import ALIGNED_MODELS, PYTHON_MODELS, allowed_in_host, check_permission, is_allowed_in_host

FOLDER = "folder/"  # as in koda_audit.data.folder, which imports torch

Function = Callable[..., Any]


def extend(cli: ModuleType) -> None:
    """Make ``clip_benchmark.cli`` know the registered tasks. A second call changes nothing.

    Raises:
        PluginError: this clip_benchmark lacks something we rely on; then nothing is changed.
    """
    wrappers: dict[str, Callable[[ModuleType, Function], Function]] = {
        "get_parser_args": _get_parser_args,
        "main_eval": _main_eval,
        "run": _run,
        "main": _main,
    }
    missing = [name for name in (*wrappers, "argparse", "MODEL_TYPES") if not hasattr(cli, name)]
    if missing:
        raise PluginError(
            f"clip_benchmark.cli has no {', '.join(missing)}: install a clip-benchmark that koda-audit asks for"
        )
    _add_model_types(cli.MODEL_TYPES)
    for name, wrapper in wrappers.items():
        host = getattr(cli, name)
        # the mark sits on the function: a reloaded module keeps its other attributes, but has new functions
        if not hasattr(host, "koda_audit_host"):
            extended = wraps(host)(wrapper(cli, host))
            extended.koda_audit_host = host  # type: ignore[attr-defined]
            setattr(cli, name, extended)


def _get_parser_args(cli: ModuleType, host: Function) -> Function:
    """The host builds its parser and parses in one function, so ours comes in by the name ``argparse``."""

    class Parser(argparse.ArgumentParser):
        # sub-parsers are of this class too, but argparse asks them by parse_known_args: only the whole is extended
        def parse_args(self, *args: Any, **kwargs: Any) -> Any:
            try:
                for problem in extend_parser(self, tasks()):
                    _say(f"koda_audit: warning: {problem}")
            except Exception as error:  # the host must go on without us, and say so
                _say(f"koda_audit: its tasks are missing from clip_benchmark ({error}); run `koda-audit doctor`")
            return super().parse_args(*args, **kwargs)

    def get_parser_args() -> Any:
        original = cli.argparse
        cli.argparse = SimpleNamespace(**{**vars(argparse), "ArgumentParser": Parser})  # type: ignore[attr-defined]
        try:
            return host()
        finally:
            cli.argparse = original  # type: ignore[attr-defined]

    return get_parser_args


def _main_eval(cli: ModuleType, host: Function) -> Function:
    def main_eval(base: Namespace) -> Any:
        kind, allow_code = getattr(base, "model_type", None), getattr(base, "koda_allow_code", False)
        if kind == PYTHON_MODELS:
            check_permission(allow_code, f"of type {kind}", model_type=kind)
        if kind == ALIGNED_MODELS:
            from koda_audit.host.aligned_model import check_aligned
            from koda_audit.host.arguments import listed_models

            for spec in listed_models(base, cli):
                check_aligned(spec)
        if base.task in getattr(base, OURS, ()):
            from koda_audit.host.arguments import check_all

            check_all(base, cli)
        elif folders := [name for name in _listed(getattr(base, "dataset", None)) if name.startswith(FOLDER)]:
            raise InputError(
                f"dataset '{folders[0]}': plain folders are for the tasks of koda_audit; --task "
                "koda_aligned_classification --koda_alignment identity has the host's numbers"
            )
        with allowed_in_host(allow_code):
            return host(base)

    return main_eval


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _run(cli: ModuleType, host: Function) -> Function:
    def run(args: Namespace) -> Any:
        if args.task not in getattr(args, OURS, ()):
            return host(args)
        from koda_audit.host.runner import run as run_task

        try:
            return run_task(args)
        except KeyboardInterrupt:
            _say(
                "koda_audit: interrupted; what is embedded stays in the store, and the same command goes on from there"
            )
            raise SystemExit(130) from None

    return run


def _main(cli: ModuleType, host: Function) -> Function:
    def main() -> Any:
        try:
            with steady_output(), one_line_warnings():
                return host()
        except KodaAuditError as error:
            if os.environ.get("KODA_AUDIT_DEBUG") == "1":
                traceback.print_exc()
            _say(f"koda_audit: error: {printable(str(error))}")
            raise SystemExit(2) from error

    return main


def _add_model_types(model_types: list[str]) -> None:
    from clip_benchmark.models import TYPE2FUNC

    for name, loader in ((PYTHON_MODELS, _load_python), (ALIGNED_MODELS, _load_aligned)):
        TYPE2FUNC[name] = loader
        if name not in model_types:
            model_types.append(name)  # the very list that load_clip asks


def _load_python(model_name: str, pretrained: str, cache_dir: str | None = None, device: str = "cpu") -> Any:
    from koda_audit.identity import foreign_code
    from koda_audit.user_code import load_python

    check_permission(is_allowed_in_host(), model_name, pretrained, PYTHON_MODELS)
    with foreign_code(f"{model_name},{pretrained}"):
        return load_python(model_name, pretrained, cache_dir, device)


def _load_aligned(model_name: str, pretrained: str, cache_dir: str | None = None, device: str = "cpu") -> Any:
    from koda_audit.host.aligned_model import load_aligned

    return load_aligned(model_name, pretrained, cache_dir, device, is_allowed_in_host())


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)
