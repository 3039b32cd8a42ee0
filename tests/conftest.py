"""Small real models and data that the tests make themselves."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    import torch

collect_ignore_glob = ["attacks/[!t]*.py"]  # scripts, which attacks/test_attacks.py runs

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def write_tiny_clip(folder: Path, seed: int = 0, mean: float = 0.5) -> Path:
    """A random open_clip model in local-dir form."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = open_clip.CLIP(**json.loads(json.dumps(TINY)))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    config = {"model_cfg": TINY, "preprocess_cfg": {"mean": [mean] * 3, "std": [0.5] * 3, "size": [32, 32]}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def write_webdataset(folder: Path, n: int = 20, shards: int = 2, kind: str = "retrieval", split: str = "test") -> Path:
    """A stock webdataset of noise images; even samples have two captions."""
    random = np.random.default_rng(0)
    (folder / split).mkdir(parents=True, exist_ok=True)
    for number in range(shards):
        with tarfile.open(folder / split / f"{number}.tar", "w") as archive:
            for row in range(number, n, shards):
                buffer = io.BytesIO()
                Image.fromarray(random.integers(0, 256, (24, 40, 3), dtype=np.uint8)).save(buffer, "PNG")
                captions = [f"photo number {row}"] + ([f"again {row}"] if row % 2 == 0 else [])
                parts = {"png": buffer.getvalue(), "txt": "\n".join(captions).encode(), "cls": str(row % 3).encode()}
                for ending, content in parts.items():
                    member = tarfile.TarInfo(f"s{row:04d}.{ending}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    (folder / split / "nshards.txt").write_text(str(shards))
    (folder / "dataset_type.txt").write_text(kind)
    (folder / "classnames.txt").write_text("cat\ndog\nbird\n")
    (folder / "zeroshot_classification_templates.txt").write_text("a photo of a {c}\na drawing of a {c}\n")
    return folder


def kernel_matrix(name: str, vectors: dict[str, torch.Tensor], sigmas: dict[str, float] | None = None) -> torch.Tensor:
    """K/n of all samples, (n, n)."""
    from koda_audit._kernels.table import kernel_blocks

    return kernel_blocks(name, vectors, sigmas or {}).matrix()


def polynomial_matrix(vectors: dict[str, torch.Tensor], degree: int = 3, offset: float = 1.0) -> torch.Tensor:
    """K/n of any polynomial kernel, (n, n)."""
    from koda_audit._kernels.polynomial import polynomial, polynomial_points

    points = polynomial_points(vectors, offset)
    return polynomial(points, points, degree) / len(points[0])


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_clip_2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("models") / "tiny2", seed=1)


@pytest.fixture(scope="session")
def captions_wds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_webdataset(tmp_path_factory.mktemp("data") / "captions")


@pytest.fixture(scope="session")
def classes_wds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_webdataset(tmp_path_factory.mktemp("data") / "classes", kind="classification")
