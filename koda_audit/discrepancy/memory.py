"""Whether the dense matrices fit, before any is made."""

from __future__ import annotations

import os
from pathlib import Path

from koda_audit.errors import InputError

MATRICES = 6  # n x n float64 matrices at the peak; measured: 5, the two kernels and what makes the second


def check_memory(n: int, available: int | None) -> None:
    """Stop where n samples need more bytes than there are; ``available`` None means unknown, and passes.

    Raises:
        InputError: it does not fit; the message states both numbers.

    >>> check_memory(2_000, available=8 * 2**30)
    """
    needed = MATRICES * 8 * n * n
    if available is not None and needed > available:
        most = int((available / MATRICES / 8) ** 0.5)
        raise InputError(
            f"{n:,} samples need {needed:,} bytes ({needed / 2**30:.1f} GiB) for dense kernel matrices, "
            f"and {available:,} ({available / 2**30:.1f} GiB) are free: use at most {most:,} samples"
        )


def available_memory() -> int | None:
    """Bytes that can be had without swapping; where the system does not tell, all there are; else None."""
    table = Path("/proc/meminfo")
    if table.exists():
        for line in table.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return None
