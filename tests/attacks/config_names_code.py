"""A model folder whose configuration tells transformers to trust the Python files beside it."""

import json
from pathlib import Path

from attack import PAYLOAD, attacked, command, host, suite, write_tiny_clip, write_webdataset

data = write_webdataset(Path("data"), n=4, shards=1)
write_webdataset(Path("data"), n=4, shards=1, split="train")
model = write_tiny_clip(Path("model"))
config = json.loads((model / "open_clip_config.json").read_text())
config["model_cfg"]["text_cfg"].update({"hf_tokenizer_name": "x", "tokenizer_kwargs": {"trust_remote_code": True}})
(model / "open_clip_config.json").write_text(json.dumps(config))
(model / "tokenizer_config.json").write_text(
    json.dumps({"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}})
)
(model / "config.json").write_text(json.dumps({"model_type": "bert"}))
(model / "evil.py").write_text(
    f"open({str(Path(PAYLOAD).absolute())!r}, 'w')\n"
    "from transformers import PreTrainedTokenizer\n"
    "class Evil(PreTrainedTokenizer):\n    pass\n"
)

SENTENCE = "'text_cfg.tokenizer_kwargs' holds 'trust_remote_code', which is not known to be mere data"
named = f"local-dir:{model}"
fit = ["align", "curriculum", "--model", named, "--dataset", "wds/w", "--dataset_root", data, "--output", "a"]
attacked(
    [
        *suite(f"model: '{named}'", f"dataset: wds/w, root: {data}", sentence=SENTENCE),
        *host("koda_modality_gap", ["--pretrained_model", f"{named},x"], [data, "--koda_store", "store"], SENTENCE),
        *command([*fit, "--koda_store", "store"], SENTENCE),
        *command([*fit[:-2], "--mode", "tower", "--output", "b", "--koda_store", "store"], SENTENCE),
    ]
)
