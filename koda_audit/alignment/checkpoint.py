"""Checkpoints of a training run: ``step-N.safetensors`` for the tensors, ``step-N.json`` for all else, written last.

A checkpoint exists once its record does, and older ones go only then: a run that is killed, or a disk that is full,
always leaves a complete one.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from koda_audit._files import atomic_write, checked_folder, digest, strict, write_json
from koda_audit.errors import InputError, StoreError

FORMAT = "koda_audit training 1"
OWN = re.compile(r"step-([0-9]+)\.(?:json|safetensors)")
MODEL, OPTIMISER, GENERATOR = "model.", "optimiser.", "generator."


class Checkpoints:
    """The checkpoints of one run in ``folder``.

    Args:
        folder: of this run alone; created where it does not exist.
        run: all that the weights depend on, in plain JSON types; a checkpoint of another run is refused.
    """

    def __init__(self, folder: str | Path, run: Mapping[str, Any]) -> None:
        self.folder, self.run = checked_folder(folder), strict(run)

    def steps(self) -> list[int]:
        """Those that have a complete checkpoint, in order."""
        return sorted(step for file, step in self._files() if file.suffix == ".json")

    def save(self, step: int, model: torch.nn.Module, optimiser: torch.optim.Optimizer, history: list[Any]) -> None:
        """Write the state after ``step`` steps, with those of all generators.

        Raises:
            StoreError: the folder cannot be written; the checkpoint before is kept.
        """
        generators, state = _generators()
        tensors = {MODEL + name: value for name, value in model.state_dict().items()} | generators
        for number, values in optimiser.state_dict()["state"].items():
            tensors |= {f"{OPTIMISER}{number}.{name}": value for name, value in values.items()}
        content = save({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()})
        record = {"format": FORMAT, "step": step, "run": self.run, "generators": state, "history": history}
        record["sha256"] = sha256(content).hexdigest()
        with atomic_write(self._file(step, "safetensors")) as stream:
            stream.write(content)
        write_json(self._file(step, "json"), {**record, "checksum": digest(record)})
        for file, other in self._files():
            if other != step:
                file.unlink()

    def restore(self, model: torch.nn.Module, optimiser: torch.optim.Optimizer) -> tuple[int, list[Any]]:
        """Put model, optimiser and generators into the state of the last checkpoint: its step and history; (0, []) of
        a folder without one.

        Raises:
            InputError: the checkpoint is of another run; the message says in what.
            StoreError: it is damaged; the message names the file.
        """
        steps = self.steps()
        if not steps:
            return 0, []
        path = self._file(steps[-1], "json")
        try:
            record = json.loads(path.read_text("utf-8"))
            if record.pop("checksum") != digest(record) or record["format"] != FORMAT:
                raise ValueError("it differs from its checksum, or is of another version")
            differing = [key for key in {**self.run, **record["run"]} if self.run.get(key) != record["run"].get(key)]
            if differing:
                raise InputError(
                    f"{self.folder} holds a checkpoint of another run (other {', '.join(sorted(differing))}): "
                    "choose another folder, or remove it"
                )
            path = self._file(steps[-1], "safetensors")
            content = path.read_bytes()
            if sha256(content).hexdigest() != record["sha256"]:
                raise ValueError("it differs from its checksum")
            if record["step"] != steps[-1] or not record["history"] or not isinstance(record["history"], list):
                raise ValueError(f"it is not that of step {steps[-1]}")
            tensors = load(content)
            model.load_state_dict(_below(tensors, MODEL))
            _load_optimiser(optimiser, _below(tensors, OPTIMISER))
            _set_generators(_below(tensors, GENERATOR), record["generators"])
        except InputError:
            raise
        except OSError as error:
            again = f"; remove {self._file(steps[-1], 'json')} to start again"
            raise StoreError(f"{path} cannot be read: {error.strerror or error}{again}") from error
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            raise StoreError(f"{path} is damaged: {error}; remove it to start again") from error
        return steps[-1], record["history"]

    def _files(self) -> list[tuple[Path, int]]:
        """Those of checkpoints, with their steps; others may lie in the folder."""
        found = [(file, OWN.fullmatch(file.name)) for file in self.folder.glob("step-*")]
        return [(file, int(name[1])) for file, name in found if name]

    def _file(self, step: int, ending: str) -> Path:
        return self.folder / f"step-{step}.{ending}"


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, _, part = name.partition(".")
        state.setdefault(int(number), {})[part] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


@contextmanager
def kept_generators() -> Iterator[None]:
    """Whatever is drawn or restored inside, the global generators go on as if nothing had been."""
    tensors, state = _generators()
    try:
        yield
    finally:
        _set_generators(_below(tensors, GENERATOR), state)


def _generators() -> tuple[dict[str, Tensor], list[Any]]:
    """The states of torch's, numpy's and Python's global generators, as tensors and plain types."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    tensors = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64))}
    if torch.cuda.is_available():
        tensors |= {f"cuda{device}": state for device, state in enumerate(torch.cuda.get_rng_state_all())}
    return {GENERATOR + name: state for name, state in tensors.items()}, [kind, rest, random.getstate()]


def _set_generators(tensors: Mapping[str, Tensor], state: list[Any]) -> None:
    kind, rest, (version, words, gauss) = state
    torch.set_rng_state(tensors["torch"])
    np.random.set_state((kind, tensors["numpy"].numpy().astype(np.uint32), *rest))
    random.setstate((version, tuple(words), gauss))
    for device in range(torch.cuda.device_count()):
        if f"cuda{device}" in tensors:
            torch.cuda.set_rng_state(tensors[f"cuda{device}"], device)
