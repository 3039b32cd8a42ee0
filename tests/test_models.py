from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import write_tiny_clip

from koda_audit.errors import InputError, ModelError
from koda_audit.models import ModelSpec, check_model, load_model


def local(folder: Path) -> ModelSpec:
    return ModelSpec(f"local-dir:{folder}")


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("ViT-B-23", "openai", "unknown model 'ViT-B-23': did you mean .*'ViT-B-32'"),
        ("ViT-B-32", "opnai", "unknown pretrained tag .*: did you mean 'openai'"),
        ("ViT-B-32", "", "would have random weights"),
        ("local-dir:/nowhere", "", "there is no folder /nowhere"),
        ("py:module:function", "", "add --allow-code"),
        ("py:module", "x", "add --allow-code"),
    ],
)
def test_a_wrong_name_is_found_before_loading(name: str, pretrained: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_model(ModelSpec(name, pretrained))


def test_a_folder_without_weights_is_not_a_random_model(tmp_path: Path) -> None:
    folder = write_tiny_clip(tmp_path / "m")
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(InputError, match="holds no weights"):
        check_model(local(folder))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", r"open_clip_config\.json:1: no JSON"),
        ("[]", "'model_cfg' must hold embed_dim, vision_cfg, text_cfg"),
        ('{"model_cfg": "x"}', "'model_cfg' must hold"),
        ('{"model_cfg": {"embed_dim": 8, "text_cfg": {}}}', "must hold vision_cfg"),
    ],
)
def test_a_bad_configuration_is_found_before_loading(tmp_path: Path, config: str, message: str) -> None:
    (tmp_path / "open_clip_config.json").write_text(config)
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=message):
        check_model(local(tmp_path))


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("this code ran",))


def test_bad_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_tiny_clip(tmp_path / "m")
    weights = folder / "open_clip_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="fails: SafetensorError"):
        load_model(local(folder))
    from safetensors.torch import save_file

    save_file({"foreign": torch.zeros(2)}, weights)
    with pytest.raises(ModelError, match=r"fails: RuntimeError: .*Missing key"):
        load_model(local(folder))
    weights.unlink()
    for name, content in (("whole", {"a": Evil()}), ("protocol", Evil())):
        (folder / "open_clip_pytorch_model.bin").write_bytes(pickle.dumps(content))
        with pytest.raises(ModelError, match="holds more than tensors and so could run code"):
            load_model(local(folder))
        assert "this code ran" not in capsys.readouterr().out, name


def test_identity_is_of_the_function_not_of_the_place(tiny_clip: Path, tiny_clip_2: Path, tmp_path: Path) -> None:
    here = load_model(local(tiny_clip)).identity
    copy = load_model(local(Path(shutil.copytree(tiny_clip, tmp_path / "copy")))).identity
    assert here == copy
    assert load_model(local(tiny_clip_2)).identity["weights"] != here["weights"]
    moved = load_model(local(write_tiny_clip(tmp_path / "p", mean=0.4))).identity
    assert moved["weights"] == here["weights"]
    assert moved["preprocess"] != here["preprocess"]
    config = json.loads((tmp_path / "copy" / "open_clip_config.json").read_text())
    config["model_cfg"]["quick_gelu"] = True  # the same weights, another function
    (tmp_path / "copy" / "open_clip_config.json").write_text(json.dumps(config))
    assert load_model(local(tmp_path / "copy")).identity != here


LOADER = """
import open_clip, torch
def good(pretrained, device):
    model, _, preprocess = open_clip.create_model_and_transforms("local-dir:" + pretrained)
    return model, preprocess, open_clip.get_tokenizer("local-dir:" + pretrained)
def random(pretrained, device):
    model, preprocess, tokenizer = good(pretrained, device)
    return model, lambda image: torch.rand(3, 32, 32), tokenizer
def pair(pretrained, device):
    return good(pretrained, device)[:2]
def leave(pretrained, device):
    raise SystemExit(0)
def listed(pretrained, device):
    model, preprocess, tokenizer = good(pretrained, device)
    return model, preprocess, lambda texts: tokenizer(texts).tolist()
def blind(pretrained, device):
    return object(), *good(pretrained, device)[1:]
"""


