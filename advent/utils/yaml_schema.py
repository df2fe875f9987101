"""Shape check of values read from YAML."""

from __future__ import annotations

from typing import Any


def fits(value: Any, want: Any) -> bool:
    """Whether `value` has the shape `want`.

    want: a type (bool is not int); None; a tuple of alternatives; `[element]` for a list; `{key: value}` for a mapping.
    Example: `fits({"a": [1]}, {str: [int]})` is True.
    """
    if isinstance(want, tuple):
        return any(fits(value, choice) for choice in want)
    if isinstance(want, list):
        return isinstance(value, list) and all(fits(item, want[0]) for item in value)
    if isinstance(want, dict):
        ((key, item),) = want.items()
        return isinstance(value, dict) and all(fits(k, key) and fits(v, item) for k, v in value.items())
    if want is None:
        return value is None
    return isinstance(value, want) and (want is bool or not isinstance(value, bool))
