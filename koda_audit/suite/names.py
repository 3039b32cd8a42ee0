"""What the names in a suite stand for: files, models, datasets, operators. Imports neither torch nor the host."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from koda_audit.data.address import is_remote
from koda_audit.errors import InputError
from koda_audit.suite.schema import Data, Model, Suite

LOCAL, HUB, PYTHON, WEBDATASET, FOLDER = "local-dir:", "hf-hub:", "py:", "wds/", "folder/"
Kind = Literal["captions", "classes"]
# as in clip_benchmark's get_dataset_default_task
CAPTIONED = (
    *("flickr30k", "flickr8k", "mscoco_captions", "multilingual_mscoco_captions"),
    *("flickr30k-200", "crossmodal3600", "xtd10", "xtd200"),
)
# what operators of this package are fitted on, and their parameters; a test keeps it equal to the operators themselves
OPERATORS: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        "identity": ("nothing", ()),
        "center": ("rows", ()),
        "center_renorm": ("rows", ()),
        "mg_shift": ("rows", ("lam", "unit")),
        "project_out": ("rows", ("g",)),
        "realign": ("rows", ()),
        "zca": ("rows", ("eps", "renormalise")),
        "coral": ("rows", ("eps", "frame", "renormalise")),
        "procrustes": ("pairs", ("frame", "renormalise")),
        "ridge": ("pairs", ("lam", "prior", "frame", "renormalise")),
        "cca": ("pairs", ("k", "reg", "scale", "renormalise")),
        "kuea": (
            "images",
            (
                *("teacher", "kind", "rank", "weight", "rho", "learn_rho", "rho_teacher", "kernel", "degree"),
                *("epochs", "batch", "lr", "seed"),
            ),
        ),
        "curriculum": (
            "pairs",
            (
                *("alpha_target", "sides", "kind", "rank", "beta", "scale", "anchor", "ramp", "rise"),
                *("epochs", "batch", "lr", "seed"),
            ),
        ),
        "orthogonal_translate": ("gallery", ("alpha", "rank")),
        "translate_gallery": ("gallery", ("v",)),
        "spectral": ("gallery", ("k",)),
        "ot": ("gallery", ("epsilon",)),
    }
)

_PLAN = ("epochs", "batch", "lr", "weight_decay", "warmup", "seed", "save_every", "preset")
# settings of what trains towers (mode: tower); a test keeps it equal, too
TOWERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "kuea": (
            *("weight", "rho", "learn_rho", "rho_teacher", "kernel", "degree", "pairs", "anchor_scale"),
            *(*_PLAN, "teacher"),
        ),
        "curriculum": ("alpha_target", "towers", "beta", "anchor", "ramp", "rise", *_PLAN),
    }
)


@dataclass(frozen=True)
class ModelName:
    """A model of the suite: ``name``, ``pretrained`` and ``model_type`` as the host has them, with paths resolved."""

    key: str
    written: str  # as in the suite, which names no folder of this machine
    name: str
    pretrained: str
    model_type: str

    @property
    def folder(self) -> Path | None:
        return Path(self.name.removeprefix(LOCAL)) if self.name.startswith(LOCAL) else None


@dataclass(frozen=True)
class DataName:
    """One dataset and split with its paths resolved; ``key`` is its name in the suite and in all results."""

    key: str
    name: str
    root: str
    split: str
    kind: Kind | None  # None: not known before it is built
    train_split: str
    language: str
    annotation_file: str
    classname_file: str | None
    template_file: str | None

    @property
    def remote(self) -> bool:
        return is_remote(self.root)

    @property
    def base(self) -> Path | None:
        """The local folder it is read from, where that is known without the host."""
        known = self.name.startswith((WEBDATASET, FOLDER)) and not self.remote
        return Path(self.root) if known else None


def with_variables(path: str) -> str:
    """``${NAME}`` replaced by the environment variable.

    Raises:
        InputError: it is not set, the path holds what no path holds, or it is an address: a suite of somebody else's
            would send what the environment holds.
    """

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise InputError(f"the environment variable {found[1]} is not set")
        return os.environ[found[1]]

    if "\0" in path:
        raise InputError("a path holds no zero byte")
    found = re.sub(r"\$\{(\w+)\}", value, path)
    if found != path and is_remote(found):
        raise InputError(f"'{path}' is an address, which takes no environment variable: write it out")
    return found


def expanded(path: str, base: Path) -> str:
    """A path with its variables, relative to ``base``; an address stays.

    >>> expanded("data/coco", Path("/suites"))
    '/suites/data/coco'
    """
    path = with_variables(path)
    return path if is_remote(path) else os.path.normpath(base / path)


def model_name(key: str, model: Model, base: Path) -> ModelName:
    """The model of that name with its paths resolved.

    Raises:
        InputError: as ``expanded``.
    """
    name, pretrained = model.model, model.pretrained
    if name.startswith(LOCAL):
        name = LOCAL + expanded(name.removeprefix(LOCAL), base)
    elif name.startswith(PYTHON) and ".py:" in name:
        file, _, function = name.removeprefix(PYTHON).rpartition(":")
        name = f"{PYTHON}{expanded(file, base)}:{function}"
    if "${" in pretrained or (pretrained and not name.startswith(HUB)):
        path = Path(expanded(pretrained, base))
        is_path = path.is_file() or (name.startswith(PYTHON) and path.is_dir()) or "${" in pretrained
        pretrained = str(path) if is_path else pretrained  # else a tag
    written = f"{model.model},{model.pretrained}" if model.pretrained else model.model
    if "${" in written:  # says nothing of what it was
        written += f" ({Path(pretrained or name).name})"
    return ModelName(key, written, name, pretrained, model.model_type)


def data_names(key: str, data: Data, base: Path, language: str) -> Iterator[DataName]:
    """The dataset of that name, or those of a collection, with paths resolved.

    Raises:
        InputError: as ``expanded``; a field of the root that the host does not know.
    """
    members = collections().get(data.dataset)
    files = [path and expanded(path, base) for path in (data.annotation_file, data.classname_file, data.template_file)]
    template = with_variables(data.root)
    for member in members or [data.dataset]:
        short = member.removeprefix(WEBDATASET)
        root = template.replace("{dataset}", short).replace("{dataset_cleaned}", short.replace("/", "-"))
        if re.search("[{}]", root):
            raise InputError(f"root '{data.root}': only {{dataset}} and {{dataset_cleaned}} are known")
        root = expanded(root, base)
        yield DataName(
            f"{key}/{short.replace('/', '-')}" if members else key,
            member,
            root,
            data.split,
            _kind(member, root, data.task),
            data.train_split,
            data.language or language,
            files[0] or "",
            files[1],
            files[2],
        )


@lru_cache(maxsize=1)
def collections() -> dict[str, list[str]]:
    """The host's collections of datasets, read from its source: importing it would import torch."""
    host = find_spec("clip_benchmark")
    assert host is not None
    assert host.submodule_search_locations is not None
    source = (Path(next(iter(host.submodule_search_locations))) / "datasets" / "builder.py").read_text("utf-8")
    start = source.index("\ndataset_collection = {")
    literal = source[source.index("{", start) : source.index("\n}", start) + 2]
    found: dict[str, list[str]] = ast.literal_eval(literal)
    return found


def all_data(suite: Suite, base: Path) -> dict[str, list[DataName]]:
    """Key of each dataset in the suite -> what it stands for."""
    return {key: list(data_names(key, data, base, suite.language)) for key, data in suite.datasets.items()}


def calibration(text: str) -> tuple[str, str | None]:
    """Dataset and split of ``fit_on``.

    >>> calibration("coco:train"), calibration("coco")
    (('coco', 'train'), ('coco', None))
    """
    dataset, _, split = text.partition(":")
    return dataset, split or None


def _kind(name: str, root: str, task: str | None) -> Kind | None:
    if task is not None:
        return "captions" if task == "zeroshot_retrieval" else "classes"
    if name.startswith(WEBDATASET):
        if is_remote(root):
            return None
        try:
            form = (Path(root) / "dataset_type.txt").read_text("utf-8").strip().lower()
        except (OSError, UnicodeDecodeError):
            return "classes" if Path(root).is_dir() else None
        return "captions" if form == "retrieval" else "classes"
    return "captions" if name in CAPTIONED else "classes"
