"""Whether a path's matrices fit, before any is made."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from koda_audit.errors import InputError

DENSE = 6  # n x n float64 matrices at the peak; measured: 5, the two kernels and what makes the second
SAMPLE = 3  # n x D float64 matrices: features of both models, in chunks and whole
REDUCED = 4  # D x D float64 matrices: the sums, the Gram matrix, and what a block product holds


def check_memory(n: int, path: str, width: int, available: int | None, few: bool = False) -> None:
    """Stop where a path needs more bytes than there are; ``available`` None means unknown, and passes.

    Args:
        n: samples.
        path: "dense", "sample" or "reduced".
        width: columns of both models' features together.
        available: bytes.
        few: there are fewer samples than columns.

    Raises:
        InputError: it does not fit; the message states both numbers.

    >>> check_memory(2_000, "dense", 12_000, available=8 * 2**30)
    """
    needed = 8 * {"dense": DENSE * n * n, "sample": SAMPLE * n * width, "reduced": REDUCED * width * width}[path]
    if available is not None and needed > available:
        other = {"dense": "features='random'", "reduced": "fewer n_features"}.get(
            path, "fewer n_features" if few else "path='reduced'"
        )
        raise InputError(
            f"{n:,} samples need {needed:,} bytes ({needed / 2**30:.1f} GiB) on the {path} path, "
            f"and {available:,} ({available / 2**30:.1f} GiB) are free: take fewer samples or {other}"
        )


def available_memory(device: torch.device | None = None) -> int | None:
    """Bytes that can be had on the device without swapping, and within the limit of a container; None where the system
    does not tell.
    """
    if device is not None and device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    known = [free for free in (_of_machine(), _of_container()) if free is not None]
    return min(known, default=None)


def _of_machine() -> int | None:
    table = Path("/proc/meminfo")
    if table.exists():
        for line in table.read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return None


def _of_container(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """What the control groups (version 2) of this process leave it, with cached files; None without a limit."""
    try:
        (name,) = (line[3:] for line in own.read_text("utf-8").splitlines() if line.startswith("0::"))
    except (OSError, ValueError):
        return None
    here = root / name.lstrip("/")
    free = []
    for folder in (here, *here.parents):
        try:
            limit = (folder / "memory.max").read_text("ascii").strip()
            if limit.isdigit():
                used = int((folder / "memory.current").read_text("ascii"))
                stat = dict(line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
                free.append(max(int(limit) - used + int(stat.get("inactive_file", 0)), 0))
        except OSError:  # no such file: the folder is the root, or none of a control group
            continue
    return min(free, default=None)
