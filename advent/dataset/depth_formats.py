"""Registry of depth file formats: `daf` registers the readers, `advent` looks them up by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from advent.dataset.spec import DepthFormat
from advent.errors import DataError, hint

# (depth file, camera file or None) -> (H, W) float32 inverse depth at the file's own size, 0 where unknown
DepthReader = Callable[[Path, Path | None], np.ndarray]


@dataclass(frozen=True)
class DepthKind:
    """Functions of one depth file format.

    `read(format, file, camera)` -> (H, W) float32 inverse depth; `values(file)` -> (H, W) numbers as stored;
    `guess(format, list of values)` -> (short description of what they look like, whether that agrees with the format);
    `table(format)` -> (65536,) float32 inverse depth of each 16-bit value, None if it depends on more than the value.
    """

    read: Callable[[DepthFormat, Path, Path | None], np.ndarray]
    values: Callable[[Path], np.ndarray]
    guess: Callable[[DepthFormat, list[np.ndarray]], tuple[str, bool]]
    table: Callable[[DepthFormat], np.ndarray] | None = None


_KINDS: dict[str, DepthKind] = {}


def register_depth(name: str, kind: DepthKind) -> None:
    """Register a depth format as `depth: {kind: <name>}` for data set specs."""
    _KINDS[name] = kind


def depth_kind(depth: DepthFormat | None, dataset: str) -> DepthKind:
    """The registered depth format. Raises DataError if the data set has no depth or its kind is not registered."""
    if depth is None:
        raise DataError(
            f"data set {dataset} has no depth, which this method trains on; add 'depth: {{kind: ...}}' and a depth "
            "pattern to its spec, or train without: MODEL.NAME=DeepLabv2 with TRAIN.DA_METHOD=AdvEnt or MinEnt"
        )
    if depth.kind not in _KINDS:
        known = hint(depth.kind, sorted(_KINDS)) if _KINDS else "known: none; import daf.dataset.depth first"
        raise DataError(f"data set {dataset}: depth kind {depth.kind!r} is not registered; {known}")
    return _KINDS[depth.kind]


def depth_reader(depth: DepthFormat | None, dataset: str) -> DepthReader:
    """Reader of a data set's depth files. Raises DataError if it has no depth or its kind is not registered."""
    kind = depth_kind(depth, dataset)
    assert depth is not None
    return partial(kind.read, depth)
