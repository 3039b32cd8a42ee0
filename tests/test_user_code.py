"""All ways in which the name of a model reaches Python; tests/attacks/name_reaches_python.py walks them."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import transformers.dynamic_module_utils as remote
from conftest import write_tiny_clip

from koda_audit.errors import InputError
from koda_audit.model_config import check_config, never_asking
from koda_audit.models import ModelSpec, check_model, load_model
from koda_audit.user_code import allowed_in_host, check_permission, is_allowed_in_host, names_code

REACHES = {
    ("py:module:f", "", "open_clip"): "py:module:f",
    ("py:file.py:f", "x.pt", "ja_clip"): "py:file.py:f",
    ("module:f", "", "koda_python"): "module:f",
    ("aligned", "py:file.py:f,x", "koda_aligned"): "py:file.py:f",
    ("ViT-B-32", "openai", "open_clip"): None,
    ("local-dir:py:x", "py:y:z", "open_clip"): None,  # a folder; open_clip ignores what follows
    ("py", "x", "open_clip"): None,
    ("hf-hub:a/b", "", "open_clip"): None,
    ("aligned", "local-dir:x", "koda_aligned"): None,
}


@pytest.mark.parametrize(("name", "found"), REACHES.items())
def test_every_way_to_python_is_seen(name: tuple[str, str, str], found: str | None) -> None:
    assert names_code(*name) == found
    check_permission(True, *name)
    if found is None:
        check_permission(False, *name)
        return
    for refuse in (lambda: check_permission(False, *name), lambda: check_model(ModelSpec(*name))):
        with pytest.raises(InputError, match=f"model '{found}' runs code of yours: add --allow-code"):
            refuse()


def test_the_permission_of_the_hosts_command_line_ends_with_it() -> None:
    with allowed_in_host(True):
        assert is_allowed_in_host()
    assert not is_allowed_in_host()


@pytest.mark.parametrize("name", open_clip.list_models())
def test_every_configuration_of_open_clip_is_data(name: str) -> None:
    check_config(open_clip.get_model_config(name), name)


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ("text_cfg.tokenizer_kwargs", "trust_remote_code", True),
        ("text_cfg.tokenizer_kwargs", "code_revision", "main"),
        ("multimodal_cfg.tokenizer_kwargs", "trust_remote_code", True),
        ("text_cfg", "auto_map", {}),
        ("vision_cfg", "model_args", {}),
        ("model_cfg", "trust_remote_code", True),
    ],
)
def test_what_may_name_code_is_refused_until_allowed(place: str, key: str, value: object, tmp_path: Path) -> None:
    folder = write_tiny_clip(tmp_path)
    file = folder / "open_clip_config.json"
    config = json.loads(file.read_text())
    inner = config["model_cfg"]
    for part in place.split("."):
        inner = inner if part == "model_cfg" else inner.setdefault(part, {})
    inner[key] = value
    file.write_text(json.dumps(config))
    for refuse in (check_model, load_model):
        with pytest.raises(InputError, match=f"'{place}' holds '{key}', which is not known to be mere data"):
            refuse(ModelSpec(f"local-dir:{folder}"))
    check_model(ModelSpec(f"local-dir:{folder}", allow_code=True))


def test_transformers_never_asks_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    with never_asking(), pytest.raises(ValueError, match="requires you to execute custom code"):
        remote.resolve_trust_remote_code(None, "evil/model", has_local_code=False, has_remote_code=True)
    assert remote.TIME_OUT_REMOTE_CODE > 0
