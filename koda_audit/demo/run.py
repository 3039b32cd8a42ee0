"""The embedded default: the demo's suite, offline, on models and data that come with the package.

``colour`` is compared with ``plain`` (trained without colour words), with ``broken`` (the same weights behind the wrong
preprocessing: an upgrade that broke in silence) and with ``reseeded`` (trained again with another seed).
"""

from __future__ import annotations

from pathlib import Path

from koda_audit._files import cache_folder
from koda_audit.demo.export import write_demo
from koda_audit.suite.command import tell, teller
from koda_audit.suite.run import run_suite


def main(output: Path, quiet: bool) -> int:
    """Run the suite into ``output``, and print what it shows and where the report lies.

    Returns:
        0, also where a gate failed, as those on ``broken`` must; 2 where a step or a gate has an error.

    Raises:
        KodaAuditError: a folder that cannot be written.
    """
    home = cache_folder() / "demo"
    suite = write_demo(home)
    audit = run_suite(suite, output, store=home / "store", quiet=quiet, say=teller(quiet))
    if not quiet:
        print("\nThe gates on `broken` fail, as they should: it is the upgrade that broke.")
    tell(audit, quiet)
    if not quiet:
        print(f"Again, or with changes of yours: koda-audit run {suite} --store {home / 'store'}")
    return 2 if audit.exit_code == 2 else 0
