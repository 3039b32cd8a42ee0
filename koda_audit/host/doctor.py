"""``koda-audit doctor``: is everything here that an audit needs, and if not, what mends it."""

from __future__ import annotations

import argparse
import os
import platform
import site
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

from koda_audit._files import default_store
from koda_audit.host.extension import extend
from koda_audit.host.options import extend_parser
from koda_audit.registry import tasks
from koda_audit.user_code import ALIGNED_MODELS, PYTHON_MODELS

PACKAGES = ("koda-audit", "clip-benchmark", "open_clip_torch", "torch", "torchvision", "transformers", "webdataset")
REINSTALL = "python -m pip install --force-reinstall --no-deps koda-audit (in a checkout: -e . instead of koda-audit)"


@dataclass(frozen=True)
class Finding:
    """One thing looked at. A ``remedy`` means that it is broken."""

    what: str
    seen: str
    remedy: str = ""


def main() -> int:
    """Print one line for each thing looked at.

    Returns:
        0 when all is well, 2 when something is broken.
    """
    broken = 0
    for finding in findings():
        broken += bool(finding.remedy)
        print(f"{'FAIL' if finding.remedy else 'ok':<5} {finding.what:<16} {finding.seen}")
        if finding.remedy:
            print(f"{'':<22} -> {finding.remedy}")
        sys.stdout.flush()  # importing torch takes seconds: show what is known by then
    print("all is well" if not broken else f"{broken} of these must be mended")
    return 2 if broken else 0


def findings() -> Iterator[Finding]:
    """Look at everything, the quick things first."""
    yield Finding("python", f"{platform.python_version()} {sys.executable}")
    for package in PACKAGES:
        yield _version(package)
    yield _hook()
    yield _store()
    loaded = [_import(name) for name in ("torch", "torchvision", "clip_benchmark.cli")]
    yield from loaded
    if not loaded[0].remedy:
        yield Finding("device", _device())
    if not loaded[-1].remedy:
        yield from _extension(import_module("clip_benchmark.cli"))


def _version(package: str) -> Finding:
    try:
        return Finding(package, version(package))
    except PackageNotFoundError:
        return Finding(package, "is not installed", f"python -m pip install {package}")


def _hook() -> Finding:
    """The .pth file is silent about its failures, so they are found here."""
    folders = [*site.getsitepackages(), site.getusersitepackages(), *sys.path]
    file = next((path for path in (Path(folder, "koda_audit.pth") for folder in folders) if path.is_file()), None)
    by_hand = "without it, `koda-audit eval` does the same as `clip_benchmark eval`"
    if os.environ.get("KODA_AUDIT_AUTOLOAD") == "0":
        return Finding("hook", f"switched off by KODA_AUDIT_AUTOLOAD=0; {by_hand}")
    ran = "koda_audit_autoload" in sys.modules
    try:
        import_module("koda_audit_autoload")
    except Exception as error:  # any failure at all is what we are here to report
        return Finding("hook", f"koda_audit_autoload fails: {type(error).__name__}: {error}", REINSTALL)
    if file is None:
        return Finding("hook", f"koda_audit.pth is in no site-packages folder; {by_hand}", REINSTALL)
    if not ran:
        return Finding("hook", f"{file} is there but did not run", "start python without -S and -I")
    return Finding("hook", str(file))


def _store() -> Finding:
    folder = default_store()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return Finding("store", str(folder))
    return Finding("store", f"{folder} cannot be written", "set XDG_CACHE_HOME, or give --koda_store DIR")


def _import(name: str) -> Finding:
    try:
        import_module(name)
    except Exception as error:  # a broken install raises anything: OSError, RuntimeError, AttributeError …
        remedy = "install torch and torchvision together, into a fresh virtual environment"
        if isinstance(error, ModuleNotFoundError):
            remedy = f"python -m pip install {error.name}"
        lines = str(error).strip().splitlines() or [""]
        return Finding(f"import {name}", f"{type(error).__name__}: {lines[0]}", remedy)
    return Finding(f"import {name}", "works")


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    return f"cpu, {torch.get_num_threads()} threads"


def _extension(cli: ModuleType) -> Iterator[Finding]:
    """Extend the host as the hook does, then look at each registered task."""
    try:
        extend(cli)
        problems = extend_parser(_host_parser(cli), tasks())
    except Exception as error:  # an unknown clip_benchmark can fail anywhere
        yield Finding("extension", f"{type(error).__name__}: {error}", "install a clip-benchmark >=1.6.2,<1.7")
        return
    yield Finding("extension", f"clip_benchmark eval takes {PYTHON_MODELS} and {ALIGNED_MODELS} models and our options")
    for name, _ in tasks().usable():
        yield Finding("task", f"{name} ({', '.join(tasks().packages(name))})")
    for problem in problems:
        yield Finding("task", problem, "mend or uninstall that package; the other tasks work")
    if not tasks().names():
        yield Finding("task", "none is registered", REINSTALL)


def _host_parser(cli: ModuleType) -> argparse.ArgumentParser:
    argv = sys.argv
    sys.argv = argv[:1]  # the host parses where it builds; without words it only builds
    try:
        parser: argparse.ArgumentParser = cli.get_parser_args.koda_audit_host()[0]
    finally:
        sys.argv = argv
    return parser
