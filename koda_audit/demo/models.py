"""The demo's models, as ``local-dir:`` folders that open_clip and CLIP-benchmark load like any other.

``colour``, ``plain`` and ``reseeded`` ship with the package, trained by ``koda_audit.demo.train``: ``colour`` learnt
digits and the colours of ink and ground; ``plain`` read captions of the digit only, so colour words are unknown to it
(their rows of the word table are zero) and colours are noise it learnt to ignore; ``reseeded`` is ``colour`` trained
with seed 1 instead of 0. ``broken`` is ``colour`` with the wrong preprocessing, as after an upgrade that went wrong in
silence.

Accuracies on the 397 test drawings, as ``koda_audit.demo.train.accuracies`` measures them (chance .10, .125, .125):

============  =====  ====  ======
model         digit  ink   ground
============  =====  ====  ======
``colour``    .990   .997  1.000
``plain``     .990   .121  .128
``reseeded``  .952   .972  1.000
``broken``    .746   .474  .594
============  =====  ====  ======
"""

from __future__ import annotations

import json
from pathlib import Path

from koda_audit._files import atomic_write

ASSETS = Path(__file__).with_name("assets")
CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"

# The slip: the statistics of MNIST, which images of digits invite. Nothing fails and nothing warns; digits on white are
# still read, digits on black (which MNIST's all are) no longer. Digit accuracy on the test drawings falls from .99 to
# .75. Other slips measured: CLIP's own statistics .985, 0.5 and 0.5 as for SigLIP .88, no normalisation at all .38.
BROKEN_PREPROCESS: dict[str, object] = {"mean": [0.1307, 0.1307, 0.1307], "std": [0.3081, 0.3081, 0.3081]}


def write_models(folder: Path) -> dict[str, Path]:
    """Write ``folder/colour`` and the others; files that are already there are kept."""
    models = {name: folder / name for name in ("colour", "plain", "reseeded", "broken")}
    for name, path in models.items():
        source = ASSETS / ("colour" if name == "broken" else name)
        config = (source / CONFIG).read_bytes()
        _write(path / CONFIG, _with_broken_preprocess(config) if name == "broken" else config)
        _write(path / WEIGHTS, (source / WEIGHTS).read_bytes())
    return models


def _with_broken_preprocess(config: bytes) -> bytes:
    broken = json.loads(config)
    broken["preprocess_cfg"] |= BROKEN_PREPROCESS
    return (json.dumps(broken, indent=2) + "\n").encode()


def _write(path: Path, content: bytes) -> None:
    if path.is_file() and path.read_bytes() == content:
        return  # an untouched file keeps its modification time, and with it whatever was cached for it
    with atomic_write(path) as stream:
        stream.write(content)
