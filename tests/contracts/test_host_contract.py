"""What we rely on in clip_benchmark and open_clip. A failure here after an upgrade says what to look at."""

from __future__ import annotations

import inspect
import json
import sys

import pytest

TASKS = [
    "zeroshot_classification",
    "zeroshot_retrieval",
    "linear_probe",
    "captioning",
    "image_caption_selection",
    "auto",
]


@pytest.fixture(scope="module")
def cli():
    import clip_benchmark.cli

    return clip_benchmark.cli


def host(function):
    """The host's own function, whether or not the hook has extended the module."""
    return getattr(function, "koda_audit_host", function)


def parse(cli, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["clip_benchmark", *words])
    return host(cli.get_parser_args)()


@pytest.mark.parametrize(
    ("module", "name", "parameters"),
    [
        ("clip_benchmark.cli", "get_parser_args", []),
        ("clip_benchmark.cli", "main", []),
        ("clip_benchmark.cli", "main_eval", ["base"]),
        ("clip_benchmark.cli", "run", ["args"]),
        ("clip_benchmark.models", "load_clip", ["model_type", "model_name", "pretrained", "cache_dir", "device"]),
        ("clip_benchmark.datasets.builder", "get_dataset_collate_fn", ["dataset_name"]),
        ("clip_benchmark.datasets.builder", "get_dataset_default_task", ["dataset"]),
        (
            "clip_benchmark.datasets.builder",
            "build_dataset",
            [
                *("dataset_name", "root", "transform", "split", "download", "annotation_file", "language", "task"),
                *("wds_cache_dir", "custom_classname_file", "custom_template_file", "kwargs"),
            ],
        ),
    ],
)
def test_signatures(cli, module, name, parameters):
    assert list(inspect.signature(host(getattr(sys.modules[module], name))).parameters) == parameters


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("create_model_and_transforms", ["model_name", "pretrained", "device", "cache_dir"]),
        ("get_tokenizer", ["model_name"]),
        ("list_models", []),
        ("list_pretrained_tags_by_model", ["model"]),
        ("add_model_config", ["path"]),
    ],
)
def test_open_clip_has_what_we_call(name, parameters):
    import open_clip

    assert set(parameters) <= set(inspect.signature(getattr(open_clip, name)).parameters)


def test_open_clip_returns_model_and_two_transforms():
    import open_clip

    model, train, evaluation = open_clip.create_model_and_transforms("RN50", pretrained=None)
    assert callable(model.encode_image)
    assert callable(model.encode_text)
    assert callable(train)
    assert callable(evaluation)


def test_loaders_are_a_dict_and_the_list_that_the_parser_shows(cli):
    from clip_benchmark import models

    assert set(models.TYPE2FUNC) >= {"open_clip", "ja_clip"}
    assert models.MODEL_TYPES is cli.MODEL_TYPES
    assert list(models.TYPE2FUNC) == models.MODEL_TYPES


def test_collections_of_models_and_datasets(cli, tmp_path):
    assert ("ViT-B-32", "openai") in cli.model_collection["openai"]
    assert "imagenet1k" in cli.dataset_collection["imagenet_robustness"] + cli.dataset_collection["vtab+"]
    (tmp_path / "datasets.txt").write_text("cifar10\ncifar100\n")
    with pytest.warns(ResourceWarning):
        assert cli.get_dataset_collection_from_file(str(tmp_path / "datasets.txt")) == ["cifar10", "cifar100"]


def test_a_loader_is_called_by_these_keywords(cli, monkeypatch):
    from clip_benchmark import models

    monkeypatch.setitem(models.TYPE2FUNC, "open_clip", lambda **given: given)
    expected = {"model_name": "m", "pretrained": "p", "cache_dir": "c", "device": "cpu"}
    assert models.load_clip("open_clip", "m", "p", "c", "cpu") == expected


def test_the_parser_has_the_tasks_and_options_we_read(cli, monkeypatch, capsys):
    _, args = parse(cli, monkeypatch, "eval")
    assert args.which == "eval"
    assert args.task == "auto"
    read = "dataset dataset_root split model pretrained pretrained_model model_type amp num_workers batch_size seed"
    read += " language output verbose skip_existing distributed model_cache_dir wds_cache_dir annotation_file"
    read += " custom_classname_file custom_template_file train_split val_split skip_load"
    assert set(read.split()) <= set(vars(args))
    with pytest.raises(SystemExit) as left:
        parse(cli, monkeypatch, "eval", "--task", "no_such_task")
    assert left.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


def test_the_parser_can_be_extended_where_we_extend_it(cli, monkeypatch):
    parser, _ = parse(cli, monkeypatch)
    (commands,) = parser._subparsers._group_actions
    choice = commands.choices["eval"]._option_string_actions["--task"]
    assert list(choice.choices) == TASKS
    assert cli.argparse.ArgumentParser is type(parser)


def test_main_eval_calls_run_by_its_global_name_once_for_each_model_dataset_and_language(cli, monkeypatch):
    _, base = parse(
        cli,
        monkeypatch,
        "eval",
        "--pretrained_model",
        "a,1",
        "b,2",
        "--dataset",
        "x",
        "y",
        "--language",
        "en",
        "--quiet",
    )
    calls = []
    monkeypatch.setattr(
        cli, "run", lambda args: calls.append((args.model, args.pretrained, args.dataset, args.language))
    )
    host(cli.main_eval)(base)
    assert calls == [("a", "1", "x", "en"), ("a", "1", "y", "en"), ("b", "2", "x", "en"), ("b", "2", "y", "en")]


def test_main_calls_main_eval_by_its_global_name(cli, monkeypatch):
    called = []
    monkeypatch.setattr(sys, "argv", ["clip_benchmark", "eval"])
    monkeypatch.setattr(cli, "main_eval", called.append)
    host(cli.main)()
    assert len(called) == 1


def test_the_result_file(cli, monkeypatch, tmp_path):
    words = ["eval", "--dataset", "dummy", "--task", "zeroshot_retrieval", "--num_workers", "0", "--quiet"]
    _, base = parse(cli, monkeypatch, *words, "--output", str(tmp_path / "{dataset}_{model}_{task}_{language}.json"))
    base.model, base.pretrained, base.dataset, base.language = "m", "p", "dummy", "en"

    class Model:
        def eval(self):
            return self

    monkeypatch.setattr(cli, "load_clip", lambda **_: (Model(), lambda image: image, str))
    monkeypatch.setattr(cli.zeroshot_retrieval, "evaluate", lambda *_, **__: {"recall": 0.5})
    assert host(cli.run)(base) == 0
    assert json.loads((tmp_path / "dummy_m_zeroshot_retrieval_en.json").read_text()) == {
        "dataset": "dummy",
        "model": "m",
        "pretrained": "p",
        "task": "zeroshot_retrieval",
        "metrics": {"recall": 0.5},
        "language": "en",
    }


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # the host leaves its JSON files open
def test_build_passes_extra_keys_through(cli, monkeypatch, tmp_path):
    row = {"dataset": "d", "model": "m", "pretrained": "p", "task": "t", "metrics": {"koda_n": 1.0}, "language": "en"}
    (tmp_path / "one.json").write_text(json.dumps({**row, "reference": "r"}))
    monkeypatch.setattr(sys, "argv", ["clip_benchmark", "build", str(tmp_path / "one.json")])
    _, base = host(cli.get_parser_args)()
    base.output = str(tmp_path / "all.csv")
    cli.main_build(base)
    head = (tmp_path / "all.csv").read_text().splitlines()[0].split(",")
    assert {"koda_n", "reference", "model_fullname"} <= set(head)
