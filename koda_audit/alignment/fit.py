"""Fit an alignment of images and texts."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter, signature
from typing import Any, Literal

import numpy as np

from koda_audit._options import finite_number, whole_number
from koda_audit.alignment.choices import check_kinds
from koda_audit.alignment.maps import check_map, float64_units, mapped, renormalised
from koda_audit.alignment.methods import Method
from koda_audit.alignment.operator import FIELDS, Alignment
from koda_audit.alignment.samples import ingredient, rows_sha256, sample_keys
from koda_audit.embeddings.container import Embeddings, check_embeddings
from koda_audit.errors import InputError, unknown
from koda_audit.registry import alignments

Gallery = Literal["image", "text", "class_text"]
SCORING = {
    True: "rows have length 1: dot product, cosine and Euclidean distance rank alike",
    False: "rows are not brought to length 1: dot product, cosine and Euclidean distance may rank differently; "
    "compare only numbers of one scoring",
}


def fit_alignment(
    name: str, embeddings: Embeddings, *, transductive: bool = False, gallery: Gallery | None = None, **params: Any
) -> Alignment:
    """Fit an alignment of images and texts; ``koda_audit.alignment.methods`` lists those that come with the package.

    Vectors are brought to length 1 in float64 first. Those for any row are fitted on ``embeddings.pairs()``, one text
    an image (or on its images alone), and refuse samples that they were fitted on; those bound to a gallery are made
    from all rows of two sides, without labels.

    Args:
        name: of the method.
        embeddings: the calibration split, or what is evaluated where the method is bound to a gallery.
        transductive: allow it to be applied to the samples it was fitted on; recorded in ``info``.
        gallery: for methods bound to one, the side that is ranked: "text" (default; "class_text" where there is no
            text), "class_text" or "image".
        **params: of the method; ``Embeddings`` of the same samples, such as a teacher's, in any order.

    Raises:
        InputError: unknown name or parameter, a value out of range, fewer than 2 samples, no texts, unequal widths
            where the method needs equal ones.
        DataError: an image without a caption.

    >>> random = np.random.default_rng(0)
    >>> fit, test = (Embeddings(*random.normal(1, 1, (2, 20, 4))) for _ in range(2))
    >>> operator = fit_alignment("center_renorm", fit)
    >>> operator.apply(test).image.shape, operator.info["samples"], operator.info["frame"]
    ((20, 4), 20, 'shared')
    """
    check_embeddings(embeddings, "embeddings")
    method = alignments().load(name)
    bound = method.fitted_on == "gallery"
    alone = method.fitted_on == "images"
    arguments = method_arguments(method, params)
    first, second = _gallery_sides(embeddings, gallery) if bound else ("image", "text")
    if gallery is not None and not bound:
        raise InputError(f"'{name}' is applied to any row and has no gallery: leave gallery out")
    rows = {"image": embeddings.image} if alone else _rows(method, embeddings, first, second)
    missing = [side for side, values in rows.items() if values is None]
    if missing:
        raise InputError(
            f"'{name}' aligns {first} and {second}, and these embeddings have no {missing[0]}: embed it too"
        )
    if min(map(len, rows.values())) < 2:
        raise InputError(f"'{name}' needs at least 2 rows a side, found {min(map(len, rows.values()))}")
    given = {
        key: np.asarray(value.aligned_to(embeddings.ids).image) if isinstance(value, Embeddings) else value
        for key, value in arguments.items()
    }
    fitted = method.fit(*(float64_units(values) for values in rows.values()), **given)
    maps = {first: fitted.first, second: fitted.second}
    widths = {side: rows.get(side, rows[first]).shape[1] for side in maps}  # of images alone: texts share their space
    for side, how in maps.items():
        check_map(how, len(rows.get(side, ())), widths[side])
    figures = dict(fitted.figures)
    if fitted.measured is not None:
        figures |= fitted.measured(*(np.asarray(mapped(rows[side], how, side)) for side, how in maps.items()))
    normal = renormalised(tuple(maps.values()))
    info = {
        "definition": method.definition,
        "frame": first if fitted.frame == "first" else "shared",
        "paired": method.fitted_on == "pairs",
        "gallery_bound": bound,
        "transductive": bool(transductive) or bound,
        "renormalised": normal,
        "scoring": SCORING[normal],
        "samples": len(rows["image"]),
        "texts": len(rows.get(second if first == "image" else first, ())),
        "widths": widths,
        "rows": rows_sha256(*rows.values()),
        "model": embeddings.meta.get("model"),
        "model_hash": ingredient(embeddings, "model", "weights"),
        "ingredients": embeddings.meta.get("ingredients"),
        "figures": figures,
    }
    untouched = bound or method.fitted_on == "nothing"
    seen = np.empty(0, dtype=np.int64) if untouched else np.unique(sample_keys(embeddings))
    return Alignment(name, {key: _plain(value) for key, value in arguments.items()}, info, maps, seen)


def calibration_split(embeddings: Embeddings, share: float, seed: int = 0) -> tuple[Embeddings, Embeddings]:
    """About ``share`` of the samples to fit on, and the others to evaluate; drawn with ``seed``.

    Samples whose images have equal vectors stay on one side, so that none is evaluated that was fitted on.

    Raises:
        InputError: a share outside (0, 1), or one that leaves a side with fewer than 2 samples.

    >>> fit, rest = calibration_split(Embeddings(np.random.default_rng(0).normal(size=(10, 2))), 0.4)
    >>> fit.ids, rest.ids
    (('2', '4', '7', '9'), ('0', '1', '3', '5', '6', '8'))
    """
    whole_number(seed, "seed")
    if not 0 < finite_number(share, "share") < 1:
        raise InputError(f"a share of {share} of the samples to fit on: expected more than 0 and less than 1")
    _, first, image = np.unique(sample_keys(embeddings)[:, 1], return_index=True, return_inverse=True)
    place = np.random.default_rng([seed, 0]).permutation(len(embeddings))[first[image]]
    fitted = place < round(share * len(embeddings))
    sides = np.flatnonzero(fitted), np.flatnonzero(~fitted)
    if min(map(len, sides)) < 2:
        raise InputError(f"a share of {share} of {len(embeddings)} samples leaves fewer than 2 on one side")
    return embeddings.take(sides[0]), embeddings.take(sides[1])


def method_arguments(method: Method, params: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of the method's formula, given or default.

    Raises:
        InputError: one that it does not have, or lacks; a value of another kind than its formula takes.
    """
    sides = 1 if method.fitted_on == "images" else 2
    known = {name: part.default for name, part in list(signature(method.fit).parameters.items())[sides:]}
    for name in params:
        if name not in known:
            if not known:
                raise InputError(f"'{method.name}' has no parameters, got '{name}'")
            raise InputError(unknown(f"parameter of '{method.name}'", name, known))
    check_kinds(method.fit, params)
    arguments = {**known, **params}
    missing = [name for name, value in arguments.items() if value is Parameter.empty]
    if missing:
        raise InputError(f"'{method.name}' needs {', '.join(missing)}")
    return arguments


