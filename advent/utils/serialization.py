"""Safe YAML and JSON files, and atomic writes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from advent.errors import ConfigError, DataError, first_line

LARGEST_YAML = 1_000_000  # bytes; a config is a few kilobytes
DEEPEST = 10  # levels of nesting in YAML
TEMPORARY = re.compile(r"\..+\.\d+\.tmp")
INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]*)|0b[01_]+|0x[0-9a-fA-F_]+")
REAL = re.compile(
    r"[-+]?((0|[1-9][0-9_]*)\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+][0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without YAML 1.1's octal (0123), base 60 (1:30) and dates, which stay text."""


_REPLACED = {f"tag:yaml.org,2002:{name}" for name in ("int", "float", "timestamp")}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _name, _numbers in (("int", INTEGER), ("float", REAL)):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}", re.compile(f"^({_numbers.pattern})$"), list("-+.0123456789")
    )


def write_atomically(path: str | Path, write: Callable[[BinaryIO], None]) -> Path:
    """Write a file atomically: `write` fills a temporary file in the same folder, which is renamed to `path`.

    Readers see the old file or the new one, never a part, even if the process is killed. Parent folders are created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as handle:
            write(handle)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # the error of a failed write has no file name
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return path


def is_temporary(path: Path) -> bool:
    """Whether a path is a temporary file of `write_atomically`, by its name."""
    return TEMPORARY.fullmatch(path.name) is not None


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text atomically."""

    def write(handle: BinaryIO) -> None:
        handle.write(text.encode())

    return write_atomically(path, write)


def write_json(path: str | Path, value: Any) -> Path:
    """Write indented JSON atomically; key order is kept."""
    return write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object that this project wrote. Raises DataError with the file if it is damaged."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise DataError(f"{path}: damaged, not a JSON object; remove it, and its content is created again")
    return value


def parse_yaml(text: str) -> Any:
    """Parse one YAML document with the safe loader.

    Raises yaml.YAMLError, and ValueError for aliases or nesting deeper than DEEPEST. Aliases are rejected because a few
    lines of them can expand to more than memory holds.
    """
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("aliases (*name) are not supported; write the value out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"nested more than {DEEPEST} deep")
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def parse_value(text: str) -> Any:
    """`parse_yaml` of a single value. Raises ValueError on a comment, which YAML would drop silently."""
    value, end = parse_yaml(text), 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, (yaml.ScalarEvent, yaml.CollectionEndEvent)) and event.end_mark is not None:
            end = event.end_mark.index
    if "#" in text[end:]:
        raise ValueError("text after # is a comment in YAML")
    return value


def read_yaml(path: str | Path) -> Any:
    """Read one YAML document with the safe loader. Raises ConfigError with file and line."""
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST_YAML:
            raise ConfigError(f"{path}: larger than {LARGEST_YAML:,} bytes, the limit for YAML files")
        return parse_yaml(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = first_line(getattr(error, "problem", None) or "unreadable")
        raise ConfigError(f"{where}: not valid YAML ({problem})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file in UTF-8") from None
    except ValueError as error:  # also numbers that match YAML's pattern but not Python's
        raise ConfigError(f"{path}: {first_line(error)}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
