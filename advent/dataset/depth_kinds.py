"""Names for what a depth file holds: the floor that knows depth registers the functions, this one looks them up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from advent.errors import DataError

# (depth file, camera file or None) -> (H, W) float32 inverse depth at the file's own size, 0 where unknown
DepthReader = Callable[[Path, "Path | None"], np.ndarray]

_READERS: dict[str, DepthReader] = {}


def register_depth(kind: str, reader: DepthReader) -> None:
    """Make `kind` usable as `depth: {kind: ...}` in a data set's spec."""
    _READERS[kind] = reader


def depth_reader(kind: str | None, dataset: str) -> DepthReader:
    """The registered function. Raises DataError if the data set has no depth or its kind is unknown here."""
    if kind is None:
        raise DataError(f"data set {dataset} has no depth; add 'depth: {{kind: ...}}' and a depth pattern to its spec")
    if kind not in _READERS:
        known = ", ".join(sorted(_READERS)) or "none; import daf.dataset.depth first"
        raise DataError(f"data set {dataset}: depth kind {kind!r} is not registered (known: {known})")
    return _READERS[kind]
