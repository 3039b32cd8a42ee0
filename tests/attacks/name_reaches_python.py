"""Every way in which the name of a model reaches a Python file, without permission."""

from pathlib import Path

import clip_benchmark.cli  # noqa: F401  (it makes our loaders known to the host, as an application may have done)
import torch
from attack import PAYLOAD, attacked, command, host, suite, write_tiny_clip, write_webdataset

from koda_audit import Embeddings, fit_alignment

data = write_webdataset(Path("data"), n=8, shards=1).absolute()
for split in ("train",):
    write_webdataset(data, n=8, shards=1, split=split)
tiny = write_tiny_clip(Path("model")).absolute()
Path("evil.py").write_text(f"open({str(Path(PAYLOAD).absolute())!r}, 'w')\ndef load(*_):\n    pass\n")
rows = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
fit_alignment("center", Embeddings(rows, rows.flip(0)), transductive=True).save(Path("aligned"))

PY, SENTENCE = "py:evil.py:load", "runs code of yours: add --allow-code"
base = ["--model_type", "koda_aligned", "--model", "aligned", "--pretrained", f"{PY},x"]
python = ["--model_type", "koda_python", "--model", PY, "--pretrained", "x"]
align = ["align", "center", "--dataset", "wds/w", "--dataset_root", data, "--output", "a", "--koda_store", "store"]
tower = ["align", "kuea", *align[2:], "--mode", "tower", "--model", f"local-dir:{tiny}", "--teacher", f"{PY},x"]
on = f"dataset: wds/w, root: {data}"
attacked(
    [
        *host("koda_modality_gap", ["--pretrained_model", f"{PY},x"], [data], SENTENCE),
        *host("koda_modality_gap", python, [data], SENTENCE),
        *host("koda_modality_gap", base, [data], SENTENCE),
        *host("zeroshot_retrieval", python, [data], SENTENCE),
        *host("zeroshot_retrieval", base, [data], SENTENCE),
        *host(
            "koda_similarity",
            ["--pretrained_model", f"local-dir:{tiny},x", "--koda_reference", f"{PY},x"],
            [data],
            SENTENCE,
        ),
        *command([*align, "--model", PY], SENTENCE),
        *command(tower, SENTENCE),
        *suite(f"model: '{PY}'", on, sentence=SENTENCE),
        *suite(f"model: '{PY}', model_type: koda_python", on, sentence=SENTENCE),
        *suite("model: 'evil.py:load', model_type: koda_python", on, sentence=SENTENCE),
        *suite(f"model: aligned, model_type: koda_aligned, pretrained: '{PY}'", on, sentence=SENTENCE),
    ]
)
