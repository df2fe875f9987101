"""Flat figures: people, cyclists, two-wheelers, and trees; pictures with labels that stand upright in the scene."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from streets.canvas import BICYCLE, MOTORCYCLE, PERSON, RIDER, VEGETATION, Paint, Painted
from streets.texture import noise

Point = tuple[float, float]
SKIN = np.array([[205, 160, 135], [170, 120, 95], [110, 75, 55], [225, 185, 160]], float)


@dataclass
class Sprite:
    """A picture [H, W, 3] with labels [H, W] (0 = see-through), `scale` pixels per metre, `width` x `height` metres."""

    width: float
    height: float
    scale: float = 110.0
    color: np.ndarray = field(init=False)
    label: np.ndarray = field(init=False)
    cover: np.ndarray | None = field(init=False, default=None)  # opacity 0..1 [H, W]; None: opaque where labelled

    def __post_init__(self) -> None:
        shape = (int(self.height * self.scale), int(self.width * self.scale))
        self.color, self.label = np.zeros((*shape, 3), np.float32), np.zeros(shape, np.uint8)

    def _pixels(self, points: list[Point]) -> np.ndarray:
        scale, last = self.scale, self.label.shape[0] - 1
        return np.array([(round(x * scale * 16), round((last - y * scale) * 16)) for x, y in points], np.int32)

    def stroke(self, points: list[Point], width: float, color: np.ndarray | list[float], label: int) -> None:
        """A line of this width in metres through the points."""
        thick = max(round(width * self.scale), 1)
        value = tuple(float(c) for c in color)
        for image, paint in ((self.color, value), (self.label, label)):
            cv2.polylines(image, [self._pixels(points)], False, paint, thick, cv2.LINE_8, 4)

    def fill(self, points: list[Point], color: np.ndarray | list[float], label: int) -> None:
        """A filled polygon."""
        value = tuple(float(c) for c in color)
        for image, paint in ((self.color, value), (self.label, label)):
            cv2.fillPoly(image, [self._pixels(points)], paint, cv2.LINE_8, 4)

    def disc(self, center: Point, rx: float, ry: float, color: np.ndarray | list[float], label: int) -> None:
        """A filled ellipse."""
        turn = np.linspace(0, 2 * np.pi, 18, endpoint=False)
        self.fill([(center[0] + rx * np.cos(a), center[1] + ry * np.sin(a)) for a in turn], color, label)

    def paint(self, light: float) -> Paint:
        """Paint for a quad of this size; rounded shading from the left (light > 0) or the right."""

        def paint(s: np.ndarray, t: np.ndarray, z: np.ndarray) -> Painted:
            column = np.clip((s * self.scale).astype(np.int64), 0, self.label.shape[1] - 1)
            row = np.clip(self.label.shape[0] - 1 - (t * self.scale).astype(np.int64), 0, self.label.shape[0] - 1)
            label = self.label[row, column]
            fold = 1 + 0.12 * noise(s, t, 2.0, 1) + light * (0.5 - s / self.width)
            cover = label > 0 if self.cover is None else self.cover[row, column]
            return self.color[row, column] * fold[:, None], label, cover

        return paint


def _cloth(rng: np.random.Generator) -> np.ndarray:
    grey = rng.choice([25, 40, 60, 90, 140, 200], p=[0.3, 0.25, 0.15, 0.1, 0.1, 0.1])
    return np.clip(grey + rng.normal(0, 22 if rng.random() < 0.7 else 60, 3), 12, 235)


def person(rng: np.random.Generator) -> Sprite:
    """A standing or walking person, 1.5 to 1.95 m."""
    tall = rng.uniform(1.5, 1.95)
    k = tall / 1.75
    sprite = Sprite(1.3 * k, tall + 0.02)
    coat, legs, skin = _cloth(rng), _cloth(rng), SKIN[rng.integers(4)]
    c, step, lean = 0.65, rng.uniform(0.03, 0.32), rng.uniform(-0.03, 0.03)
    hip, waist, neck = 0.86, 0.95, 1.45

    def p(x: float, y: float) -> Point:
        return x * k, y * k

    for sign, dim in ((-1, 0.8), (1, 1.0)):
        knee = p(c + sign * step * 0.45 + 0.04, 0.47)
        foot = p(c + sign * step, 0.07)
        sprite.stroke([p(c + sign * 0.05, hip), knee, foot], 0.14 * k, legs * dim, PERSON)
        sprite.stroke([foot, (foot[0] + 0.1, foot[1] - 0.02)], 0.09, [25, 22, 20], PERSON)
    wide, hem = rng.uniform(0.17, 0.25), rng.choice([0.85, 0.85, 0.6])
    torso = [(c - wide * 0.9, hem), (c - wide * 0.8, waist + 0.15), (c - wide + lean, 1.36), (c - 0.08 + lean, neck)]
    torso += [(c + 0.08 + lean, neck), (c + wide + lean, 1.36), (c + wide * 0.8, waist + 0.15), (c + wide * 0.9, hem)]
    sprite.fill([p(*q) for q in torso], coat, PERSON)
    for sign in (-1, 1):
        swing = rng.uniform(-0.12, 0.2)
        arm = [p(c + sign * wide * 0.9, 1.36), p(c + sign * (wide + 0.05), 1.1), p(c + sign * wide + swing, 0.86)]
        sprite.stroke(arm, 0.095 * k, coat * (0.85 if sign < 0 else 0.95), PERSON)
        sprite.disc(arm[-1], 0.045, 0.05, skin, PERSON)
    if rng.random() < 0.35:
        sprite.fill(
            [p(c + wide, 0.6), p(c + wide + 0.16, 0.6), p(c + wide + 0.14, 0.9), p(c + wide, 0.9)], _cloth(rng), PERSON
        )
    hair = np.array([[30, 24, 20], [70, 50, 35], [130, 100, 60], [150, 145, 140]][int(rng.integers(4))], float)
    sprite.stroke([p(c + lean, neck - 0.03), p(c + lean, 1.55)], 0.11 * k, skin * 0.8, PERSON)
    sprite.disc(p(c + lean, 1.62), 0.088 * k, 0.125 * k, hair, PERSON)
    if rng.random() < 0.6:
        sprite.disc(p(c + lean + rng.uniform(-0.02, 0.03), 1.595), 0.07 * k, 0.095 * k, skin, PERSON)
    return sprite


def _wheel(sprite: Sprite, center: Point, radius: float, thick: float, label: int, spokes: bool) -> None:
    turn = np.linspace(0, 2 * np.pi, 25)
    rim = [(center[0] + radius * np.cos(a), center[1] + radius * np.sin(a)) for a in turn]
    if not spokes:
        sprite.disc(center, radius * 0.75, radius * 0.75, [95, 95, 98], label)
    sprite.stroke(rim, thick, [24, 24, 26], label)
    if spokes:
        for a in turn[:12:2]:
            tip = (radius * np.cos(a), radius * np.sin(a))
            sprite.stroke(
                [(center[0] - tip[0], center[1] - tip[1]), (center[0] + tip[0], center[1] + tip[1])],
                0.008,
                [120, 120, 120],
                label,
            )


def two_wheeler(rng: np.random.Generator, motor: bool, ridden: bool) -> Sprite:
    """A bicycle or motorcycle from the side, with or without its rider.

    A bicycle under its rider is labelled as rider: CamVid's class Bicyclist has both. Cityscapes separates them.
    """
    sprite = Sprite(2.1, 1.95 if ridden else 1.25)
    label = MOTORCYCLE if motor else RIDER if ridden else BICYCLE
    paint = rng.uniform(15, 210, 3) * rng.choice([0.35, 1.0])
    back, front, radius = (0.42, 0.33), (1.62 if motor else 1.5, 0.33), 0.29 if motor else 0.33
    for hub in (back, front):
        _wheel(sprite, hub, radius, 0.11 if motor else 0.04, label, not motor)
    if motor:
        sprite.fill([(0.3, 0.82), (0.5, 0.45), (1.2, 0.3), (1.35, 0.75), (1.25, 1.0), (0.95, 0.88)], paint, label)
        sprite.fill([(0.75, 0.25), (1.2, 0.25), (1.2, 0.5), (0.75, 0.5)], [45, 45, 48], label)
        sprite.fill([(0.25, 0.84), (0.95, 0.84), (0.9, 0.93), (0.25, 0.95)], [22, 20, 20], label)
        sprite.stroke([front, (1.36, 1.05), (1.2, 1.12)], 0.07, [70, 70, 72], label)
        sprite.disc((1.42, 0.92), 0.09, 0.09, [220, 215, 190], label)
    else:
        for line in (
            [back, (0.75, 0.8), (1.3, 0.82), (0.9, 0.33), back],
            [(0.9, 0.33), (0.72, 0.92)],
            [front, (1.28, 1.0)],
        ):
            sprite.stroke(line, 0.045, paint, label)
        sprite.stroke([(1.12, 1.03), (1.3, 1.04)], 0.05, [25, 25, 25], label)
        sprite.stroke([(0.6, 0.95), (0.84, 0.95)], 0.07, [25, 22, 20], label)
    if ridden:
        coat, legs, skin = _cloth(rng), _cloth(rng), SKIN[rng.integers(4)]
        sprite.stroke([(0.72, 0.98), (1.08, 0.75), (0.92, 0.35)], 0.15, legs, RIDER)
        sprite.stroke([(0.92, 0.32), (1.06, 0.3)], 0.09, [25, 22, 22], RIDER)
        sprite.fill([(0.58, 0.92), (0.84, 0.9), (1.12, 1.38), (1.04, 1.5), (0.86, 1.48)], coat, RIDER)
        sprite.stroke([(1.02, 1.4), (1.1, 1.16), (1.26, 1.08)], 0.1, coat * 0.85, RIDER)
        helmet = rng.uniform(20, 230, 3) if motor or rng.random() < 0.5 else np.array([50.0, 38, 30])
        sprite.disc((1.1, 1.64), 0.1, 0.12, skin, RIDER)
        sprite.disc((1.07, 1.7), 0.12 + 0.03 * motor, 0.1 + 0.04 * motor, helmet, RIDER)
    return sprite


def cyclist(rng: np.random.Generator) -> Sprite:
    """A rider on a bicycle, seen from behind or from the front; both are labelled as rider (see `two_wheeler`)."""
    tall = rng.uniform(0.93, 1.07)
    sprite = Sprite(0.9, 1.9 * tall)
    coat, legs, skin = _cloth(rng), _cloth(rng), SKIN[rng.integers(4)]
    c, lean, front = 0.45, rng.uniform(-0.05, 0.05), rng.random() < 0.4
    sprite.disc((c, 0.34), 0.035, 0.34, [24, 24, 26], RIDER)
    sprite.stroke([(c, 0.4), (c, 0.95)], 0.05, rng.uniform(15, 210, 3), RIDER)
    sprite.stroke([(c - 0.28, 1.06 * tall), (c + 0.28, 1.06 * tall)], 0.04, [30, 30, 32], RIDER)
    if front:
        sprite.disc((c, 0.92), 0.05, 0.05, [225, 220, 200], RIDER)
    raised = rng.choice([-1, 1])
    for sign in (-1, 1):
        pedal = 0.42 if sign == raised else 0.2
        knee = (c + sign * 0.13, (0.78 if sign == raised else 0.6) * tall)
        sprite.stroke(
            [(c + sign * 0.08, 0.95 * tall), knee, (c + sign * 0.1, pedal)], 0.14, legs * (0.9 + 0.1 * sign), RIDER
        )
        sprite.stroke([(c + sign * 0.1, pedal), (c + sign * 0.12, pedal - 0.06)], 0.09, [25, 22, 22], RIDER)
    wide = rng.uniform(0.17, 0.22)
    torso = [(c - 0.15, 0.88), (c - wide + lean, 1.4), (c - 0.07 + lean, 1.5), (c + 0.07 + lean, 1.5)]
    torso += [(c + wide + lean, 1.4), (c + 0.15, 0.88)]
    sprite.fill([(x, y * tall) for x, y in torso], coat, RIDER)
    for sign in (-1, 1):
        arm = [(c + sign * wide * 0.95 + lean, 1.4), (c + sign * (wide + 0.1), 1.22), (c + sign * 0.24, 1.07)]
        sprite.stroke([(x, y * tall) for x, y in arm], 0.1, coat * 0.88, RIDER)
    head, helmet = (c + lean, 1.66 * tall), rng.random() < 0.4
    top = rng.uniform(20, 230, 3) if helmet else np.array([50.0, 38, 30]) * rng.uniform(0.5, 2)
    sprite.stroke([(c + lean, 1.48 * tall), (c + lean, 1.58 * tall)], 0.1, skin * 0.8, RIDER)
    sprite.disc(head, 0.095, 0.125, skin if front else top, RIDER)
    sprite.disc((head[0], head[1] + 0.05), 0.1 + 0.015 * helmet, 0.09, top, RIDER)
    return sprite


def bare_tree(rng: np.random.Generator, height: float, color: np.ndarray) -> Sprite:
    """A leafless tree; its twigs are too fine for a pixel, so the crown is a haze around the branches."""
    sprite = Sprite(height * 0.9, height, min(60.0, 420 / height))

    def grow(x: float, y: float, angle: float, length: float, width: float, depth: int) -> None:
        tip = (x + length * np.sin(angle), y + length * np.cos(angle))
        sprite.stroke([(x, y), tip], width, color * rng.uniform(0.8, 1.15), VEGETATION)
        if depth == 0:
            return
        for turn in rng.normal(0, 0.42, 2 + int(rng.random() < 0.6)):
            grow(*tip, angle * 0.9 + turn, length * rng.uniform(0.68, 0.85), width * 0.66, depth - 1)

    grow(height * 0.45, 0.0, rng.normal(0, 0.03), height * 0.25, height * 0.035, 6)
    drawn = (sprite.label > 0).astype(np.float32)
    near = cv2.GaussianBlur(drawn, (0, 0), 0.035 * height * sprite.scale)
    t, s = np.indices(drawn.shape) / sprite.scale
    haze = np.clip(near * rng.uniform(0.8, 1.8), 0, rng.uniform(0.25, 0.65)) * (1 + 0.25 * noise(s, t, 3.1, 1))
    sprite.cover = np.maximum(drawn, np.where(haze > 0.12, np.clip(haze, 0, 1), 0)).astype(np.float32)
    twigs = color * rng.uniform(1.0, 1.9)
    sprite.color[drawn == 0] = twigs
    sprite.label[sprite.cover > 0] = VEGETATION
    return sprite


def crown(rng: np.random.Generator, width: float, height: float, leaf: np.ndarray, dense: float) -> Paint:
    """Irregular foliage for a quad of this size: ragged outline, holes, lit clumps on dark depth."""
    ox, oy = rng.uniform(0, 60, 2)
    side = rng.uniform(-0.3, 0.3)

    def paint(s: np.ndarray, t: np.ndarray, z: np.ndarray) -> Painted:
        x, y = 2 * s / width - 1, 2 * t / height - 1
        lump, fine = noise(s + ox, t + oy, 17.0), noise(s + ox, t + oy, 4.1, 1)
        radius = np.sqrt(x * x + y * y) + 0.13 * lump + 0.06 * fine
        keep = (radius < 0.86) & (0.45 * lump + fine < dense - 0.8 * np.clip(radius - 0.5, 0, 1))
        tone = 0.72 + 0.2 * y + side * x + 0.22 * fine - 0.2 * noise(s + ox + 0.25, t + oy - 0.35, 17.0)
        tint = leaf * np.clip(tone, 0.12, 1.6)[:, None]
        tint[:, 0] *= 1 + 0.15 * fine
        return tint, None, keep

    return paint
