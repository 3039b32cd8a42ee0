"""koda_audit: what does this vision-language model see that the other does not?

Public names are loaded on first use, so that ``koda-audit --help`` never imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "Embeddings": "koda_audit.embeddings.container",
    "check": "koda_audit.gates.check",
    "find_discrepancies": "koda_audit.discrepancy.find",
    "fit_alignment": "koda_audit.alignment.fit",
    "gap_robustness": "koda_audit._gap.robustness",
    "load_alignment": "koda_audit.alignment.operator",
    "modality_gap": "koda_audit._gap.metrics",
    "run_suite": "koda_audit.suite.run",
    "similarity": "koda_audit._similarity.measure",
    "solve_contrast": "koda_audit._contrast.solve",
}
__all__ = [
    "Embeddings",
    "check",
    "find_discrepancies",
    "fit_alignment",
    "gap_robustness",
    "load_alignment",
    "modality_gap",
    "run_suite",
    "similarity",
    "solve_contrast",
]

if TYPE_CHECKING:
    from koda_audit._contrast.solve import solve_contrast
    from koda_audit._gap.metrics import modality_gap
    from koda_audit._gap.robustness import gap_robustness
    from koda_audit._similarity.measure import similarity
    from koda_audit.alignment.fit import fit_alignment
    from koda_audit.alignment.operator import load_alignment
    from koda_audit.discrepancy.find import find_discrepancies
    from koda_audit.embeddings.container import Embeddings
    from koda_audit.gates.check import check
    from koda_audit.suite.run import run_suite


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'koda_audit' has no attribute '{name}'")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
