"""Names for what a depth file holds: the floor that knows depth registers the functions, this one looks them up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from advent.dataset.spec_types import DepthFormat
from advent.errors import DataError, hint

# (depth file, camera file or None) -> (H, W) float32 inverse depth at the file's own size, 0 where unknown
DepthReader = Callable[[Path, Path | None], np.ndarray]


@dataclass(frozen=True)
class DepthKind:
    """How a kind of depth file is read: as inverse depth, as the numbers in it, and what such numbers look like.

    `read(format, file, camera)`; `values(file)` -> (H, W) numbers as stored; `guess(values)` -> a few words on what
    they seem to be, for people. `table(format)` -> (65536,) float32, what `read` makes of each value of a 16-bit file;
    None where a value alone does not say it.
    """

    read: Callable[[DepthFormat, Path, Path | None], np.ndarray]
    values: Callable[[Path], np.ndarray]
    guess: Callable[[DepthFormat, list[np.ndarray]], tuple[str, bool]]
    table: Callable[[DepthFormat], np.ndarray] | None = None


_KINDS: dict[str, DepthKind] = {}


def register_depth(name: str, kind: DepthKind) -> None:
    """Make `name` usable as `depth: {kind: ...}` in a data set's spec."""
    _KINDS[name] = kind


def depth_kind(depth: DepthFormat | None, dataset: str) -> DepthKind:
    """The registered kind. Raises DataError if the data set has no depth or its kind is unknown here."""
    if depth is None:
        raise DataError(
            f"data set {dataset} has no depth, which this method learns from; add 'depth: {{kind: ...}}' and a depth "
            "pattern to its spec, or train without: MODEL.NAME=DeepLabv2 with TRAIN.DA_METHOD=AdvEnt or MinEnt"
        )
    if depth.kind not in _KINDS:
        known = hint(depth.kind, sorted(_KINDS)) if _KINDS else "known: none; import daf.dataset.depth first"
        raise DataError(f"data set {dataset}: depth kind {depth.kind!r} is not registered; {known}")
    return _KINDS[depth.kind]


def depth_reader(depth: DepthFormat | None, dataset: str) -> DepthReader:
    """The function that reads a data set's depth. Raises DataError if it has none or its kind is unknown here."""
    kind = depth_kind(depth, dataset)
    assert depth is not None
    return partial(kind.read, depth)
