"""Deprecated names that still work, with a DeprecationWarning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any


def deprecated_names(module: str, renamed: Mapping[str, str]) -> Callable[[str], Any]:
    """Module-level `__getattr__` that returns renamed objects under their old names, with a DeprecationWarning.

    renamed: old name -> new name.
    """

    def getattr_(name: str) -> Any:
        if name not in renamed:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warnings.warn(f"{module}.{name} is now {module}.{renamed[name]}", DeprecationWarning, stacklevel=2)
        return getattr(sys.modules[module], renamed[name])

    return getattr_
