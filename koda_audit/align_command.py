"""``koda-audit align``: fit an alignment on a split of a dataset, and save it for the runner."""

from __future__ import annotations

import argparse

import pandas as pd

from koda_audit._files import check_writable
from koda_audit.alignment.fit import calibration_split
from koda_audit.alignment.operator import Alignment
from koda_audit.data.load import check_dataset
from koda_audit.embeddings.store import Store
from koda_audit.host.arguments import check_numbers, dataset_root
from koda_audit.host.options import default_store
from koda_audit.host.runner import embedded, load
from koda_audit.host_tasks.aligned_choice import Choice, check_share, label
from koda_audit.models import ModelSpec, check_model
from koda_audit.report.markdown import terminal_table


def align(args: argparse.Namespace) -> None:
    """Embed, fit, save, and print what was done.

    Raises:
        KodaAuditError: anything that the options get wrong, before a model is loaded where it can be known by then.
    """
    args.koda_store = args.koda_store or default_store()
    choice = Choice.named(args.name, args.set)
    spec = ModelSpec(args.model, args.pretrained)
    check_model(spec, args.koda_allow_code)
    check_numbers(args)
    check_share(args.koda_fit_share)
    check_dataset(args.dataset, dataset_root(args.dataset_root, args.dataset), args.split)
    Store(args.koda_store)
    check_writable(args.output, "--output")
    samples = embedded(args, spec, load(args, args.split))
    if args.koda_fit_share is not None:
        samples, _ = calibration_split(samples, args.koda_fit_share, args.seed)
    alignment = choice.fit(samples, None, args.koda_transductive)
    alignment.save(args.output)
    print(terminal_table(_table(alignment, args)))
    if not alignment.info["gallery_bound"]:
        base = f"{spec.name},{spec.pretrained}" if spec.pretrained else spec.name
        print(f"\nclip_benchmark eval --model_type koda_aligned --model {args.output} --pretrained {base} …")


def _table(alignment: Alignment, args: argparse.Namespace) -> pd.DataFrame:
    info = alignment.info
    share = "" if args.koda_fit_share is None else f", a share of {args.koda_fit_share} drawn with seed {args.seed}"
    rows = {
        "alignment": label(alignment),
        "definition": info["definition"],
        "model": f"{info['model']}, weights {info['model_hash'][:16]}",
        "fitted on": f"{info['samples']} images and {info['texts']} texts of {args.dataset}, {args.split}{share}",
        "scoring": info["scoring"],
        **{name.replace("_", " "): value for name, value in info["figures"].items() if not isinstance(value, list)},
        "saved in": str(args.output),
    }
    return pd.DataFrame({"what": list(rows), "value": pd.Series(list(rows.values()), dtype=object)})
