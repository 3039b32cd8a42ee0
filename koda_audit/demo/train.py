"""Train a demo model: ``python -m koda_audit.demo.train colour|plain --output DIR [--seed 0] [--steps N]``.

Both are ``open_clip.CLIP`` models with a small ModifiedResNet, trained contrastively on fresh drawings of the train
scans. ``colour`` reads captions of digit and colours; ``plain`` reads captions of the digit alone, so that colour is a
nuisance to it. The folder written is a ``local-dir:`` model whose weights are kept as fp16.

The same seed, torch and number of threads give the same weights. The shipped ones are the defaults with
OMP_NUM_THREADS=1, which took 8 minutes with both models training side by side on two cores.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Literal

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save

from koda_audit.demo.digits import CAPTION, CLASS_TEMPLATES, COLOURS, DIGITS, IMAGE_SIZE, draw, opacity, scans

Kind = Literal["colour", "plain"]

# A batch is captioned in one form, so that two of its captions are equal exactly when each is true of both images.
FORMS: dict[Kind, tuple[str, ...]] = {
    "colour": (CAPTION, CAPTION, *CLASS_TEMPLATES),
    "plain": (*CLASS_TEMPLATES, "a handwritten {c}", "a scan of the digit {c}"),
}

STEPS = 900
BATCH = 256
WARMUP = 50  # steps
PEAK_RATE = 1e-3  # learning rate
MAX_SCALE = 100.0  # of the logits, CLIP's own limit

PREPROCESS: dict[str, object] = {
    "size": [IMAGE_SIZE, IMAGE_SIZE],
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
# 49,408 words is the stock tokenizer's vocabulary; its table is most of the file, so the text tower is narrow.
ARCHITECTURE: dict[str, object] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": IMAGE_SIZE, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 48, "heads": 4, "layers": 2},
}


class Drawings:
    """The train scans, drawn afresh in every batch: other colours, and handwriting varied a little."""

    def __init__(self, generator: torch.Generator) -> None:
        pictures, digits = scans("train")
        self.opacities = torch.from_numpy(np.stack([opacity(scan) for scan in pictures]))[:, None]  # (n, 1, 64, 64)
        self.digits = torch.from_numpy(digits)
        self.palette = torch.tensor(list(COLOURS.values())) / 255  # (colours, 3)
        self.generator = generator

    def batch(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised images, (size, 3, 64, 64), and what they show, (size, 3): digit, ink and ground as numbers."""
        chosen = torch.randperm(len(self.digits), generator=self.generator)[:size]
        size = len(chosen)
        ink = torch.randint(len(COLOURS), (size,), generator=self.generator)
        step = torch.randint(1, len(COLOURS), (size,), generator=self.generator)
        ground = (ink + step) % len(COLOURS)  # never the ink's colour

        alpha = self._rewritten(self.opacities[chosen])
        ink_rgb, ground_rgb = (
            (self.palette[colour] + self._normal(0.03, size, 3))[:, :, None, None] for colour in (ink, ground)
        )
        images = alpha * ink_rgb + (1 - alpha) * ground_rgb
        images = (images + self._normal(0.02, *images.shape)).clamp(0, 1)
        mean, std = (torch.tensor(PREPROCESS[key])[:, None, None] for key in ("mean", "std"))
        return (images - mean) / std, torch.stack([self.digits[chosen], ink, ground], dim=1)

    def _rewritten(self, alpha: torch.Tensor) -> torch.Tensor:
        """The opacities, (n, 1, 64, 64), as another hand might have written them: slanted, bent, moved, bolder."""
        n = len(alpha)
        affine = torch.eye(2, 3).repeat(n, 1, 1) + self._normal(0.1, n, 2, 3)  # shifts: 1 is half an image
        bend = F.interpolate(self._normal(0.03, n, 2, 4, 4), alpha.shape[-2:], mode="bicubic", align_corners=True)
        grid = F.affine_grid(affine, list(alpha.shape), align_corners=False) + bend.permute(0, 2, 3, 1)
        alpha = F.grid_sample(alpha, grid, align_corners=False)
        return (alpha * (1 + self._normal(0.15, n, 1, 1, 1))).clamp(0, 1)

    def _normal(self, deviation: float, *shape: int) -> torch.Tensor:
        return deviation * torch.randn(*shape, generator=self.generator)


def caption(form: str, digit: int, ink: int, ground: int) -> str:
    """The form filled in; the three are numbers in DIGITS and COLOURS."""
    names = list(COLOURS)
    return form.format(digit=DIGITS[digit], c=DIGITS[digit], ink=names[ink], ground=names[ground])