def _rows(method: Method, embeddings: Embeddings, first: str, second: str) -> dict[str, Any]:
    """The rows of both sides that the method is fitted on."""
    if method.fitted_on == "gallery":
        return {side: getattr(embeddings, side) for side in (first, second)}
    if method.fitted_on == "nothing":  # there need be no pairs
        return {
            "image": embeddings.image,
            "text": embeddings.class_text if embeddings.text is None else embeddings.text,
        }
    if embeddings.text is None and embeddings.labels is not None and embeddings.labels.ndim == 2:
        raise InputError(
            f"'{method.name}' is fitted on images with one text each, and these have several labels: "
            "fit it on a dataset with captions or with one label an image"
        )
    pairs = embeddings.pairs()
    return {"image": pairs.image, "text": pairs.text}


def _gallery_sides(embeddings: Embeddings, gallery: Gallery | None) -> tuple[str, str]:
    """Queries and gallery: images ask texts, texts ask images."""
    texts = "class_text" if embeddings.text is None and embeddings.class_text is not None else "text"
    chosen = gallery or texts
    if chosen not in FIELDS:
        raise InputError(unknown("gallery", str(chosen), FIELDS))
    return (texts, "image") if chosen == "image" else ("image", chosen)


def _plain(value: Any) -> Any:
    if isinstance(value, Embeddings):
        hashes = {"model_hash": ingredient(value, "model", "weights"), "rows": rows_sha256(value.image)}
        return {"model": value.meta.get("model"), **hashes}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return value.item() if getattr(value, "ndim", 1) == 0 else "given"
