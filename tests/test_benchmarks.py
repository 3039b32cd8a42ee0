"""The benchmarks run, on data too small to mean anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALL = {
    "baselines": ["--samples", "300", "--directions", "2", "--methods", "KODA", "SPEC"],
    "findings": ["--only", "gaussians", "n-300", "--sets", "1", "--methods", "exact", "SPEC", "RDX, told"],
    "speed": ["--samples", "300"],
    "gates": ["--sets", "2", "--samples", "50"],
    "evaluation": ["--images", "30", "--captions", "2", "--width", "8", "--runs", "1"],
}


@pytest.mark.parametrize("table", SMALL)
def test_a_table_is_printed(table: str) -> None:
    command = [sys.executable, "benchmarks", table, *SMALL[table]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "threads\n" in done.stdout


def test_the_tables_are_listed() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    tables = "speed gram memory random stability findings gates evaluation baselines suite alignment training gap"
    for table in tables.split():
        assert f"\n  {table}" in done.stdout
