"""Measurements of koda_audit, a table each.

python benchmarks TABLE [options]; python benchmarks TABLE --help says what is compared, and what the floor is.
Peaks are absolute: libraries, inputs and work. Lines on the error stream say what is running.
"""

from __future__ import annotations

import argparse
import json
from importlib import import_module

TABLES = {
    "speed": ("speed", "whole calls of find_discrepancies against one decomposition"),
    "gram": ("gram", "the symmetric Gram accumulation against a plain product"),
    # a file named random.py would hide the standard library's module from all others here
    "memory": ("memory", "peak memory of the reduced path, from shards on disk"),
    "random": ("random_features", "random features against the exact kernel: cost and error"),
    "stability": ("stability", "how much findings depend on the frequencies and on the samples"),
    "findings": ("findings", "what is called a finding, on null and on planted data"),
    "gates": ("gates", "how often gates fail where both sides are equally good"),
    "gap": ("gap", "the modality gap: seconds and memory of moments and of pairs"),
    "evaluation": ("evaluation", "recall and ten alignments from embeddings against the host's own evaluation"),
    "baselines": ("baselines", "other methods on the same kernels"),
    "suite": ("suite", "a whole suite: where its time goes, and what a rerun takes"),
    "alignment": ("alignment", "kernel alignment on drawn digits: what it changes"),
    "curriculum": ("curriculum", "the curriculum on drawn digits: what it changes"),
    "training": ("training", "kernel alignment of a tower against a bare loop"),
}


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    listed = "\n".join(f"  {name:10} {summary}" for name, (_, summary) in TABLES.items())
    parser = argparse.ArgumentParser("python benchmarks", description=__doc__, epilog=listed, formatter_class=raw)
    parser.add_argument("table", choices=TABLES, metavar="TABLE", help="see below")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="options of the table")
    chosen = parser.parse_args()
    # one table alone: what the others import would count in this one's memory
    table = import_module(TABLES[chosen.table][0])
    parser = argparse.ArgumentParser(
        f"python benchmarks {chosen.table}", description=table.__doc__, formatter_class=raw
    )
    table.add_options(parser)
    parser.add_argument("--side", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(chosen.rest)
    if options.side is None:
        table.run(options)
    else:
        print(json.dumps(table.side(**options.side)))


if __name__ == "__main__":
    main()
