"""Corner points of the planar shapes that streets are made of, in metres."""

from __future__ import annotations

import numpy as np

Points = list[tuple[float, float, float]]


def level(x0: float, x1: float, z0: float, z1: float, y: float = 0.0) -> Points:
    """A level rectangle at height y."""
    return [(x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)]


def facing(x0: float, x1: float, y0: float, y1: float, z: float) -> Points:
    """An upright rectangle across the street."""
    return [(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)]


def beside(x: float, z0: float, z1: float, y0: float, y1: float) -> Points:
    """An upright rectangle along the street."""
    return [(x, y0, z0), (x, y0, z1), (x, y1, z1), (x, y1, z0)]


def ring(x: float, y: float, z: float, rx: float, ry: float, corners: int, start: float = 0.0) -> Points:
    """A regular polygon across the street about (x, y)."""
    turn = start + np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return [(x + rx * np.cos(a), y + ry * np.sin(a), z) for a in turn]
