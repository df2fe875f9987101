"""Street objects: planar shapes, poles, lamps, traffic lights, signs, trees; placement of flat figures."""

from __future__ import annotations

import numpy as np

from streets.canvas import LIGHT, POLE, SIGN, VEGETATION, Canvas
from streets.sprites import Sprite, bare_tree, crown

Points = list[tuple[float, float, float]]  # corners of a planar shape, metres


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


def place(canvas: Canvas, sprite: Sprite, x: float, z: float, angle: float, light: float, base: float = 0.0) -> None:
    """Place a flat figure at (x, z); angle 0 faces the camera, its left end is turned about the vertical axis."""
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
        canvas.poly(facing(x + a * radius, x + b * radius, low, high, z), np.asarray(color, float) * tone, label)


def lamp(canvas: Canvas, rng: np.random.Generator, x: float, z: float, toward: float) -> None:
    """A street lamp whose arm reaches over the road."""
    tall, tint = rng.uniform(6, 9.5), rng.uniform(45, 120) * np.array([1, 1.02, 1.0])
    column(canvas, x, z, 0, tall, 0.075, tint)
    reach = toward * rng.uniform(0.8, 2.2)
    arm = [(x, tall - 0.08, z), (x + reach, tall + 0.2, z), (x + reach, tall + 0.28, z), (x, tall, z)]
    canvas.poly(arm, tint, POLE)
    left, right = sorted((x + reach, x + reach * 1.35))
    canvas.box((left, tall + 0.15, z - 0.1), (right, tall + 0.33, z + 0.1), (150, 150, 145), POLE)


def traffic_light(canvas: Canvas, rng: np.random.Generator, x: float, z: float, side: float) -> None:
    """A traffic light on its post; sometimes a second one on an arm over the road."""
    column(canvas, x, z, 0, 3.2, 0.06, (60, 62, 62))
    heads = [(x, 2.3)]
    if rng.random() < 0.4:
        column(canvas, x, z, 3.2, 5.9, 0.07, (60, 62, 62))
        canvas.poly(facing(x, x - side * 3.5, 5.7, 5.82, z), (60, 62, 62), POLE)
        heads.append((x - side * 3.3, 5.1))
    phase = int(rng.integers(3))
    for hx, hy in heads:
        canvas.box((hx - 0.17, hy, z - 0.3), (hx + 0.17, hy + 0.95, z - 0.06), (18, 20, 19), LIGHT)
        for i, on in enumerate(((60, 255, 150), (255, 180, 40), (255, 45, 30))):
            lens = ring(hx, hy + 0.18 + 0.3 * i, z - 0.3, 0.1, 0.1, 10)
            canvas.poly(lens, on if i == phase else (40, 36, 32), LIGHT, overlay=True, lit=False)


def sign(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A traffic sign on a post: round, triangular, square or a wide board."""
    high, kind, size = rng.uniform(2.0, 2.7), int(rng.integers(5)), rng.uniform(0.28, 0.42)
    column(canvas, x, z, 0, high + size, 0.04, (120, 122, 122))
    corners = {0: 16, 1: 3, 2: 4, 3: 16, 4: 4}[kind]
    stretch = rng.uniform(1.3, 2.6) if kind == 4 else 1.0
    red, grey = (190, 20, 25), (235, 235, 230)
    rim, inside = [
        (red, grey),
        (red, grey),
        ((235, 235, 235), (20, 70, 160)),
        ((230, 230, 230), (20, 70, 165)),
        (grey, (30, 100, 60)),
    ][kind]
    start = {3: np.pi / 2, 4: np.pi / 4}.get(corners, 0.0)
    for part, color in ((1.0, rim), (0.78, inside), (0.3, (25, 25, 28) if kind < 2 else (230, 230, 230))):
        board = ring(x, high + size, z - 0.08, part * size * stretch, part * size, corners, start)
        canvas.poly(board, color, SIGN, overlay=part < 1)


def tree(
    canvas: Canvas, rng: np.random.Generator, x: float, z: float, height: float, leaf: np.ndarray, bare: bool
) -> None:
    """A tree in leaf (trunk and several ragged crown layers), a bare one or a conifer."""
    bark = rng.uniform(45, 85) * np.array([1, 0.9, 0.78])
    if bare:
        place(canvas, bare_tree(rng, height, bark), x, z, rng.uniform(-0.2, 0.2), 0.1)
        return
    column(canvas, x, z, 0, height * 0.6, 0.022 * height, bark, VEGETATION)
    if rng.random() < 0.2:
        needle = leaf * np.array([0.42, 0.5, 0.6]) * rng.uniform(0.7, 1.2)
        for step in range(6):  # ever narrower tiers
            w, low = height * (0.5 - 0.07 * step) * rng.uniform(0.85, 1.15), height * (0.04 + 0.15 * step)
            tier = crown(rng, w, 0.34 * height, needle, 1.4)
            canvas.poly(facing(x - w / 2, x + w / 2, low, low + 0.34 * height, z - 0.01 * step), tier, VEGETATION)
        return
    for _ in range(5):
        w, h = height * rng.uniform(0.45, 0.75), height * rng.uniform(0.4, 0.62)
        cx, cz = x + rng.normal(0, 0.1) * height, z + rng.uniform(-0.15, 0.15) * height
        low = height * rng.uniform(0.28, 0.45)
        if cz < 1.0:
            continue
        canvas.poly(
            facing(cx - w / 2, cx + w / 2, low, low + h, cz),
            crown(rng, w, h, leaf * rng.uniform(0.8, 1.2), rng.uniform(0.5, 1.3)),
            VEGETATION,
        )
