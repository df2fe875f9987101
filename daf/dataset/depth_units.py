"""Guess whether depth values are a distance or an inverse, and their unit.

Seen from a car, the ground is near at the bottom of an image and farther above. That distinguishes a distance from an
inverse. The value at the near ground indicates the unit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NEAR_GROUND_M = 6.0  # typical distance in the lowest rows of a street image, within a factor of three
UNITS_M = {"mm": 0.001, "cm": 0.01, "m": 1.0}
UNCLEAR = "nothing that can be told from it"
CLEAR = 1.1  # least ratio of bottom and middle depth for a guess


def guess_depth(samples: Sequence[np.ndarray]) -> tuple[str, str]:
    """Guessed (meaning, unit) of raw depth maps (H, W).

    Meaning: 'a distance', 'an inverse depth', 'a constant' or UNCLEAR; unit: 'mm', 'cm', 'm', or '' if none applies.
    """
    if all(values.size == 0 or np.ptp(values) == 0 for values in (sample[np.isfinite(sample)] for sample in samples)):
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
    """Median of the finite positive values in a range of rows, given as shares of the height; 0 if there are none."""
    height = values.shape[0]
    part = values[int(first * height) : max(int(last * height), int(first * height) + 1)].astype(np.float64)
    part = part[np.isfinite(part) & (part > 0)]
    return float(np.median(part)) if part.size else 0.0