def contrastive_loss(
    images: torch.Tensor, texts: torch.Tensor, text_of: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """CLIP's symmetric loss where several images may share a text: all of them are its positives.

    images: (n, d) and texts: (m, d), unit length, texts all distinct; text_of: (n,) rows of texts.
    With one image per text this is exactly the stock loss.
    """
    logits = scale * images @ texts.T
    positive = F.one_hot(text_of, len(texts)).T.float()
    to_images = (F.log_softmax(logits.T, dim=1) * positive).sum(dim=1) / positive.sum(dim=1)
    return (F.cross_entropy(logits, text_of) - to_images.mean()) / 2


def train(kind: Kind, output: Path, seed: int = 0, steps: int = STEPS, batch: int = BATCH) -> None:
    """Train one model and write it to ``output`` as a ``local-dir:`` folder."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = open_clip.CLIP(**ARCHITECTURE)
    tokenizer = open_clip.SimpleTokenizer(context_length=model.context_length)
    _clear_unread_words(model, kind, tokenizer)
    _open_blocks(model)

    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.05},
            {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=PEAK_RATE,
        betas=(0.9, 0.98),
    )
    drawings = Drawings(generator)
    model.train()
    model.visual.to(memory_format=torch.channels_last)  # twice as fast on a CPU
    started = time.monotonic()
    for step in range(steps):
        rate = PEAK_RATE * min((step + 1) / WARMUP, 0.5 + 0.5 * math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        images, shown = drawings.batch(batch)
        form = FORMS[kind][step % len(FORMS[kind])]
        captions = [caption(form, *row) for row in shown.tolist()]
        distinct = sorted(set(captions))
        text_of = torch.tensor([distinct.index(text) for text in captions])

        image_features = model.encode_image(images.contiguous(memory_format=torch.channels_last), normalize=True)
        text_features = model.encode_text(tokenizer(distinct), normalize=True)
        loss = contrastive_loss(image_features, text_features, text_of, model.logit_scale.exp())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(MAX_SCALE))
        if (step + 1) % 50 == 0:
            print(f"step {step + 1}/{steps}  loss {loss.item():.3f}  {time.monotonic() - started:.0f} s", flush=True)

    _write_model(model, output)


def accuracies(folder: Path) -> dict[str, float]:
    """How often the ``local-dir:`` model names the digit, the ink and the ground of the test drawings, in 0..1.

    Zero-shot, as CLIP-benchmark does it: a class is the mean of its prompts' features. For the digit these are
    the exported dataset's templates; for a colour, the full captions that name it, over all digits and other colours.
    """
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    samples = draw("test")

    def features(texts: list[str]) -> torch.Tensor:
        return F.normalize(model.encode_text(tokenizer(texts), normalize=True).mean(dim=0), dim=0)

    def accuracy(prompts: dict[str, list[str]], truth: list[str]) -> float:
        classes = torch.stack([features(texts) for texts in prompts.values()])
        names = list(prompts)
        found: list[str] = [names[column] for column in (images @ classes.T).argmax(dim=1).tolist()]
        return sum(a == b for a, b in zip(found, truth, strict=True)) / len(truth)

    pairs = [(ink, ground) for ink in COLOURS for ground in COLOURS if ink != ground]
    full = [(i, g, CAPTION.format(ink=i, digit=digit, ground=g)) for i, g in pairs for digit in DIGITS]
    with torch.no_grad():
        images = model.encode_image(torch.stack([preprocess(s.image) for s in samples]), normalize=True)
        return {
            "digit": accuracy(
                {d: [t.format(c=d) for t in CLASS_TEMPLATES] for d in DIGITS}, [DIGITS[s.digit] for s in samples]
            ),
            "ink": accuracy({c: [t for i, _, t in full if i == c] for c in COLOURS}, [s.ink for s in samples]),
            "ground": accuracy({c: [t for _, g, t in full if g == c] for c in COLOURS}, [s.ground for s in samples]),
        }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m koda_audit.demo.train", description="Train a demo model.")
    parser.add_argument("kind", choices=("colour", "plain"))
    parser.add_argument("--output", type=Path, required=True, help="folder for the config and the fp16 weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    train(arguments.kind, arguments.output, arguments.seed, arguments.steps)
    for name, value in accuracies(arguments.output).items():
        print(f"{name} accuracy {value:.3f}")


def _clear_unread_words(model: open_clip.CLIP, kind: Kind, tokenizer: open_clip.SimpleTokenizer) -> None:
    """Zero the token table's rows that no caption uses. They get no gradient, so they stay zero."""
    every = [
        caption(form, digit, ink, ground)
        for form in set(FORMS[kind])
        for digit in range(len(DIGITS))
        for ink in range(len(COLOURS))
        for ground in range(len(COLOURS))
    ]
    read = torch.zeros(model.vocab_size, dtype=torch.bool)
    read[tokenizer(sorted(set(every))).unique()] = True
    with torch.no_grad():
        model.token_embedding.weight[~read] = 0


def _open_blocks(model: open_clip.CLIP) -> None:
    """Let the residual blocks take part from the first step; stock ones start shut, too slow here."""
    for name, scale in model.visual.named_parameters():
        if name.endswith("bn3.weight"):
            torch.nn.init.ones_(scale)


def _write_model(model: open_clip.CLIP, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": ARCHITECTURE, "preprocess_cfg": PREPROCESS}
    (output / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    weights = {
        name: value.half().contiguous() if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }
    (output / "open_clip_model.safetensors").write_bytes(save(weights))


if __name__ == "__main__":
    main()
