"""``python -m koda_audit.suite.publish`` writes ``schema.json``, the JSON Schema that editors check a suite against."""

from __future__ import annotations

import json
from pathlib import Path

from koda_audit._files import write_text
from koda_audit.suite.schema import Suite

FILE = Path(__file__).with_name("schema.json")


def published() -> str:
    """The JSON Schema as text."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Suite.model_json_schema()}
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    write_text(FILE, published())
