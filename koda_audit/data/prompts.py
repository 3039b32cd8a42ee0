"""Class names and prompts, and the host's two files that replace those of a dataset."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from koda_audit.errors import DataError, InputError, unknown


def class_prompts(name: str, templates: Any) -> list[str]:
    """The prompts of a class: a template for each with {c} replaced, or its own list where templates are a dict.

    Raises:
        DataError: there are no templates, none for this class, or one that is not text around {c}.

    >>> class_prompts("cat", ["a photo of a {c}", "a drawing of a {c}"])
    ['a photo of a cat', 'a drawing of a cat']
    """
    if isinstance(templates, dict):
        if name not in templates:
            raise DataError(f"no prompts for class '{name}' in the template file")
        return list(templates[name])
    if not templates:
        raise DataError("the dataset has no prompt templates: add zeroshot_classification_templates.txt")
    for template in templates:
        # the host formats them; without other braces, replacing gives the same and runs nothing
        around = template.split("{c}")
        if len(around) == 1 or any(brace in text for text in around for brace in "{}"):
            raise DataError(f"the prompt template '{template}' must hold {{c}} for the class name, and no other braces")
    return [template.replace("{c}", name) for template in templates]


def custom_class_names(path: str | None, dataset: str) -> Any:
    """The names that the host's --custom_classname_file gives to a dataset, or None without such a file.

    Raises:
        InputError: the file cannot be read, lacks the dataset, or has another shape than the host expects.
    """
    return _entry(path, _keys(dataset), _is_texts, "a list of class names")


def custom_templates(path: str | None, dataset: str) -> Any:
    """The same for --custom_template_file, where the host falls back to the templates of ImageNet."""

    def fits(value: Any) -> bool:
        return bool(value) and all(map(_is_texts, value.values())) if isinstance(value, dict) else _is_texts(value)

    expected = "a list of templates, or an object with a list of prompts for each class"
    return _entry(path, [*_keys(dataset), "imagenet1k"], fits, expected)


def _entry(path: str | None, keys: list[str], fits: Callable[[Any], bool], expected: str) -> Any:
    if not path:
        return None
    try:
        file = Path(path)
        if not file.exists():  # the host also looks among its own files
            import clip_benchmark.datasets as own

            file = Path(own.__path__[0]) / path
        table = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(table, dict) or not table:
        raise InputError(f"{path} must be a JSON object with datasets as keys, such as '{keys[0]}'")
    key = next((key for key in keys if key in table), None)
    if key is None:
        raise InputError(f"{path} has no entry for '{keys[0]}': {unknown('key', keys[0].split('/')[-1], table)}")
    if not fits(table[key]):
        raise InputError(f"{path}: the entry '{key}' must be {expected}, none of them empty")
    return table[key]


def _keys(dataset: str) -> list[str]:
    """Where the host looks for a dataset: its name, with and without a prefix."""
    prefix, _, short = dataset.partition("/")
    return [dataset, short] if prefix in ("wds", "vtab", "tfds", "folder") else [dataset]


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) and text.strip() for text in value)
