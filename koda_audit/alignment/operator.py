"""A fitted alignment: what it does to embeddings, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from koda_audit.alignment import files
from koda_audit.alignment.maps import Map, mapped
from koda_audit.alignment.samples import ingredient, rows_sha256, sample_keys
from koda_audit.embeddings.container import Embeddings, check_embeddings
from koda_audit.embeddings.rows import Floats, Rows
from koda_audit.errors import InputError

FIELDS = ("image", "text", "class_text")


@dataclass(frozen=True, eq=False)
class Alignment:
    """What ``fit_alignment`` returns.

    Attributes:
        name: of the method.
        params: all of them, also those left at their default; an array is "given", its content is in ``maps``.
        info: provenance, in plain JSON types: definition, frame ("image" or "text" where the other side is moved there,
            else "shared"), paired, gallery_bound, transductive, renormalised, scoring, samples and texts (rows that
            were used), widths, rows (their sha256), model, model_hash, ingredients, figures.
        maps: what happens to each side; "text" stands for the class prompts too where the alignment is not bound.
        seen: hashes of the samples it was fitted on, sorted.
    """

    name: str
    params: Mapping[str, Any]
    info: Mapping[str, Any]
    maps: Mapping[str, Map]
    seen: NDArray[np.int64]

    def apply(self, embeddings: Embeddings) -> Embeddings:
        """The aligned embeddings, in the dtype they came in; ``meta["alignments"]`` lists what was applied.

        An alignment that is bound to a gallery keeps its two sides and leaves out a third.

        Raises:
            InputError: samples that the alignment was fitted on, unless that was with ``transductive=True``; other rows
                than those it is bound to, other widths, another model.
        """
        check_embeddings(embeddings, "embeddings")
        bound = self.info["gallery_bound"]
        sides = {name: values for name in FIELDS if (values := getattr(embeddings, name)) is not None}
        if bound:
            missing = [name for name in self.maps if name not in sides]
            if missing or rows_sha256(*(sides[name] for name in self.maps)) != self.info["rows"]:
                raise InputError(f"'{self.name}' is made from the rows it is applied to: fit it on these embeddings")
            sides = {name: sides[name] for name in self.maps}
        else:
            self._check(embeddings, sides)
        aligned = {name: mapped(values, self._map(name), name) for name, values in sides.items()}
        texts = "text" in aligned
        return Embeddings(
            aligned["image"],
            aligned.get("text"),
            ids=embeddings.ids,
            text_image=embeddings.text_image if texts else None,
            captions=embeddings.captions if texts else None,
            labels=embeddings.labels,
            class_text=aligned.get("class_text"),
            class_names=embeddings.class_names,
            meta={
                **embeddings.meta,
                "alignments": [
                    *embeddings.meta.get("alignments", ()),
                    {"name": self.name, "params": dict(self.params), **self.info},
                ],
            },
        )

    def save(self, folder: str | Path) -> None:
        """Write ``alignment.safetensors`` and ``alignment.json``; an alignment that lies there is replaced.

        Raises:
            InputError: no folder, or provenance that no file can hold.
            StoreError: the folder cannot be written; the alignment that lies there stays.
        """
        record = {"name": self.name, "params": dict(self.params), "info": dict(self.info)}
        files.write(folder, record, self.maps, self.seen)

    def _map(self, name: str) -> Map:
        return self.maps[name if name in self.maps else "text"]

    def _check(self, embeddings: Embeddings, sides: Mapping[str, Floats | Rows]) -> None:
        for name, values in sides.items():
            expected = self.info["widths"]["image" if name == "image" else "text"]
            if values.shape[1] != expected:
                raise InputError(f"{name} vectors have width {values.shape[1]}, '{self.name}' was fitted on {expected}")
        here, there = ingredient(embeddings, "model", "weights"), self.info["model_hash"]
        if None not in (here, there) and here != there:
            raise InputError(
                f"'{self.name}' was fitted on embeddings of {self.info['model']}, these are of "
                f"{embeddings.meta.get('model')}: fit it on this model"
            )
        if not self.info["transductive"] and len(self.seen):
            shared = int(np.isin(sample_keys(embeddings), self.seen).any(axis=1).sum())
            if shared:
                raise InputError(
                    f"at least {shared} of {len(embeddings)} samples were used to fit '{self.name}': apply it to "
                    "others, or allow that when you fit it (transductive: true in a suite, --koda_transductive, "
                    "transductive=True)"
                )


def load_alignment(folder: str | Path) -> Alignment:
    """Read what ``Alignment.save`` wrote. Nothing in the files is run, and they name no others.

    Raises:
        StoreError: missing or damaged; the message names the file.
    """
    record, maps, seen = files.read(Path(folder))
    return Alignment(record["name"], record["params"], record["info"], maps, seen)
