"""Tells clip_benchmark of koda_audit's tasks at the moment ``clip_benchmark.cli`` is imported, and never before.

clip_benchmark has no plugin point, so koda_audit.pth imports this module at every interpreter start: it must stay
small, import nothing that is not loaded anyway, and leave every other import alone. ``KODA_AUDIT_AUTOLOAD=0`` switches
it off; ``koda-audit doctor`` says whether it works.
"""

import os
import sys

TYPE_CHECKING = False  # the typing module would cost each interpreter start some milliseconds
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType
    from typing import Any

HOST = "clip_benchmark.cli"

# `python -m` runs the code of a module without importing it, so nobody could extend it. Import it, then start it.
START = f"""
if __name__ == "__main__":
    import sys
    from {HOST} import main
    sys.exit(main())
else:
    exec(__loader__.host.get_code({HOST!r}))
"""


class Finder:
    """Answers for the host's command line alone, with what the other finders answer and our loader around theirs."""

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        if name != HOST:
            return None
        for finder in sys.meta_path:
            find_spec = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find_spec(name, path, target) if find_spec and finder is not self else None
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = Loader(spec.loader)  # type: ignore[assignment]
                return spec
        return None


class Loader:
    """The host's own loader, which extends the module once it has run."""

    def __init__(self, host: "Any") -> None:
        self.host = host

    def create_module(self, spec: "ModuleSpec") -> "ModuleType | None":
        module: ModuleType | None = self.host.create_module(spec)
        return module

    def exec_module(self, module: "ModuleType") -> None:
        self.host.exec_module(module)
        try:
            from koda_audit.host.extension import extend

            extend(module)
        except Exception as error:  # the host must go on without us
            sys.stderr.write(
                f"koda_audit: its tasks are missing from clip_benchmark ({type(error).__name__}: {error}); "
                "run `koda-audit doctor`\n"
            )

    def get_code(self, name: str) -> "CodeType":
        return compile(START, f"<{__name__}>", "exec")

    def __getattr__(self, name: str) -> "Any":
        if name == "host":  # a copy made without __init__
            raise AttributeError(name)
        return getattr(self.host, name)


def install() -> None:
    """Put the finder first, once, unless the user said no."""
    if os.environ.get("KODA_AUDIT_AUTOLOAD") != "0" and not installed():
        sys.meta_path.insert(0, Finder())


def installed() -> bool:
    """Whether the finder is at work in this interpreter."""
    return any(type(finder).__module__ == __name__ for finder in sys.meta_path)


install()