def test_a_users_own_loader(tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "my_loader.py"
    path.write_text(LOADER)
    by_path = load_model(ModelSpec(f"py:{path}:good", str(tiny_clip), allow_code=True))
    assert by_path.identity["weights"] == load_model(local(tiny_clip)).identity["weights"]
    monkeypatch.chdir(tmp_path)  # a console script does not have the working folder on its path
    assert load_model(ModelSpec("py:my_loader:good", str(tiny_clip), allow_code=True)).identity == by_path.identity
    for function, message in {
        "random": "its preprocessing is random",
        "pair": r"must return \(model, preprocess, tokenizer\)",
        "blind": "has no encode_image",
        "leave": "fails: SystemExit: 0",
        "listed": "its tokenizer returns list, expected a tensor",
        "god": "unknown function in .*: did you mean 'good'",
    }.items():
        with pytest.raises(ModelError, match=message):
            load_model(ModelSpec(f"py:{path}:{function}", str(tiny_clip), allow_code=True))
    with pytest.raises(ModelError, match="there is no module 'no_such_module'"):
        load_model(ModelSpec("py:no_such_module:f", "", allow_code=True))
    with pytest.raises(ModelError, match="there is no file"):
        load_model(ModelSpec("py:nowhere.py:f", "", allow_code=True))


def test_a_loader_runs_the_code_that_it_is_known_by(tmp_path: Path, tiny_clip: Path, tiny_clip_2: Path) -> None:
    """Edited in the same second and to the same size, which Python's own import takes for unchanged."""
    path, found = tmp_path / "stale.py", []
    for name, folder in (("one", tiny_clip), ("two", tiny_clip_2)):
        (tmp_path / name).symlink_to(folder)
        path.write_text(LOADER + f"def load(pretrained, device): return good({str(tmp_path / name)!r}, device)\n")
        os.utime(path, (0, 0))
        found.append(load_model(ModelSpec(f"py:{path}:load", "", allow_code=True)).identity)
        assert found[-1]["weights"] == load_model(local(folder)).identity["weights"]
    assert found[0]["architecture"]["source"] != found[1]["architecture"]["source"]


def test_a_package_that_changes_after_its_import_is_refused(
    tmp_path: Path, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "koda_test_package").mkdir()
    (tmp_path / "koda_test_package" / "__init__.py").touch()
    (tmp_path / "koda_test_package" / "loader.py").write_text(LOADER)
    (tmp_path / "koda_test_package" / "lacking.py").write_text("from .missing import x")
    monkeypatch.syspath_prepend(tmp_path)
    spec = ModelSpec("py:koda_test_package.loader:good", str(tiny_clip), allow_code=True)
    load_model(spec)
    with pytest.raises(ModelError, match=r"ModuleNotFoundError: No module named 'koda_test_package\.missing'"):
        load_model(ModelSpec("py:koda_test_package.lacking:f", allow_code=True))
    (tmp_path / "koda_test_package" / "loader.py").write_text(LOADER + "# changed\n")
    with pytest.raises(ModelError, match=r"'koda_test_package\.loader' was changed after it was imported"):
        load_model(spec)


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("class Odd(BaseException): ...\nraise Odd('boom')", "fails: Odd: boom"),
        ("class Odd(Exception):\n    def __str__(self): raise RuntimeError\nraise Odd", "fails: Odd$"),
        ("import asyncio\nraise asyncio.CancelledError", "fails: CancelledError$"),
    ],
)
def test_whatever_a_loader_raises_is_one_sentence(raised: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(raised)
    with pytest.raises(ModelError, match=said):
        check_model(ModelSpec(f"py:{tmp_path}/odd.py:load", allow_code=True))


def test_a_model_whose_attributes_fail(tmp_path: Path, tiny_clip: Path) -> None:
    odd = (
        LOADER
        + """
class Odd:
    state_dict = 3
    def encode_image(self, images): ...
    def encode_text(self, tokens): ...
def load(pretrained, device):
    return Odd(), *good(pretrained, device)[1:]
"""
    )
    (tmp_path / "attributes.py").write_text(odd)
    with pytest.raises(ModelError, match=r"attributes.py:load,.* fails: TypeError: 'int' object is not callable"):
        load_model(ModelSpec(f"py:{tmp_path}/attributes.py:load", str(tiny_clip), allow_code=True))


def test_a_repository_on_the_hub_from_its_cache(tiny_clip: Path, tmp_path: Path) -> None:
    """The real loading code of hf-hub:, offline, on a cache folder as the hub's client lays it out."""
    snapshot = tmp_path / "hub" / "models--me--tiny" / "snapshots" / "abc"
    shutil.copytree(tiny_clip, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    code = (
        "from koda_audit.models import ModelSpec, load_model\n"
        f"hub, local = (load_model(ModelSpec(name)).identity for name in ('hf-hub:me/tiny', 'local-dir:{tiny_clip}'))\n"
        "assert hub == local, (hub, local)"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=environment, capture_output=True)


def test_labels_and_parsing() -> None:
    assert ModelSpec.parse("ViT-B-32,openai") == ModelSpec("ViT-B-32", "openai")
    assert ModelSpec.parse("local-dir:/a/b") == ModelSpec("local-dir:/a/b", "")
    assert ModelSpec("local-dir:/a/b").label == "b"
    assert ModelSpec("py:a.py:load", __file__).label == "test_models"
    assert ModelSpec("py:a.py:load", "large").label == "load large"
    assert ModelSpec("ViT-B-32", "openai").label == "ViT-B-32 openai"
    for bad in ("", "a,b,c"):
        with pytest.raises(InputError):
            ModelSpec.parse(bad)


def test_a_bare_checkpoint_is_warned_about(tiny_clip: Path) -> None:
    with pytest.warns(UserWarning, match="takes architecture and preprocessing from 'ViT-B-32'"):
        check_model(ModelSpec("ViT-B-32", str(tiny_clip / "open_clip_model.safetensors")))


def test_the_quick_gelu_trap_is_loud(monkeypatch: pytest.MonkeyPatch, tiny_clip: Path) -> None:
    import warnings

    import clip_benchmark.models
    import open_clip

    def host(**_: object) -> tuple[object, object, object]:
        warnings.warn(
            "QuickGELU mismatch between final model config (quick_gelu=False) and pretrained tag.", stacklevel=2
        )
        model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tiny_clip}")
        return model, preprocess, open_clip.get_tokenizer(f"local-dir:{tiny_clip}")

    monkeypatch.setattr(clip_benchmark.models, "load_clip", host)
    with pytest.warns(UserWarning, match="Use 'ViT-L-14-quickgelu'"):
        loaded = load_model(ModelSpec("ViT-L-14", "openai"))
    assert loaded.identity["quick_gelu_mismatch"]
