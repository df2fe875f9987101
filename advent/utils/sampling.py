"""Evenly spaced samples of a sequence."""

from __future__ import annotations

import numpy as np


def evenly_spaced(length: int, count: int) -> list[int]:
    """Indices of `count` evenly spaced items of `length` items, ascending: the first, the last and some between.

    All indices if `count` is at least `length`. A single index is 0. An exact half is rounded to the even index.
    Raises ValueError if `count` is negative.
    """
    indices: list[int] = np.linspace(0, length - 1, min(count, length)).round().astype(int).tolist()
    return indices
