"""What the numbers of depth files seem to be, for people who were not told: a distance or its inverse, in which unit.

Seen from a car, the ground ahead is near at the bottom of a picture and far above it. That tells a distance from an
inverse; how many units the near ground is away tells the unit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NEAR_GROUND_M = 6.0  # what the lowest rows of a street picture show, give or take a factor of three
UNITS_M = {"mm": 0.001, "cm": 0.01, "m": 1.0}
UNCLEAR = "nothing that can be told from it"
CLEAR = 1.1  # how much nearer the bottom must be than the middle for a guess to be made


def guess_depth(samples: Sequence[np.ndarray]) -> tuple[str, str]:
    """(meaning, unit) of raw depth maps (H, W).

    Meaning: 'a distance', 'an inverse depth', 'a constant' or UNCLEAR; unit: 'mm', 'cm', 'm', or '' where it has none.
    """
    if all(values.size == 0 or np.ptp(values) == 0 for values in (one[np.isfinite(one)] for one in samples)):
        return "a constant", ""
    bottom = float(np.median([_rows(values, 0.9, 1.0) for values in samples]))
    middle = float(np.median([_rows(values, 0.55, 0.7) for values in samples]))
    if not (bottom > 0 and middle > 0):
        return UNCLEAR, ""
    if middle > CLEAR * bottom:
        off = {unit: abs(np.log(bottom * metres / NEAR_GROUND_M)) for unit, metres in UNITS_M.items()}
        return "a distance", min(off, key=lambda unit: off[unit])
    return ("an inverse depth" if bottom > CLEAR * middle else UNCLEAR), ""


def _rows(values: np.ndarray, first: float, last: float) -> float:
    """The median of some rows, given as shares of the height, over what is a positive number."""
    height = values.shape[0]
    part = values[int(first * height) : max(int(last * height), int(first * height) + 1)].astype(np.float64)
    part = part[np.isfinite(part) & (part > 0)]
    return float(np.median(part)) if part.size else 0.0
