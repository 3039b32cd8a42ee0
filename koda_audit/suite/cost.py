"""What is left to do of a suite, for a reader: cells, samples, bytes. No weights are loaded."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tabulate import tabulate

from koda_audit.document import printable
from koda_audit.suite.names import HUB, PYTHON, DataName, ModelName
from koda_audit.suite.plan import Plan

UNKNOWN = "unknown until first build"


def described(plan: Plan, quiet: bool = False) -> str:
    """A line a cell (not when ``quiet``), and the sums."""
    sizes = _sizes(plan)
    rows, states, bytes_left, unknown = [], Counter[str](), 0, 0
    for cell in plan.cells:
        state = "cached" if plan.done(cell) else "to do"
        kind = "extract" if cell.step == "embed" else "compute"
        states[f"{kind} {state}"] += 1
        n = sizes.get(plan.on(cell))
        width = _width(plan.models[cell.model])
        # vectors are float32; each image has a text at least, or the classes have
        cost = None if n is None or width is None else 4 * n * width * (2 if plan.on(cell).kind == "captions" else 1)
        if kind == "extract" and state == "to do":
            bytes_left += cost or 0
            unknown += cost is None
        shown = (
            ("", "") if kind == "compute" else (UNKNOWN if n is None else n, UNKNOWN if cost is None else _size(cost))
        )
        rows.append((printable(cell.name), *shown, state))
    table = tabulate(rows, headers=["step", "samples", "at least", "state"], tablefmt="simple", disable_numparse=True)
    more = f" and {unknown} of a size that is {UNKNOWN}" if unknown else ""
    sums = (
        f"embeddings: {states['extract to do']} to extract ({_size(bytes_left)} at least{more}), "
        f"{states['extract cached']} cached; "
        f"everything else: {states['compute to do']} to compute, {states['compute cached']} cached"
    )
    return sums if quiet else f"{table}\n\n{sums}"


def _sizes(plan: Plan) -> dict[DataName, int]:
    """Samples of each dataset, where something of it was embedded or its shards can be counted."""
    found: dict[DataName, int] = {}
    for cell in plan.cells:
        if cell.step != "embed":
            continue
        key, data = plan.key(cell), plan.on(cell)
        record = None if key is None else plan.finished.read(key)
        if record is not None:
            found[data] = record["facts"]["n"]
        elif data not in found and data.base is not None:
            counted = _counted(data, data.base)
            found |= {} if counted is None else {data: counted}
    return found


def _counted(data: DataName, base: Path) -> int | None:
    """Samples of a local webdataset or folder, by the headers and names of their files."""
    import tarfile

    from koda_audit.suite.names import WEBDATASET

    endings = (".webp", ".png", ".jpg", ".jpeg")
    folder = base / data.split
    try:
        if data.name.startswith(WEBDATASET):
            keys = set()
            for shard in folder.glob("*.tar"):
                with tarfile.open(shard) as archive:
                    keys |= {(shard, name.rpartition(".")[0]) for name in archive.getnames() if name.endswith(endings)}
            return len(keys)
        return sum(path.suffix.lower() in endings for path in (folder if folder.is_dir() else base).rglob("*"))
    except (OSError, tarfile.TarError):
        return None


def _width(model: ModelName) -> int | None:
    """The width of a model's vectors, where a file says so."""
    if model.name.startswith((HUB, PYTHON)):
        return None
    if model.folder is not None:
        file = model.folder / "open_clip_config.json"
    else:
        from importlib.util import find_spec

        host = find_spec("open_clip")
        assert host is not None
        assert host.origin is not None
        file = Path(host.origin).parent / "model_configs" / f"{model.name}.json"
    try:
        config: Any = json.loads(file.read_text("utf-8"))
        return int(config.get("model_cfg", config)["embed_dim"])
    except (OSError, ValueError, TypeError, LookupError):
        return None


def _size(count: float) -> str:
    """
    >>> _size(1_500_000)
    '1.5 MB'
    """
    power = 0
    while count >= 1000 and power < 4:
        count, power = count / 1000, power + 1
    return f"{count:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
