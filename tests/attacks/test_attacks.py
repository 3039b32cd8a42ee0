"""Each script of this folder is an abuse of the product that must fail; it gets a process and folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ATTACKS = sorted(path.name for path in HERE.glob("*.py") if path.name not in ("attack.py", Path(__file__).name))


@pytest.mark.parametrize("script", ATTACKS)
def test_the_attack_is_refused(script: str, tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "KODA_AUDIT_AUTOLOAD": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", HERE / script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "refused\n"
