"""The embeddings, models and data that the cells of a suite are computed from; imports torch."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from koda_audit.alignment.operator import load_alignment
from koda_audit.data.dataset import Dataset
from koda_audit.data.load import check_dataset, load_dataset
from koda_audit.embeddings.container import Embeddings
from koda_audit.embeddings.extract import embed
from koda_audit.embeddings.store import Store
from koda_audit.errors import StoreError
from koda_audit.models import LOCAL, LoadedModel, ModelSpec, check_model, load_model
from koda_audit.suite.cells import RECORD
from koda_audit.suite.plan import Cell, Plan

OPERATOR = "alignment"  # folder of a fitted alignment, or a trained model, in its cell
KEPT = 6  # embeddings in memory, as maps of files; models and datasets are kept one at a time


class Stock:
    """What cells of one plan need; the last used of it is kept in memory.

    Args:
        store: of embeddings.
        quiet: no progress bars.
    """

    def __init__(self, plan: Plan, store: Store, quiet: bool) -> None:
        self.plan, self.suite, self.store, self.quiet = plan, plan.suite, store, quiet
        device = self.suite.device
        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self._models: OrderedDict[Any, LoadedModel] = OrderedDict()
        self._data: OrderedDict[Any, Dataset] = OrderedDict()
        self._embedded: OrderedDict[Any, Embeddings] = OrderedDict()

    def aligned(self, cell: Cell, train: bool = False) -> Embeddings:
        """The embeddings of a cell under its alignment; those a probe is trained on may be what it was fitted on."""
        embedded = self.read(cell.needs[-1] if train else cell.needs[0])
        if cell.alignment is None:
            return embedded
        if cell.needs[1].step == "embed":  # by the aligned tower
            return embedded if train else self.read(cell.needs[1])
        folder = self.fitted(cell.needs[1])
        try:
            operator = load_alignment(folder)
        except StoreError as error:
            (folder.parent / RECORD).unlink(missing_ok=True)
            raise StoreError(f"{error}; run again, and it is fitted anew") from error
        if train:
            operator = replace(operator, info={**operator.info, "transductive": True})
        return operator.apply(embedded)

    def fitted(self, cell: Cell) -> Path:
        """The folder of what an "align" cell made."""
        key = self.plan.key(cell)
        assert key is not None
        return self.plan.finished.path(key) / OPERATOR

    def read(self, cell: Cell) -> Embeddings:
        """Embeddings of a finished cell, in the order of the dataset."""
        if cell not in self._embedded:
            key = self.plan.key(cell)
            assert key is not None
            record = self.plan.finished.read(key)
            assert record is not None
            found = self.store.complete(self.store.folder / record["facts"]["embedding"])
            found = self.extracted(cell) if found is None else found  # the store was emptied meanwhile
            found.meta["model"] = f"{cell.model} again" if cell.again else cell.model
            self._embedded[cell] = found.aligned_to(record["facts"]["ids"])
            while len(self._embedded) > KEPT:
                self._embedded.popitem(last=False)
        return self._embedded[cell]

    def extracted(self, cell: Cell) -> Embeddings:
        """The embeddings of an "embed" cell, computed where the store lacks them."""
        dataset = self.dataset(cell)
        return embed(
            self.model(cell, dataset.language),
            dataset,
            self.store,
            batch_size=self.suite.batch_size,
            workers=self.suite.num_workers,
            dtype=self.suite.dtype,
            quiet=self.quiet,
            other_batches=cell.again,
        )

    def model(self, cell: Cell, language: str) -> LoadedModel:
        """The model of an "embed" cell, or the tower that was aligned for it."""
        key = (cell.model, cell.alignment, language)
        if key not in self._models:
            self._models.clear()
            spec = self.spec(cell.model)
            if cell.alignment:
                spec = ModelSpec(f"{LOCAL}{self.fitted(cell.needs[0])}", allow_code=spec.allow_code)
            check_model(spec)
            self._models[key] = load_model(spec, self.device, language=language)
        return self._models[key]

    def spec(self, model: str) -> ModelSpec:
        """What the suite calls by that name."""
        named = self.plan.models[model]
        return ModelSpec(named.name, named.pretrained, named.model_type, self.plan.loaded.allow_code)

    def dataset(self, cell: Cell) -> Dataset:
        """The data of an "embed" cell."""
        named = self.plan.on(cell)
        if named not in self._data:
            self._data.clear()
            check_dataset(named.name, named.root, named.split)
            self._data[named] = load_dataset(
                named.name,
                named.root,
                named.split,
                language=named.language,
                annotation_file=named.annotation_file,
                classname_file=named.classname_file,
                template_file=named.template_file,
                hash_file=self.store.file_sha256,
            )
        return self._data[named]
