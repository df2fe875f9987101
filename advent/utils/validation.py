"""Pydantic models of YAML files, and validation errors as one line with the key and a remedy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Strict, ValidationError, model_validator
from pydantic_core import ErrorDetails

from advent.errors import ConfigError, closest, hint, printable

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
BOUNDS = {
    "greater_than": " is too small; more than {gt:g}",
    "greater_than_equal": " is too small; at least {ge:g}",
    "less_than_equal": " is too large; at most {le:g}",
    "too_short": " has too few values; at least {min_length}",
    "too_long": " has too many values; at most {max_length}",
    "extra_forbidden": " is the value of an unknown key",
}
Many = Annotated[tuple[T, ...], Strict(False)]  # YAML has lists only; their items stay strict


class YamlModel(BaseModel):
    """Immutable values of a YAML mapping. Types are strict, unknown keys are refused, null is an absent key."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        known = [info.alias or name for name, info in cls.model_fields.items()]
        if not isinstance(values, dict):
            raise ValueError(f"{str(values)[:80]!r} is not a mapping with the keys {', '.join(known)}")
        for key in values:
            if key not in known:
                raise ValueError(f"unknown key {key!r}; {hint(str(key), known)}")
        return {key: value for key, value in values.items() if value is not None}


def validated(model: type[M], raw: Any, where: str | Path, example: str = "", context: Any = None) -> M:
    """The model of values read from YAML. Raises ConfigError for the first wrong key, in the model's order.

    where: the file, for messages. example: where to see correct values. context: passed to the model's validators.
    """
    try:
        return model.model_validate(raw, context=context)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    location, problem = list(first["loc"]), explained(first)
    if first["type"] == "missing":
        *location, last = location
        problem = f"the key {last!r} is missing" if isinstance(last, str) else f"value {last + 1} is missing"
    remedy = first["type"] in (*BOUNDS, "literal_error", "value_error")
    see = f"; see {example}" if example and not remedy else ""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location if part != "[key]")
    place = printable("".join(parts).lstrip("."))
    raise ConfigError(": ".join([str(where), *([place] if place else []), problem + see]))


def explained(error: ErrorDetails) -> str:
    """What is wrong with a value and what is allowed, on one line."""
    kind, context, shown = error["type"], error.get("ctx", {}), str(error["input"])[:80]
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        choices = re.findall("'([^']*)'", context["expected"])
        nearest = closest(shown, choices)
        return f"{shown!r} is none of {', '.join(choices)}" + (f"; did you mean {nearest}?" if nearest else "")
    if kind in BOUNDS:
        return printable(shown) + BOUNDS[kind].format(**context)
    message = error["msg"].removeprefix("Input ").replace("tuple", "list").replace("dictionary", "mapping")
    return f"{shown!r} {message}"  # in YAML's words
