"""Whether a value read from YAML has the shape that is wanted."""

from __future__ import annotations

from typing import Any


def fits(value: Any, want: Any) -> bool:
    """Whether `value` is what `want` describes.

    want: a type (bool is no int); None; a tuple of alternatives; `[element]` for a list of such; `{key: value}` for a
    mapping of such. `fits({"a": [1]}, {str: [int]})`.
    """
    if isinstance(want, tuple):
        return any(fits(value, one) for one in want)
    if isinstance(want, list):
        return isinstance(value, list) and all(fits(item, want[0]) for item in value)
    if isinstance(want, dict):
        ((key, item),) = want.items()
        return isinstance(value, dict) and all(fits(k, key) and fits(v, item) for k, v in value.items())
    if want is None:
        return value is None
    return isinstance(value, want) and (want is bool or not isinstance(value, bool))
