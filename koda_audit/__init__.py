"""koda_audit: what does this vision-language model see that the other does not?

Public names are loaded on first use, so that ``koda-audit --help`` never imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "DataError": "koda_audit.errors",
    "Embeddings": "koda_audit.embeddings.container",
    "InputError": "koda_audit.errors",
    "KodaAuditError": "koda_audit.errors",
    "KodaAuditWarning": "koda_audit.errors",
    "ModelError": "koda_audit.errors",
    "PluginError": "koda_audit.errors",
    "StoreError": "koda_audit.errors",
    "SuiteError": "koda_audit.suite.load",
    "check": "koda_audit.gates.check",
    "embed": "koda_audit.notebook",
    "evaluate": "koda_audit.evaluation.tasks",
    "find_discrepancies": "koda_audit.discrepancy.find",
    "fit_alignment": "koda_audit.alignment.fit",
    "gap_robustness": "koda_audit.notebook",
    "load_alignment": "koda_audit.alignment.operator",
    "load_audit": "koda_audit.suite.run",
    "modality_gap": "koda_audit.notebook",
    "run_suite": "koda_audit.suite.run",
    "similarity": "koda_audit.notebook",
    "solve_contrast": "koda_audit._contrast.solve",
}
__all__ = [
    "DataError",
    "Embeddings",
    "InputError",
    "KodaAuditError",
    "KodaAuditWarning",
    "ModelError",
    "PluginError",
    "StoreError",
    "SuiteError",
    "check",
    "embed",
    "evaluate",
    "find_discrepancies",
    "fit_alignment",
    "gap_robustness",
    "load_alignment",
    "load_audit",
    "modality_gap",
    "run_suite",
    "similarity",
    "solve_contrast",
]

if TYPE_CHECKING:
    from koda_audit._contrast.solve import solve_contrast
    from koda_audit.alignment.fit import fit_alignment
    from koda_audit.alignment.operator import load_alignment
    from koda_audit.discrepancy.find import find_discrepancies
    from koda_audit.embeddings.container import Embeddings
    from koda_audit.errors import (
        DataError,
        InputError,
        KodaAuditError,
        KodaAuditWarning,
        ModelError,
        PluginError,
        StoreError,
    )
    from koda_audit.evaluation.tasks import evaluate
    from koda_audit.gates.check import check
    from koda_audit.notebook import embed, gap_robustness, modality_gap, similarity
    from koda_audit.suite.load import SuiteError
    from koda_audit.suite.run import load_audit, run_suite


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'koda_audit' has no attribute '{name}'")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
