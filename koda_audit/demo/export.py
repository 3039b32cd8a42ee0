"""The demo's models, data and suite in a folder."""

from __future__ import annotations

from pathlib import Path

from koda_audit._files import check_writable, write_text
from koda_audit.demo.digits import write_webdatasets
from koda_audit.demo.models import write_models

SUITE = Path(__file__).with_name("suite.yaml")


def write_demo(folder: Path) -> Path:
    """Write what is not there yet; returns the suite's file, which is written anew.

    Raises:
        InputError: the folder cannot be written.
    """
    check_writable(folder, "the folder of the demo")
    write_models(folder / "models")
    write_webdatasets(folder / "data")
    write_text(folder / SUITE.name, SUITE.read_text("utf-8"))
    return folder / SUITE.name
