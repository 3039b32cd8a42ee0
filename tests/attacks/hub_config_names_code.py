"""The same configuration in a repository on the hub, as its client keeps it; the code is asked for by the tokenizer."""

import json
import os
from pathlib import Path

os.environ.update(HF_HOME=str(Path("hf").absolute()), HF_HUB_OFFLINE="1")

from attack import PAYLOAD, attacked, host, suite, write_tiny_clip, write_webdataset

COMMIT = "0123456789abcdef0123456789abcdef01234567"
data = write_webdataset(Path("data"), n=4, shards=1)
for repository in ("model", "tokenizer"):
    place = Path("hf/hub") / f"models--evil--{repository}"
    write_tiny_clip(place / "snapshots" / COMMIT)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)
model, tokenizer = (Path(f"hf/hub/models--evil--{name}/snapshots/{COMMIT}") for name in ("model", "tokenizer"))
config = json.loads((model / "open_clip_config.json").read_text())
text = {"hf_tokenizer_name": "evil/tokenizer", "tokenizer_kwargs": {"trust_remote_code": True}}
config["model_cfg"]["text_cfg"].update(text)
(model / "open_clip_config.json").write_text(json.dumps(config))
(tokenizer / "tokenizer_config.json").write_text(
    json.dumps({"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}})
)
(tokenizer / "config.json").write_text(json.dumps({"model_type": "bert"}))
(tokenizer / "evil.py").write_text(
    f"open({str(Path(PAYLOAD).absolute())!r}, 'w')\n"
    "from transformers import PreTrainedTokenizer\n"
    "class Evil(PreTrainedTokenizer):\n    pass\n"
)

SENTENCE = "'text_cfg.tokenizer_kwargs' holds 'trust_remote_code', which is not known to be mere data"
attacked(
    [
        *suite("model: 'hf-hub:evil/model'", f"dataset: wds/w, root: {data}", sentence=SENTENCE),
        *host("koda_modality_gap", ["--pretrained_model", "hf-hub:evil/model,x"], [data], SENTENCE),
    ]
)
