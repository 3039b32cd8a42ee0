"""What each query contributed to a number, so that any two models or alignments can be compared pair by pair later.

In a folder of its own: one safetensors file a dataset (float32 values, int32 rows of images; rows that several cells
share are kept once) and ``index.json``, which is written last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from koda_audit._files import atomic_write, file_sha256, slug, write_json
from koda_audit.errors import InputError, StoreError

FORMAT = "koda_audit outcomes 1"
INDEX = "index.json"


@dataclass(frozen=True)
class Cell:
    """Where a set of outcomes belongs; the same names as in the table of results."""

    model: str
    dataset: str
    task: str
    metric: str
    alignment: str | None = None


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Of each cell, (q,) values from 0, with their mean as the number, and (q,) rows of images; and of each dataset the
    sample ids of these rows.

    Raises:
        InputError: values or rows that are not that, a dataset without ids, an id that occurs twice.

    >>> cell = Cell("clip", "coco", "zeroshot_retrieval", "image_retrieval_recall@1")
    >>> values, samples = Outcomes({cell: ([1.0, 0.0, 1.0], [0, 0, 1])}, {"coco": ["a", "b"]}).of(cell)
    >>> samples.tolist()
    ['a', 'a', 'b']
    """

    outcomes: Mapping[Cell, tuple[ArrayLike, ArrayLike]]
    ids: Mapping[str, Sequence[str]]

    def __post_init__(self) -> None:
        for dataset, ids in self.ids.items():
            if not all(isinstance(sample, str) for sample in ids) or len(set(ids)) < len(ids):
                raise InputError(f"the sample ids of dataset '{dataset}' are not all texts, or one occurs twice")
        for cell, (values, rows) in self.outcomes.items():
            _check(cell, np.asarray(values), np.asarray(rows), len(self.ids.get(cell.dataset, ())))

    def cells(self) -> tuple[Cell, ...]:
        return tuple(self.outcomes)

    def of(self, cell: Cell) -> tuple[NDArray[np.float64], NDArray[np.object_]]:
        """(q,) the outcome of each query, and (q,) the id of the sample it belongs to.

        Raises:
            KeyError: there are none of this cell.
        """
        values, rows = self.outcomes[cell]
        ids = np.array(self.ids[cell.dataset], dtype=object)
        return np.asarray(values, dtype=np.float64), ids[np.asarray(rows)]


def save_outcomes(
    folder: Path, outcomes: Mapping[Cell, tuple[ArrayLike, ArrayLike]], ids: Mapping[str, Sequence[str]]
) -> None:
    """Write outcomes to a folder; what an earlier call wrote there no longer counts.

    Args:
        outcomes: (q,) values from 0 and (q,) rows of the images that the queries belong to.
        ids: of each dataset the sample id of each image row.

    Raises:
        InputError: as ``Outcomes``.
        StoreError: the folder cannot be written.
    """
    whole = Outcomes(outcomes, ids)
    (folder / INDEX).unlink(missing_ok=True)
    tensors: dict[str, dict[str, NDArray[Any]]] = {cell.dataset: {} for cell in outcomes}
    shared: dict[tuple[str, bytes], str] = {}
    cells = []
    for number, (cell, (values, rows)) in enumerate(whole.outcomes.items()):
        plain = np.ascontiguousarray(rows, dtype=np.int32)
        name = shared.setdefault((cell.dataset, plain.tobytes()), f"rows-{number}")
        tensors[cell.dataset] |= {f"values-{number}": np.ascontiguousarray(values, dtype=np.float32), name: plain}
        cells.append({**asdict(cell), "values": f"values-{number}", "rows": name})
    datasets = {}
    for number, (dataset, named) in enumerate(tensors.items()):
        file = folder / f"{number:03d}-{slug(dataset)}.safetensors"
        with atomic_write(file) as stream:
            stream.write(save(named))
        datasets[dataset] = {"file": file.name, "sha256": file_sha256(file), "ids": list(ids[dataset])}
    write_json(folder / INDEX, {"format": FORMAT, "datasets": datasets, "cells": cells})


def load_outcomes(folder: Path) -> Outcomes:
    """Read outcomes and verify them; a folder that does not exist holds none.

    Raises:
        StoreError: a file is missing or damaged; the message names it.
    """
    if not folder.exists():
        return Outcomes({}, {})
    index = folder / INDEX
    try:
        record = json.loads(index.read_text("utf-8"))
        if record["format"] != FORMAT:
            raise StoreError(f"{index} has format '{record['format']}', this version reads '{FORMAT}'")
        tensors = {name: _read(folder, **known) for name, known in record["datasets"].items()}
        ids = {name: known["ids"] for name, known in record["datasets"].items()}
        outcomes = {}
        for each in record["cells"]:
            named = tensors[each["dataset"]]
            values, rows = named[each.pop("values")], named[each.pop("rows")]
            if values.dtype != np.float32:
                raise ValueError(f"values of {each['metric']} are {values.dtype}")
            outcomes[Cell(**each)] = values, rows
        return Outcomes(outcomes, ids)
    except OSError as error:
        raise StoreError(f"{index} cannot be read: {error.strerror or error}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, InputError) as error:
        raise StoreError(f"{index} is damaged: {error}") from error


def _check(cell: Cell, values: NDArray[Any], rows: NDArray[Any], samples: int) -> None:
    where = f"outcomes of {cell.metric}, model '{cell.model}', dataset '{cell.dataset}'"
    if values.ndim != 1 or not len(values) or values.shape != rows.shape:
        raise InputError(f"{where}: values {values.shape} and rows {rows.shape}, expected (q,) twice, q from 1")
    if values.dtype.kind not in "fiub" or not bool((np.isfinite(values) & (values >= 0)).all()):
        raise InputError(f"{where}: values must be finite numbers from 0")
    if rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= samples:
        raise InputError(f"{where}: rows must be whole numbers below {samples}, the number of samples with an id")


def _read(folder: Path, file: str, sha256: str, ids: Sequence[str]) -> dict[str, NDArray[Any]]:
    path = folder / file
    if Path(file).name != file:
        raise StoreError(f"{folder / INDEX} names a file that is not beside it")
    if not path.is_file() or file_sha256(path) != sha256:
        raise StoreError(f"{path} is missing or differs from its checksum")
    try:
        tensors: dict[str, NDArray[Any]] = load_file(path)
    except SafetensorError as error:
        raise StoreError(f"{path} is damaged: {error}") from error
    return tensors
