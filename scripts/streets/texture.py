"""Noise and the paints of large surfaces: facades, ground, walls, fences. All anchored in world metres."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from streets.canvas import FENCE, LANE, Paint, Painted

SIZE = 512


@cache
def noise_table(kind: int = 0) -> np.ndarray:
    """Tileable fractal noise [512, 512], mean 0 and deviation 1; the same in every process."""
    rng = np.random.default_rng(9000 + kind)
    total = np.zeros((SIZE, SIZE), np.float32)
    for octave in range(2, 10):
        cells = 2**octave
        grid = rng.standard_normal((cells, cells)).astype(np.float32)
        wrapped = np.pad(grid, 2, mode="wrap")
        scale = SIZE // cells
        big = cv2.resize(wrapped, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        total += big[2 * scale : 2 * scale + SIZE, 2 * scale : 2 * scale + SIZE] * 0.66**octave
    return (total - total.mean()) / total.std()


def noise(s: np.ndarray, t: np.ndarray, period: float, kind: int = 0) -> np.ndarray:
    """Noise at plane coordinates; the table repeats after `period` metres."""
    scale = SIZE / period
    last = SIZE - 1  # `& last` is `% SIZE`, since SIZE is a power of two
    return noise_table(kind)[(t * scale).astype(np.int32) & last, (s * scale).astype(np.int32) & last]


def hashed(a: np.ndarray, b: np.ndarray, salt: int) -> np.ndarray:
    """A repeatable number in [0, 1) per pair of integers."""
    return (np.sin(a * 12.9898 + b * 78.233 + salt * 3.717) * 43758.547) % 1.0


def rough(color: np.ndarray, amount: float, period: float, kind: int = 0) -> Paint:
    """A plain colour with noise, in parts of one."""

    def paint(s: np.ndarray, t: np.ndarray, z: np.ndarray) -> Painted:
        return color * (1 + amount * noise(s, t, period, kind))[:, None], None, None

    return paint


def facade(rng: np.random.Generator, height: float, wall: np.ndarray, sky: np.ndarray, plain: bool = False) -> Paint:
    """Windows in a grid, cornices, a ground floor with a shop, doors or windows, stains and bricks."""
    floor, pitch = rng.uniform(2.7, 3.5), rng.uniform(1.8, 3.6)
    width, tall = pitch * rng.uniform(0.35, 0.62), rng.uniform(1.2, 1.9)
    frame = np.array(rng.choice([235.0, 210, 70, 40])) * np.array([1, 0.98, 0.95])
    trim = wall * rng.uniform(0.7, 1.35)
    shop, brick, salt = rng.random() < 0.5, rng.random() < 0.5, int(rng.integers(1000))
    sign = rng.uniform(20, 200, 3)
    ribbon, glow = rng.random() < 0.15, rng.uniform(0.05, 0.5)
    ox, oy = rng.uniform(0, 50, 2)
    ground = rng.uniform(3.2, 4.0)
    dim = rng.random() < 0.5  # a dark shop: unlit glass that mirrors the trees across the street, dark frames
    front = frame * rng.uniform(0.1, 0.4) + np.array([6.0, 6, 7]) if dim else frame
    sign = sign * rng.uniform(0.1, 0.5) if dim else sign
    mirrored = np.array([58.0, 66, 38]) * rng.uniform(0.5, 1.1) * rng.uniform(0.8, 1.2, 3)
    leafy = rng.uniform(0.0, 0.8)

    def paint(s: np.ndarray, t: np.ndarray, z: np.ndarray) -> Painted:
        stain = noise(s + ox, t + oy, 23.0) * 0.07 + noise(s + ox, t, 2.6, 1) * 0.06
        near = np.clip(14 / z, 0, 1)
        if brick:
            row = np.floor(t / 0.085)
            tone = hashed(row, np.floor(s / 0.24 + 0.5 * (row % 2)), salt) - 0.5
            mortar = (t % 0.085 < 0.014).astype(np.float32)
            stain = stain + near * (0.28 * tone + 0.22 * mortar)
        stain = stain - 0.12 * np.exp(-t / 0.5)
        color = wall * (1 + stain)[:, None]
        if plain:
            return color, None, None
        level = np.where(t < ground, -1, np.floor((t - ground) / floor))
        v = np.where(t < ground, t, (t - ground) % floor)
        column, u = np.floor(s / pitch), np.abs(s % pitch - pitch / 2)
        upper = (level >= 0) & (t < height - 0.5)
        band = (level >= 0) & (v < 0.16) | (t > height - 0.35)
        color[band] = (trim * (1 + stain)[:, None])[band]
        half = np.full_like(s, pitch if ribbon else width / 2)
        bottom = 0.75
        opening = upper & (u < half) & (v > bottom) & (v < bottom + tall)
        sill = upper & (u < half + 0.1) & (np.abs(v - bottom + 0.08) < 0.08)
        if shop:
            board = (level < 0) & (t > ground - 0.85) & (t < ground - 0.15)
            color[board] = (sign * (1 + stain)[:, None])[board]
            letters = board & (np.abs(t - ground + 0.5) < 0.18) & (hashed(np.floor(s / 0.3), column, salt) > 0.4)
            letters &= (s % (2 * pitch) > pitch * 0.4) & (s % 0.3 > 0.07)
            color[letters] = 225 - 0.4 * sign
            opening |= (level < 0) & (u < pitch / 2 - 0.14) & (t > 0.45) & (t < ground - 0.9)
            half = np.where(level < 0, pitch / 2 - 0.14, half)
        else:
            door = hashed(column, column * 0, salt) < 0.3
            color[(level < 0) & door & (u < 0.5) & (t < 2.2)] = sign * 0.6
            opening |= (level < 0) & ~door & (u < width / 2) & (t > 1.0) & (t < 2.6)
        color[sill] = trim * 1.1
        pane = hashed(column, level, salt)
        mirror = np.clip(0.15 + glow * pane + 0.25 * noise(s + ox, t + oy, 9.0, 2) * glow + 0.05 * v, 0.03, 0.8)
        glass = sky * mirror[:, None] + np.array([18.0, 20, 24])
        curtain = (pane > 0.72) & (level >= 0)
        glass[curtain] = glass[curtain] * 0.4 + frame * 0.3
        trees = leafy * np.clip(0.5 + 0.5 * noise(s + oy, t + ox, 6.0, 1) + 0.2 * (ground - t), 0, 1)[:, None]
        glass = glass * (1 - trees) + mirrored * (0.7 + 0.4 * noise(s + ox, t + oy, 2.7, 1))[:, None].clip(0.1) * trees
        if dim:
            glass[level < 0] *= 0.45
        goods = (level < 0) & (hashed(np.floor(s / 0.4), np.floor(t / 0.5), salt) > 0.6)
        glass[goods] = glass[goods] * 0.7 + sign * 0.25
        lamps = dim & (level < 0) & (hashed(np.floor(s / 0.5), np.floor(t / 0.35), salt + 1) > 0.94)
        glass[lamps] = glass[lamps] * 0.4 + np.array([150.0, 120, 70])
        edge = (half - u < 0.08) | (u < 0.03) | ((level >= 0) & ((v - bottom < 0.08) | (bottom + tall - v < 0.08)))
        edge |= (level >= 0) & (np.abs(v - bottom - tall * 0.5) < 0.03)
        glass[edge] = np.where(level[edge, None] < 0, front, frame) * 0.9
        color[opening] = glass[opening]
        return color, None, None

    return paint


def asphalt(rng: np.random.Generator, tone: np.ndarray, half: float) -> Paint:
    """Road surface in coordinates s = across (from the left edge) and t = along, with wear, patches and cracks."""
    ox, oy = rng.uniform(0, 50, 2)
    patches, lanes = rng.uniform(0.75, 0.95), rng.uniform(0, 0.1)

    def paint(s: np.ndarray, t: np.ndarray, z: np.ndarray) -> Painted:
        near = np.clip(7 / z, 0, 1)
        grain = near * (0.06 * noise(s, t, 1.3, 1) + 0.05 * noise(s + ox, t, 4.0, 3))
        value = 1 + grain + 0.05 * noise(s + ox, t * 0.25 + oy, 31.0)
        value += lanes * np.cos((s - half) / 0.9 * np.pi / 1.7)
        value[noise(s + oy, t * 0.4 + ox, 47.0, 2) > 1.4] *= patches
        value[np.abs(noise(s + oy, t + ox, 14.0, 3)) < 0.015 * near] *= 0.75
        return tone * value[:, None], None, None

    return paint


def slabs(rng: np.random.Generator, tone: np.ndarray) -> Paint:
    """Pavement with joints (or plain asphalt)."""
    size, joint, ox = rng.uniform(0.35, 1.0), rng.choice([0.0, 0.25, 0.35]), rng.uniform(0, 50)

    def paint(s: np.ndarray, t: np.ndarray, z: np.ndarray) -> Painted:
        near = np.clip(6 / z, 0, 1)
        value = 1 + 0.06 * noise(s + ox, t, 17.0) + 0.07 * near * noise(s, t, 1.9, 1)
        value += joint * near * 0.4 * (hashed(np.floor(s / size), np.floor(t / size), 3) - 0.5)
        value -= joint * near * ((s % size < 0.02) | (t % size < 0.02))
        return tone * value[:, None], None, None

    return paint


def marking(rng: np.random.Generator, color: np.ndarray) -> Paint:
    """Worn road paint: parts are missing."""
    wear, ox = rng.uniform(1.2, 2.6), rng.uniform(0, 50)

    def paint(s: np.ndarray, t: np.ndarray, z: np.ndarray) -> Painted:
        worn = noise(s + ox, t + ox, 5.0, 1)
        return color * (1 + 0.07 * worn)[:, None], np.full(len(s), LANE, np.uint8), worn < wear

    return paint


def railing(color: np.ndarray, gap: float, height: float, solid: bool) -> Paint:
    """Vertical bars between two rails, or boards."""

    def paint(s: np.ndarray, t: np.ndarray, z: np.ndarray) -> Painted:
        value = 1 + 0.12 * noise(s, t, 3.0, 1)
        if solid:
            value *= 0.85 + 0.2 * hashed(np.floor(s / 0.14), s * 0, 5) - 0.3 * (s % 0.14 < 0.015)
            return color * value[:, None], None, None
        bars = (
            (s % gap < 0.035 + 0.0012 * z) | (s % (gap * 16) < 0.08) | (np.abs(t - 0.12) < 0.03) | (t > height - 0.06)
        )
        return color * value[:, None], np.full(len(s), FENCE, np.uint8), bars

    return paint
