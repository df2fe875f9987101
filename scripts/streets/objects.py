"""Solid objects: cars, vans, buses, poles, lamps, traffic lights, signs, trees, and the flat figures' placing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from streets.canvas import BUS, CAR, LIGHT, POLE, SIGN, VEGETATION, Canvas
from streets.sprites import Sprite, bare_tree, crown
from streets.texture import rough

Corner = Callable[[float, float, float], np.ndarray]  # (along, up, side) in parts of a vehicle -> world

# Side outlines (along, up) in parts of length and height: from the rear bumper over the roof to the front bumper.
# The indices name the strips that are glass (rear, front) and the corners of the side windows.
PROFILES = {
    "sedan": (
        [
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
        3,
        6,
    ),
    "hatch": (
        [
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
        3,
        6,
    ),
    "van": (
        [
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
        3,
        6,
    ),
    "bus": (
        [
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
        3,
        6,
    ),
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


def place(canvas: Canvas, sprite: Sprite, x: float, z: float, angle: float, light: float, base: float = 0.0) -> None:
    """Stand a flat figure at (x, z); angle 0 faces the camera, its left end is turned about the vertical axis."""
    dx, dz = np.cos(angle) * sprite.width, np.sin(angle) * sprite.width
    a, b = (x - dx / 2, base, z - dz / 2), (x + dx / 2, base, z + dz / 2)
    shadow(canvas, (x, z + 0.05), 0.3, 0.2, 0.35, base)
    canvas.poly([a, b, (b[0], base + sprite.height, b[2]), (a[0], base + sprite.height, a[2])], sprite.paint(light), 0)


def shadow(canvas: Canvas, at: tuple[float, float], rx: float, rz: float, alpha: float, base: float = 0.0) -> None:
    """A soft dark patch on the ground under something."""
    for grow in (1.25, 1.0, 0.8):
        turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
        ring = [(at[0] + rx * grow * np.cos(a), base, at[1] + rz * grow * np.sin(a)) for a in turn]
        canvas.poly(ring, (8, 8, 10), None, overlay=True, alpha=alpha * 0.5)


def vehicle(
    canvas: Canvas, rng: np.random.Generator, kind: str, x: float, z: float, heading: float, sky: np.ndarray
) -> None:
    """A car, van or bus with its middle at (x, z); heading 0 drives away from the camera."""
    length, width, height = {
        "sedan": (4.5, 1.75, 1.45),
        "hatch": (3.9, 1.7, 1.5),
        "van": (4.9, 1.95, 2.0),
        "bus": (10.8, 2.5, 3.0),
    }[kind]
    scale = rng.uniform(0.94, 1.07)
    if kind == "bus":
        height *= rng.choice([1.0, 1.4])
    length, height = length * scale, height * scale
    label = BUS if kind == "bus" else CAR
    body = np.array(PAINTS[rng.integers(len(PAINTS))], float) * rng.uniform(0.85, 1.1)
    if kind == "bus":
        body = np.array([(170, 25, 25), (215, 215, 205), (30, 70, 130), (200, 170, 40), (50, 110, 70)][rng.integers(5)])
    forward, right = np.array([np.sin(heading), 0, np.cos(heading)]), np.array([np.cos(heading), 0, -np.sin(heading)])
    origin = np.array([x, 0.0, z]) - forward * length / 2
    outline, rear_glass, front_glass = PROFILES[kind]
    cabin = 0.82 if kind in ("sedan", "hatch") else 0.95

    def point(along: float, up: float, across: float) -> np.ndarray:
        narrow = 1 - (1 - cabin) * np.clip((up - 0.66) / 0.34, 0, 1)
        return origin + forward * along * length + right * across * width / 2 * narrow + np.array([0, up * height, 0])

    heap = [point(a, 0, b) * (1, 0, 1) for a, b in ((-0.03, -1.1), (1.03, -1.1), (1.03, 1.1), (-0.03, 1.1))]
    canvas.poly(heap, (6, 6, 8), None, overlay=True, alpha=0.75)
    side_of = float(np.sign((canvas.camera.position - origin - forward * length / 2) @ right)) or 1.0
    glass = sky * rng.uniform(0.08, 0.3) + np.array([12, 14, 16])
    metal = rough(body, 0.05, 3.0, 2)
    canvas.poly(
        [point(0.02, 0.02, 0.9), point(0.02, 0.02, -0.9), point(0.02, 0.3, -0.9), point(0.02, 0.3, 0.9)],
        (10, 10, 11),
        label,
    )
    for i in range(len(outline) - 1):
        (a, b), (c, d) = outline[i], outline[i + 1]
        quad = [point(a, b, -1), point(a, b, 1), point(c, d, 1), point(c, d, -1)]
        canvas.poly(quad, metal, label)
        if i in (rear_glass, front_glass):
            inset = [
                point(a + (c - a) * k, b + (d - b) * k, w)
                for k, w in ((0.1, -0.88), (0.1, 0.88), (0.88, 0.85), (0.88, -0.85))
            ]
            canvas.poly(inset, glass, label, overlay=True)
    canvas.poly([point(a, min(b, 0.66), side_of) for a, b in outline], metal, label)
    roof = [q for q in outline if q[1] > 0.66]
    canvas.poly(
        [point(roof[0][0], 0.66, side_of), *[point(*q, side_of) for q in roof], point(roof[-1][0], 0.66, side_of)],
        body * 0.98,
        label,
    )
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
    """Windows, door lines and wheels of the side that shows."""
    if kind == "bus":
        rows = ((0.42, 0.68), (0.74, 0.92)) if height > 3.6 else ((0.45, 0.85),)
        panes = [
            [(a, lo), (a + 0.1, lo), (a + 0.1, hi), (a, hi)] for lo, hi in rows for a in np.arange(0.03, 0.9, 0.118)
        ]
    else:
        spans = {
            "sedan": (0.21, 0.31, 0.46, 0.56, 0.69),
            "hatch": (0.1, 0.14, 0.44, 0.52, 0.69),
            "van": (0.55, 0.55, 0.6, 0.65, 0.77),
        }[kind]
        a0, a1, middle, a2, a3 = spans
        panes = [
            [(a0, 0.7), (middle - 0.01, 0.7), (middle - 0.01, 0.94), (a1, 0.94)],
            [(middle + 0.01, 0.7), (a3, 0.7), (a2, 0.94), (middle + 0.01, 0.94)],
        ]
    for pane in panes:
        canvas.poly([point(*q, side) for q in pane], glass, label, overlay=True)
    if kind != "bus":
        for a in (0.29, 0.46, 0.69):
            canvas.poly(
                [point(q[0], q[1], side) for q in ((a, 0.25), (a + 0.006, 0.25), (a + 0.006, 0.66), (a, 0.66))],
                (15, 15, 16),
                label,
                overlay=True,
                alpha=0.6,
            )
    radius = 0.31 if kind != "bus" else 0.48
    for along in (0.18, 0.81):
        for part, color in (
            (1.15, (10, 10, 11)),
            (1.0, (22, 22, 24)),
            (0.66, rng.uniform(80, 170) * np.ones(3)),
            (0.2, (40, 40, 40)),
        ):
            turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)
            ring = [
                point(
                    along + part * radius / length * np.cos(a),
                    max(radius + part * radius * np.sin(a), 0) / height,
                    side * 1.0,
                )
                for a in turn
            ]
            canvas.poly(ring, color, label, overlay=part < 1.1)


def _ends(canvas: Canvas, rng: np.random.Generator, kind: str, point: Corner, label: int, body: np.ndarray) -> None:
    """Lamps, plates and bumpers at the rear and at the front."""
    lit = rng.random() < 0.3
    red, white = ((235, 40, 30) if lit else (125, 16, 16)), ((250, 250, 235) if lit else (185, 188, 190))
    wide = (0.72, 0.98)
    for end, color, low, high in ((0.0, red, 0.42, 0.54), (1.0, white, 0.35, 0.46)):
        if kind == "bus":
            low, high = 0.16, 0.22
        for sign in (-1, 1):
            canvas.poly(
                [
                    point(end, low, sign * wide[0]),
                    point(end, low, sign * wide[1]),
                    point(end, high, sign * wide[1]),
                    point(end, high, sign * wide[0]),
                ],
                color,
                label,
                overlay=True,
            )
        strips: list[tuple[tuple[float, float], float, np.ndarray | tuple[int, int, int]]] = [
            ((0.2, 0.3), 0.98, np.minimum(body * 0.55, 60.0)),
            ((0.33, 0.4), 0.2, (215, 180, 40) if end == 0 and rng.random() < 0.5 else (215, 215, 210)),
        ]
        if end == 1.0:
            strips.insert(1, ((0.34, 0.45), 0.5, (22, 22, 24)))
        if kind == "bus":
            strips = [((0.86, 0.93), 0.6, (25, 25, 20)), ((0.14, 0.2), 0.95, (35, 35, 38))]
        for (a, b), w, tint in strips:
            canvas.poly(
                [point(end, a, -w), point(end, a, w), point(end, b, w), point(end, b, -w)], tint, label, overlay=True
            )


def column(
    canvas: Canvas,
    x: float,
    z: float,
    low: float,
    high: float,
    radius: float,
    color: np.ndarray | tuple,
    label: int = POLE,
) -> None:
    """A round upright post as a strip facing the camera, lit on one side."""
    for a, b, tone in ((-1, -0.2, 1.15), (-0.2, 0.5, 0.95), (0.5, 1, 0.65)):
        canvas.poly(
            [(x + a * radius, low, z), (x + b * radius, low, z), (x + b * radius, high, z), (x + a * radius, high, z)],
            np.asarray(color, float) * tone,
            label,
        )


def lamp(canvas: Canvas, rng: np.random.Generator, x: float, z: float, toward: float) -> None:
    """A street lamp whose arm reaches over the road."""
    tall, tint = rng.uniform(6, 9.5), rng.uniform(45, 120) * np.array([1, 1.02, 1.0])
    column(canvas, x, z, 0, tall, 0.075, tint)
    reach = toward * rng.uniform(0.8, 2.2)
    canvas.poly(
        [(x, tall - 0.08, z), (x + reach, tall + 0.2, z), (x + reach, tall + 0.28, z), (x, tall, z)], tint, POLE
    )
    canvas.box(
        (min(x + reach, x + reach * 1.35), tall + 0.15, z - 0.1),
        (max(x + reach, x + reach * 1.35), tall + 0.33, z + 0.1),
        (150, 150, 145),
        POLE,
    )


def traffic_light(canvas: Canvas, rng: np.random.Generator, x: float, z: float, side: float) -> None:
    """A traffic light on its post; sometimes a second one on an arm over the road."""
    column(canvas, x, z, 0, 3.2, 0.06, (60, 62, 62))
    heads = [(x, 2.3)]
    if rng.random() < 0.4:
        column(canvas, x, z, 3.2, 5.9, 0.07, (60, 62, 62))
        canvas.poly(
            [(x, 5.7, z), (x - side * 3.5, 5.7, z), (x - side * 3.5, 5.82, z), (x, 5.82, z)], (60, 62, 62), POLE
        )
        heads.append((x - side * 3.3, 5.1))
    phase = int(rng.integers(3))
    for hx, hy in heads:
        canvas.box((hx - 0.17, hy, z - 0.3), (hx + 0.17, hy + 0.95, z - 0.06), (18, 20, 19), LIGHT)
        for i, on in enumerate(((60, 255, 150), (255, 180, 40), (255, 45, 30))):
            turn = np.linspace(0, 2 * np.pi, 10, endpoint=False)
            ring = [(hx + 0.1 * np.cos(a), hy + 0.18 + 0.3 * i + 0.1 * np.sin(a), z - 0.3) for a in turn]
            canvas.poly(ring, on if i == phase else (40, 36, 32), LIGHT, overlay=True, lit=False)


def sign(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A traffic sign on a post: round, triangular, square or a wide board."""
    high, kind, size = rng.uniform(2.0, 2.7), int(rng.integers(5)), rng.uniform(0.28, 0.42)
    column(canvas, x, z, 0, high + size, 0.04, (120, 122, 122))
    corners = {0: 16, 1: 3, 2: 4, 3: 16, 4: 4}[kind]
    stretch = rng.uniform(1.3, 2.6) if kind == 4 else 1.0
    rim, inside = [
        ((190, 20, 25), (235, 235, 230)),
        ((190, 20, 25), (235, 235, 230)),
        ((235, 235, 235), (20, 70, 160)),
        ((230, 230, 230), (20, 70, 165)),
        ((235, 235, 230), (30, 100, 60)),
    ][kind]
    start = {3: np.pi / 2, 4: np.pi / 4}.get(corners, 0.0)
    for part, color in ((1.0, rim), (0.78, inside), (0.3, (25, 25, 28) if kind < 2 else (230, 230, 230))):
        turn = start + np.linspace(0, 2 * np.pi, corners, endpoint=False)
        canvas.poly(
            [(x + part * size * stretch * np.cos(a), high + size + part * size * np.sin(a), z - 0.08) for a in turn],
            color,
            SIGN,
            overlay=part < 1,
        )


def tree(
    canvas: Canvas, rng: np.random.Generator, x: float, z: float, height: float, leaf: np.ndarray, bare: bool
) -> None:
    """A tree in leaf (trunk and several ragged crown layers) or a bare one."""
    bark = rng.uniform(45, 85) * np.array([1, 0.9, 0.78])
    if bare:
        place(canvas, bare_tree(rng, height, bark), x, z, rng.uniform(-0.2, 0.2), 0.1)
        return
    column(canvas, x, z, 0, height * 0.6, 0.022 * height, bark, VEGETATION)
    for _ in range(5):
        w, h = height * rng.uniform(0.45, 0.75), height * rng.uniform(0.4, 0.62)
        cx, cz, low = (
            x + rng.normal(0, 0.1) * height,
            z + rng.uniform(-0.15, 0.15) * height,
            height * rng.uniform(0.28, 0.45),
        )
        if cz < 1.0:
            continue
        quad = [(cx - w / 2, low, cz), (cx + w / 2, low, cz), (cx + w / 2, low + h, cz), (cx - w / 2, low + h, cz)]
        canvas.poly(quad, crown(rng, w, h, leaf * rng.uniform(0.8, 1.2), rng.uniform(0.5, 1.3)), VEGETATION)
