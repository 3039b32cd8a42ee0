"""What a task, a suite or an operator may be told: one model of its settings, and one sentence for what is wrong.

The YAML of a suite, the options of the command line, the keywords of Python, the JSON Schema and the tables of the
documentation are all made of these models.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from koda_audit.errors import InputError, unknown


class Settings(BaseModel):
    """Unknown keys and other types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


class Expected(str):
    """Beside a type: what its entries look like, in place of all that pydantic says of the members of a union."""


def _distinct(values: list[Any]) -> list[Any]:
    twice = next((value for place, value in enumerate(values) if value in values[:place]), None)
    if twice is not None:
        raise ValueError(f"{twice} is listed twice")
    return values


AtLeastOne = Annotated[int, Field(ge=1, le=2**31)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
FromZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Some = Field(min_length=1)
Distinct = AfterValidator(_distinct)

Made = TypeVar("Made", bound=BaseModel)


def made(kind: type[Made], values: dict[str, Any], spelled: Callable[[str], str] = str) -> Made:
    """Settings from plain types.

    Args:
        spelled: how messages spell the name of a setting, such as that of its option.

    Raises:
        InputError: the first thing that is wrong with them.

    >>> class Some(Settings):
    ...     trials: AtLeastOne = 20
    >>> made(Some, {"trials": 0}, "--{}".format)
    Traceback (most recent call last):
    koda_audit.errors.InputError: --trials: expected greater than or equal to 1, found '0'
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        if first["type"] == "extra_forbidden":
            raise InputError(unknown("setting", name, kind.model_fields)) from error
        said = sentence_of(first)
        raise InputError(f"{spelled(name)}: {said}" if name else said) from error


def sentence_of(error: Any) -> str:
    """What one of pydantic's errors says, and what was found."""
    if error["type"] == "too_short" and not error["input"]:
        return "is empty: list at least one, or leave it out"
    if error["type"] == "literal_error":
        expected = error["ctx"]["expected"]
        given = error["input"]
        known = re.findall(r"'([^']*)'", expected)
        return unknown("value", given, known) if isinstance(given, str) else f"expected {expected}"
    message = error["msg"].removeprefix("Value error, ").replace("Input should be ", "expected ")
    message = message.replace("a valid dictionary or instance of", "a mapping with the keys of")
    found = "" if isinstance(error["input"], (dict, list)) else f", found {str(error['input'])[:60]!r}"
    return f"{message}{found}"
