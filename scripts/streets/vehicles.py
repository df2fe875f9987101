"""Cars, vans and buses: an outline from the side, drawn as strips across, with windows, wheels and lamps on it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from streets.canvas import BUS, CAR, Canvas
from streets.texture import rough

Corner = Callable[[float, float, float], np.ndarray]  # (along, up, side) in parts of a vehicle -> world

# Side outlines (along, up) in parts of length and height: from the rear bumper over the roof to the front bumper.
PROFILES = {
    "sedan": [
        (0, 0.2),
        (0, 0.55),
        (0.03, 0.66),
        (0.16, 0.7),
        (0.29, 0.97),
        (0.36, 1),
        (0.56, 1),
        (0.72, 0.69),
        (0.95, 0.6),
        (1, 0.48),
        (1, 0.2),
    ],
    "hatch": [
        (0, 0.2),
        (0, 0.5),
        (0.02, 0.62),
        (0.03, 0.66),
        (0.1, 0.95),
        (0.17, 1),
        (0.52, 1),
        (0.74, 0.68),
        (0.96, 0.58),
        (1, 0.45),
        (1, 0.2),
    ],
    "van": [
        (0, 0.15),
        (0, 0.45),
        (0.005, 0.52),
        (0.01, 0.56),
        (0.03, 0.95),
        (0.06, 1),
        (0.66, 1),
        (0.82, 0.6),
        (0.97, 0.5),
        (1, 0.4),
        (1, 0.15),
    ],
    "bus": [
        (0, 0.1),
        (0, 0.3),
        (0, 0.4),
        (0.0, 0.5),
        (0.005, 0.93),
        (0.02, 1),
        (0.985, 1),
        (1, 0.36),
        (1, 0.34),
        (1, 0.3),
        (1, 0.1),
    ],
}
GLASS = (3, 6)  # outline strips of the rear window and the windscreen
SIZES = {"sedan": (4.5, 1.75, 1.45), "hatch": (3.9, 1.7, 1.5), "van": (4.9, 1.95, 2.0), "bus": (10.8, 2.5, 3.0)}
# Side windows, in parts of the length: lower and upper rear corner, pillar, upper and lower front corner.
WINDOWS = {
    "sedan": (0.21, 0.31, 0.46, 0.56, 0.69),
    "hatch": (0.1, 0.14, 0.44, 0.52, 0.69),
    "van": (0.55, 0.55, 0.6, 0.65, 0.77),
}
PAINTS = [
    (20, 21, 24),
    (35, 38, 45),
    (150, 153, 156),
    (190, 192, 194),
    (225, 225, 222),
    (95, 100, 106),
    (28, 42, 88),
    (120, 18, 20),
    (160, 24, 22),
    (30, 60, 45),
    (100, 120, 150),
    (140, 130, 105),
    (60, 20, 30),
]
LIVERIES = [(170, 25, 25), (215, 215, 205), (30, 70, 130), (200, 170, 40), (50, 110, 70)]


def vehicle(
    canvas: Canvas, rng: np.random.Generator, kind: str, x: float, z: float, heading: float, sky: np.ndarray
) -> None:
    """A car, van or bus with its middle at (x, z); heading 0 drives away from the camera."""
    length, width, height = SIZES[kind]
    scale = rng.uniform(0.94, 1.07)
    if kind == "bus":
        height *= rng.choice([1.0, 1.4])
    length, height = length * scale, height * scale
    label = BUS if kind == "bus" else CAR
    body = np.array(PAINTS[rng.integers(len(PAINTS))], float) * rng.uniform(0.85, 1.1)
    if kind == "bus":
        body = np.array(LIVERIES[rng.integers(len(LIVERIES))])
    forward, right = np.array([np.sin(heading), 0, np.cos(heading)]), np.array([np.cos(heading), 0, -np.sin(heading)])
    origin = np.array([x, 0.0, z]) - forward * length / 2
    outline = PROFILES[kind]
    cabin = 0.82 if kind in ("sedan", "hatch") else 0.95

    def point(along: float, up: float, across: float) -> np.ndarray:
        narrow = 1 - (1 - cabin) * min(max((up - 0.66) / 0.34, 0.0), 1.0)
        return origin + forward * along * length + right * across * width / 2 * narrow + np.array([0, up * height, 0])

    heap = [point(a, 0, b) * (1, 0, 1) for a, b in ((-0.03, -1.1), (1.03, -1.1), (1.03, 1.1), (-0.03, 1.1))]
    canvas.poly(heap, (6, 6, 8), None, overlay=True, alpha=0.75)
    side_of = float(np.sign((canvas.camera.position - origin - forward * length / 2) @ right)) or 1.0
    glass = sky * rng.uniform(0.08, 0.3) + np.array([12, 14, 16])
    metal = rough(body, 0.05, 3.0, 2)
    underside = ((0.02, 0.9), (0.02, -0.9), (0.3, -0.9), (0.3, 0.9))
    canvas.poly([point(0.02, up, w) for up, w in underside], (10, 10, 11), label)
    for i in range(len(outline) - 1):
        (a, b), (c, d) = outline[i], outline[i + 1]
        quad = [point(a, b, -1), point(a, b, 1), point(c, d, 1), point(c, d, -1)]
        canvas.poly(quad, metal, label)
        if i in GLASS:
            edges = ((0.1, -0.88), (0.1, 0.88), (0.88, 0.85), (0.88, -0.85))
            canvas.poly([point(a + (c - a) * k, b + (d - b) * k, w) for k, w in edges], glass, label, overlay=True)
    canvas.poly([point(a, min(b, 0.66), side_of) for a, b in outline], metal, label)
    roof = [q for q in outline if q[1] > 0.66]
    upper = [(roof[0][0], 0.66), *roof, (roof[-1][0], 0.66)]
    canvas.poly([point(*q, side_of) for q in upper], body * 0.98, label)
    _side(canvas, rng, kind, point, side_of, glass, label, length, height)
    _ends(canvas, rng, kind, point, label, body)


def _side(
    canvas: Canvas,
    rng: np.random.Generator,
    kind: str,
    point: Corner,
    side: float,
    glass: np.ndarray,
    label: int,
    length: float,
    height: float,
) -> None:
    """Windows, door lines and wheels of the visible side."""
    if kind == "bus":
        rows = ((0.42, 0.68), (0.74, 0.92)) if height > 3.6 else ((0.45, 0.85),)
        starts = np.arange(0.03, 0.9, 0.118)
        panes = [[(a, lo), (a + 0.1, lo), (a + 0.1, hi), (a, hi)] for lo, hi in rows for a in starts]
    else:
        a0, a1, middle, a2, a3 = WINDOWS[kind]
        panes = [
            [(a0, 0.7), (middle - 0.01, 0.7), (middle - 0.01, 0.94), (a1, 0.94)],
            [(middle + 0.01, 0.7), (a3, 0.7), (a2, 0.94), (middle + 0.01, 0.94)],
        ]
    for pane in panes:
        canvas.poly([point(*q, side) for q in pane], glass, label, overlay=True)
    if kind != "bus":
        for a in (0.29, 0.46, 0.69):
            seam = ((a, 0.25), (a + 0.006, 0.25), (a + 0.006, 0.66), (a, 0.66))
            canvas.poly([point(*q, side) for q in seam], (15, 15, 16), label, overlay=True, alpha=0.6)
    radius = 0.31 if kind != "bus" else 0.48
    for along in (0.18, 0.81):
        hub = rng.uniform(80, 170) * np.ones(3)
        for part, color in ((1.15, (10, 10, 11)), (1.0, (22, 22, 24)), (0.66, hub), (0.2, (40, 40, 40))):
            turn, r = np.linspace(0, 2 * np.pi, 16, endpoint=False), part * radius
            wheel = [(along + r / length * np.cos(a), max(radius + r * np.sin(a), 0) / height) for a in turn]
            canvas.poly([point(*q, side) for q in wheel], color, label, overlay=part < 1.1)


def _ends(canvas: Canvas, rng: np.random.Generator, kind: str, point: Corner, label: int, body: np.ndarray) -> None:
    """Lamps, plates and bumpers at the rear and at the front."""
    lit = rng.random() < 0.3
    red, white = ((235, 40, 30) if lit else (125, 16, 16)), ((250, 250, 235) if lit else (185, 188, 190))
    wide = (0.72, 0.98)
    for end, color, low, high in ((0.0, red, 0.42, 0.54), (1.0, white, 0.35, 0.46)):
        if kind == "bus":
            low, high = 0.16, 0.22
        for sign in (-1, 1):
            lens = ((low, wide[0]), (low, wide[1]), (high, wide[1]), (high, wide[0]))
            canvas.poly([point(end, up, sign * w) for up, w in lens], color, label, overlay=True)
        strips: list[tuple[tuple[float, float], float, np.ndarray | tuple[int, int, int]]] = [
            ((0.2, 0.3), 0.98, np.minimum(body * 0.55, 60.0)),
            ((0.33, 0.4), 0.2, (215, 180, 40) if end == 0 and rng.random() < 0.5 else (215, 215, 210)),
        ]
        if end == 1.0:
            strips.insert(1, ((0.34, 0.45), 0.5, (22, 22, 24)))
        if kind == "bus":
            strips = [((0.86, 0.93), 0.6, (25, 25, 20)), ((0.14, 0.2), 0.95, (35, 35, 38))]
        for (a, b), w, tint in strips:
            strip = ((a, -w), (a, w), (b, w), (b, -w))
            canvas.poly([point(end, up, across) for up, across in strip], tint, label, overlay=True)
