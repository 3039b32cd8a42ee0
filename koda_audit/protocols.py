"""What a number was measured by: readable, signed with a digest, and compared key by key.

A protocol signs one number and not all of its task: another measure, another recall, or more trials of a noise that
does not act on it leave its protocol, and so its baseline, as they were.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koda_audit._files import digest, strict
from koda_audit.results import signature

if TYPE_CHECKING:
    from koda_audit.tasks.protocol import Number

FILE = "protocols.json"  # beside the table of results: digest -> protocol
Protocol = Mapping[str, Any]
Data = tuple[str, str, str]  # split, fingerprint of the samples, digest of the prompts


def protocol_of(
    task: str, version: int, number: Number, data: Iterable[Data], alignments: Iterable[Mapping[str, Any]] = ()
) -> Protocol:
    """What a number depends on besides the models that are measured, in plain types.

    Args:
        version: of the task.
        data: of all samples that it is made of, and that alignments or probes were fitted on.
        alignments: how the embeddings were aligned.
    """
    samples = " + ".join(f"{split} {found[:16]} {prompts[:16]}" for split, found, prompts in sorted(set(data)))
    aligned = {f"alignment {name}": value for one in alignments for name, value in one.items()}
    own = strict(dict(number.settings))
    return {"task": task, "version": version, "metric": number.metric, **own, **aligned, "data": samples}


def data_of(ingredients: Mapping[str, Any]) -> Data:
    """Of embeddings, from what they were made of."""
    dataset = ingredients["dataset"]
    return dataset["split"], dataset["fingerprint"], digest(ingredients["prompts"])


def readable(protocol: Protocol) -> str:
    """One line.

    >>> readable({"task": "koda_similarity", "version": 1, "k": 10})
    'task:koda_similarity|version:1|k:10'
    """
    return "|".join(f"{key}:{value}" for key, value in protocol.items())


def signed(protocols: Iterable[Protocol]) -> dict[str, Protocol]:
    """By digest, as in the table of results."""
    return {signature(protocol): protocol for protocol in protocols}


def differing(ours: Protocol, theirs: Protocol) -> str:
    """Which keys differ, and how.

    >>> differing({"trials": 5, "seed": 0}, {"trials": 6, "seed": 0})
    'trials is 5 and was 6'
    """
    keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    return "; ".join(f"{key} is {ours.get(key)} and was {theirs.get(key)}" for key in keys)


def read(folder: Path) -> Mapping[str, Protocol]:
    """Those of an audit or a baseline; none of one that was written before they were kept.

    Raises:
        OSError, ValueError: the file cannot be read.
    """
    path = folder / FILE
    found = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if not isinstance(found, dict) or not all(isinstance(protocol, dict) for protocol in found.values()):
        raise ValueError("expected a mapping of protocols")
    return found
