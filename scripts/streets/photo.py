"""Light and camera effects: sky, cast shadows, haze, exposure, blur, vignette, sensor noise."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from streets.canvas import Canvas
from streets.texture import noise


@dataclass
class Row:
    """A row of houses as a shadow caster: the plane x = `x` with a height per metre of z (from -20 m)."""

    x: float
    heights: np.ndarray = field(default_factory=lambda: np.zeros(260, np.float32))

    def add(self, z0: float, z1: float, height: float) -> None:
        """Put a house on the row."""
        self.heights[max(int(z0 + 20), 0) : max(int(z1 + 20), 0)] = height


@dataclass(frozen=True)
class Look:
    """Weather, light and camera of one picture."""

    sun: np.ndarray
    ambient: float
    diffuse: float
    sky: np.ndarray
    zenith: np.ndarray
    clouds: float
    haze: float
    tint: np.ndarray
    exposure: float
    gamma: float
    contrast: float
    saturation: float
    blur: float
    grain: float
    vignette: float
    drive: int


def make_look(rng: np.random.Generator, style: str) -> Look:
    """Draw the look of one picture in the rendered style (synthia) or the camera style (real)."""
    real = style == "real"
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 1.1)
    sun = np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
    sunny = rng.random() < (0.45 if real else 0.6)
    white = rng.random() < (0.65 if real else 0.5)
    sky = (
        np.array([236.0, 240, 244]) * rng.uniform(0.85, 1.1)
        if white
        else np.array([190.0, 212, 238]) * rng.uniform(0.85, 1.1)
    )
    zenith = sky * (rng.uniform(0.85, 1.0) if white else np.array([0.5, 0.68, 0.92]))
    warm = rng.normal(0, 0.045 if real else 0.03)
    return Look(
        sun,
        rng.uniform(0.28, 0.62) if sunny else rng.uniform(0.6, 0.95),
        rng.uniform(0.5, 0.85) if sunny else 0.0,
        sky,
        zenith,
        rng.uniform(0, 0.9),
        rng.uniform(150, 900) if rng.random() < 0.8 else rng.uniform(70, 150),
        np.array([1 + warm, 1.0, 1 - warm]) * (np.array([0.97, 1.02, 0.99]) if real else 1.0),
        rng.uniform(0.95, 1.35),
        rng.uniform(0.9, 1.5) if real else rng.uniform(0.85, 1.25),
        rng.uniform(0.9, 1.25),
        rng.uniform(0.55, 0.95) if real else rng.uniform(0.75, 1.2),
        rng.uniform(0.4, 1.0) if real else rng.uniform(0.2, 0.7),
        rng.uniform(2, 7) if real else rng.uniform(1, 4),
        rng.uniform(0.05, 0.35),
        int(rng.choice([-1, 1])),
    )


def paint_sky(canvas: Canvas, look: Look, rng: np.random.Generator) -> None:
    """Fill the empty canvas: gradient to the zenith, clouds, glow toward the sun. Computes in float32."""
    sky, zenith, sun = (vector.astype(np.float32) for vector in (look.sky, look.zenith, look.sun))
    ray = canvas.rays()
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    up = np.clip(ray[..., 1], 0.0, 1)
    color = sky + (zenith - sky) * (1 - np.exp(-3 * up))[..., None]
    ox, oy = rng.uniform(0, 50, 2).tolist()
    plane = 1.0 / (up + 0.12)
    cloud = noise(ray[..., 0] * plane * 2 + ox, ray[..., 2] * plane * 2 + oy, 23.0) + 0.15
    cover = np.clip(cloud * 0.7 + look.clouds - 0.4, 0, 1)[..., None]
    grey = 250 - 60 * np.clip(cloud - 0.5, 0, 1)[..., None] * (0.3 + look.clouds)
    color = color * (1 - cover) + grey * cover
    glow = np.clip(ray @ sun, 0, 1)[..., None]
    color += 90 * glow**8
    canvas.color[:] = color


def cast_shadows(canvas: Canvas, look: Look, rows: list[Row], rng: np.random.Generator) -> None:
    """Darken all surfaces that the rows of houses shade: road, cars, people, houses across."""
    if look.diffuse == 0 or abs(look.sun[0]) < 0.05:
        return
    solid = canvas.inverse > 0
    depth = np.where(solid, 1 / np.maximum(canvas.inverse, 1e-4), 0)
    point = canvas.rays() * depth[..., None] + canvas.camera.position
    row = rows[0] if look.sun[0] < 0 else rows[1]
    way = (row.x - point[..., 0]) / look.sun[0]
    y, z = point[..., 1] + way * look.sun[1], point[..., 2] + way * look.sun[2]
    roof = row.heights[np.clip(z + 20, 0, len(row.heights) - 1).astype(np.int64)]
    dark = solid & (way > 0.05) & (y < roof)
    canopy = solid & (noise(point[..., 0] - y * 0.5, z * 0.8, 37.0, 4) > 1.15) & (point[..., 1] < 0.6)
    weight = cv2.blur(np.maximum(dark, canopy * 0.8).astype(np.float32), (3, 3))[..., None]
    shade = look.ambient / (look.ambient + look.diffuse * max(look.sun[1], 0.25))
    canvas.color *= 1 - weight * (1 - shade * np.array([0.95, 0.99, 1.06], np.float32))


def develop(canvas: Canvas, look: Look, rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Turn the canvas into a picture [h, w, 3] RGB uint8 of `size` (w, h). Computes in float32."""
    sky, tint = (color.astype(np.float32) for color in (look.sky, look.tint))
    color = canvas.color
    depth = 1 / np.maximum(canvas.inverse, np.float32(1e-3))
    veil = np.where(canvas.inverse > 0, 1 - np.exp(-depth / np.float32(look.haze)), np.float32(0))[..., None]
    color = color * (1 - veil) + np.minimum(sky, 235) * veil
    bloom = _bloom(color, canvas.camera.width * 0.02, size)
    color = cv2.GaussianBlur(color, (0, 0), look.blur * canvas.camera.width / size[0])
    color = cv2.resize(color, size, interpolation=cv2.INTER_AREA) + bloom
    v, u = np.mgrid[-1 : 1 : size[1] * 1j, -1 : 1 : size[0] * 1j].astype(np.float32)
    color = color * ((1 - look.vignette * (u * u + v * v) / 2)[..., None] * (tint * look.exposure))
    grey = color.mean(-1, keepdims=True)
    color = np.clip((grey + (color - grey) * look.saturation) / 255, 0, 1.15)
    color = np.clip((color**look.gamma - 0.45) * look.contrast + 0.45, 0, 1) * 255
    grain = rng.standard_normal((*color.shape[:2], 1), np.float32)
    grain = grain + 0.5 * rng.standard_normal(color.shape, np.float32)
    color = color + look.grain * grain * (0.5 + 0.5 * (1 - color / 255))
    return np.clip(np.round(color), 0, 255).astype(np.uint8)


def _bloom(color: np.ndarray, sigma: float, size: tuple[int, int]) -> np.ndarray:
    """Half of the light above 200 [H, W, 3], blurred by `sigma` pixels of the canvas, at `size` (w, h).

    Blurred at a quarter of the canvas: a wide Gaussian has no finer structure, and the blur takes a sixteenth.
    """
    bright = np.clip(color - 200, 0, 80)
    quarter = (max(color.shape[1] // 4, 1), max(color.shape[0] // 4, 1))
    small = cv2.GaussianBlur(cv2.resize(bright, quarter, interpolation=cv2.INTER_AREA), (0, 0), sigma / 4)
    return 0.5 * cv2.resize(small, size, interpolation=cv2.INTER_LINEAR)
