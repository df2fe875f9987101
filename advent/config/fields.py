"""The index of the config's keys: one value checked at a time, so that an error names its key and its file."""

from __future__ import annotations

import re
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from advent.config.schema import Config
from advent.errors import ConfigError, closest
from advent.utils.serialization import parse_value
from advent.utils.validation import BOUNDS, explained

DIGITS = re.compile(r"[-+]?[0-9][0-9_:.]*")
NULLS = ("", "~", "null", "Null", "NULL")  # YAML's spellings of nothing
STRICT = ConfigDict(strict=True)


def _fields(model: type[BaseModel], prefix: str = "") -> tuple[dict[str, FieldInfo], dict[str, FieldInfo]]:
    """Dotted key -> its field, and section -> its field."""
    fields: dict[str, FieldInfo] = {}
    sections: dict[str, FieldInfo] = {}
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            sections[f"{prefix}{name}"] = info
            inner, _ = _fields(info.annotation, f"{prefix}{name}.")
            fields |= inner
        else:
            fields[f"{prefix}{name}"] = info
    return fields, sections


def _types(info: FieldInfo) -> list[Any]:
    """The alternatives of a field's annotation, without what Annotated adds."""
    union = get_args(info.annotation) if get_origin(info.annotation) in (Union, UnionType) else (info.annotation,)
    return [get_args(kind)[0] if get_origin(kind) is Annotated else kind for kind in union]


def _constraints(info: FieldInfo) -> list[Any]:
    """The bounds and validators of a field, also those of the alternatives of its annotation."""
    union = get_args(info.annotation) if get_origin(info.annotation) in (Union, UnionType) else (info.annotation,)
    added = [item for kind in union if get_origin(kind) is Annotated for item in get_args(kind)[1:]]
    inner = [bound for item in added if isinstance(item, FieldInfo) for bound in item.metadata]
    return [*info.metadata, *added, *inner]


def _full_type(info: FieldInfo) -> Any:
    """A field's annotation with its bounds and validators."""
    return Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation


FIELDS, SECTIONS = _fields(Config)
ADAPTERS: dict[str, TypeAdapter[Any]] = {
    name: TypeAdapter(_full_type(info), config=STRICT) for name, info in FIELDS.items()
}
TEXTS = {name for name, info in FIELDS.items() if str in _types(info)}
NULLABLE = {name for name, info in FIELDS.items() if type(None) in _types(info)}
CHOICES: dict[str, tuple[str, ...]] = {
    name: get_args(kind) for name, info in FIELDS.items() for kind in _types(info) if get_origin(kind) is Literal
}


def parse_override(override: str) -> tuple[str, Any]:
    """`KEY=text` -> key and value: as written where the key holds text (a path may hold ` #`), else read as YAML.

    Text in quotes is what they enclose. A key that may be null is null in YAML's spellings of it.
    """
    name, equals, text = override.partition("=")
    name = name.strip()
    if not equals:
        raise ConfigError(f"{override!r}: want KEY=VALUE, for example TRAIN.MAX_ITERS=1000")
    holds_text = name in TEXTS and not (name == "CLASSES" and text.startswith("{"))  # a whole class set
    if holds_text and name in NULLABLE and text.strip() in NULLS:
        return name, None
    if holds_text and not (len(text) > 1 and text[0] == text[-1] and text[0] in "'\""):
        return name, text
    try:
        value = parse_value(text)
        return name, value if isinstance(value, str) or not holds_text else text
    except (yaml.YAMLError, ValueError) as error:
        if holds_text:
            return name, text  # no pair of quotes: they are the text's own
        if isinstance(error, yaml.YAMLError):
            raise ConfigError(f"{override[:80]!r}: the value is not valid YAML; put quotes around it") from None
        raise ConfigError(f"{override[:80]!r}: not a value in YAML ({str(error).splitlines()[0]})") from None


def nearest_key(name: str) -> str:
    last = {known.rsplit(".", 1)[-1]: known for known in FIELDS}
    nearest = closest(name, FIELDS) or last.get(closest(name.rsplit(".", 1)[-1], last) or "")
    return f"; did you mean {nearest}?" if nearest else ""


def checked_value(name: str, value: Any, where: str) -> Any:
    """The value in the key's type, or ConfigError: one line with what is allowed."""
    try:
        return ADAPTERS[name].validate_python(value)
    except ValidationError as error:
        raise ConfigError(f"{where}: {name}: {_explained(name, value, error)}") from None
    except ConfigError as error:  # an unknown user's home folder
        raise ConfigError(f"{where}: {name}: {error}") from None


def _explained(name: str, value: Any, error: ValidationError) -> str:
    """What is wrong with a value, what is allowed, and how to fix it."""
    first = error.errors(include_url=False, include_context=True, include_input=True)[0]
    kind, shown = first["type"], str(value)[:80]
    if value is None:
        return "must not be null"
    if kind == "literal_error" or (kind in BOUNDS and not isinstance(value, list)):
        return explained(first)
    if kind in ("folder_name", "input_size", "text"):
        return f"{shown} {first['msg']}" if kind == "input_size" else f"{shown!r} {first['msg']}"
    default = FIELDS[name].get_default(call_default_factory=True)
    wanted = _kind(name, default)
    missing = "FILE" if wanted == "str" else "[512,512]"  # a key that is null by default holds a path or a size
    fix = f"for example {name}={str(default if default is not None else missing).replace(' ', '')}"
    if wanted == "str":
        fix = "put quotes around text that looks like a number, a truth value or a list"
    elif isinstance(value, str) and DIGITS.fullmatch(value):
        fix = "no leading zeros (octal in YAML), no colons (base 60)"
    return f"want {wanted}, got {shown!r}; {fix}"


def _kind(name: str, default: Any) -> str:
    if any(get_origin(kind) is list for kind in _types(FIELDS[name])):
        lengths = [m.max_length for m in _constraints(FIELDS[name]) if getattr(m, "max_length", None)]
        return f"list of {lengths[0]} numbers" if lengths else "list"
    return "str" if name in TEXTS else type(default).__name__


@cache
def without_effect() -> tuple[str, ...]:
    """The keys that a training result does not depend on. A dot at the end means a whole section."""
    keys = [name for name, info in FIELDS.items() if not _affects_training(info)]
    return (*keys, *(f"{name}." for name, info in SECTIONS.items() if not _affects_training(info)), "CLASSES.colors")


def _affects_training(info: FieldInfo) -> bool:
    extra = info.json_schema_extra
    return not isinstance(extra, dict) or bool(extra.get("affects_training", True))


def earlier_values(name: str) -> list[Any]:
    """The values of a key that mean what versions without it did; empty for a key that was always there."""
    extra = FIELDS[name].json_schema_extra if name in FIELDS else None
    return list(extra.get("earlier", [])) if isinstance(extra, dict) else []  # type: ignore[arg-type]
