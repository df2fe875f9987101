"""Image grids with captions, legends, and colour maps for labels and values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from advent.utils.viz_segmask import colorize_mask

TILE = (240, 180)  # width, height
MARGIN, CAPTION = 4, 20

Column = tuple[str, Sequence[np.ndarray]]  # caption, RGB tiles from top to bottom


def denormalize(image: np.ndarray, mean_bgr: Sequence[float]) -> np.ndarray:
    """Network input (3, H, W), BGR minus mean -> RGB image (H, W, 3) uint8."""
    bgr = image + np.asarray(mean_bgr).reshape(3, 1, 1)
    return bgr[::-1].transpose(1, 2, 0).round().clip(0, 255).astype(np.uint8)


def class_colors(labels: np.ndarray, colors: Sequence[Sequence[int]]) -> np.ndarray:
    """Train ids (H, W) -> RGB (H, W, 3) uint8; ignored pixels are black."""
    return np.asarray(colorize_mask(labels, colors).convert("RGB"))


def percentile_range(values: np.ndarray) -> tuple[float, float]:
    """2nd and 98th percentile of the values, the range of a heat map."""
    low, high = np.percentile(values, (2, 98))
    return float(low), float(high)


def heatmap(values: np.ndarray, limits: tuple[float, float] | None = None) -> np.ndarray:
    """(H, W) floats -> RGB heat map (H, W, 3) uint8 between `limits`, else `percentile_range`; large is bright."""
    low, high = limits if limits is not None else percentile_range(values)
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    return cv2.applyColorMap((255 * scaled).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]


def image_grid(columns: Sequence[Column], tile: tuple[int, int] = TILE) -> Image.Image:
    """Grid of captioned columns side by side; every tile is resized to `tile` (width, height)."""
    rows = len(columns[0][1])
    width, height = tile[0] + MARGIN, tile[1] + MARGIN
    picture = Image.new("RGB", (width * len(columns) + MARGIN, height * rows + CAPTION + MARGIN), "white")
    draw: Any = ImageDraw.Draw(picture)
    font = ImageFont.load_default(13)
    for c, (title, tiles) in enumerate(columns):
        draw.text((MARGIN + c * width, 3), title, fill="black", font=font)
        for r, image in enumerate(tiles):
            corner = (MARGIN + c * width, CAPTION + r * height)
            picture.paste(Image.fromarray(np.ascontiguousarray(image)).resize(tile, Image.Resampling.NEAREST), corner)
    return picture


def legend(names: Sequence[str], colors: Sequence[Sequence[int]], width: int) -> Image.Image:
    """Legend `width` pixels wide: each class's colour and name, in as many lines as needed."""
    text = int(np.clip(width / 45, 10, 28))
    font, gap = ImageFont.load_default(text), max(3, text // 3)
    box, line = round(text * 1.1), round(text * 1.6)
    places, x, y = [], gap, 0
    for name in names:
        entry_width = box + gap + round(font.getlength(name)) + 2 * gap
        if x + entry_width > width and x > gap:
            x, y = gap, y + line
        places.append((x, y))
        x += entry_width
    strip = Image.new("RGB", (width, y + line + gap), "white")
    draw: Any = ImageDraw.Draw(strip)
    for (x, y), name, color in zip(places, names, colors, strict=True):
        top = y + gap
        draw.rectangle((x, top, x + box, top + box), fill=tuple(color), outline="#555555")
        draw.text((x + box + gap, top + box / 2), name, font=font, fill="black", anchor="lm")
    return strip


def note(words: str, width: int) -> Image.Image:
    """Strip `width` pixels wide with one small line of text."""
    font = ImageFont.load_default(12)
    strip = Image.new("RGB", (width, CAPTION), "white")
    draw: Any = ImageDraw.Draw(strip)
    draw.text((MARGIN, 2), words, fill="#444444", font=font)
    return strip


def stack(picture: Image.Image, strip: Image.Image) -> Image.Image:
    """Stack two images of the same width vertically, `strip` at the bottom."""
    stacked = Image.new("RGB", (picture.width, picture.height + strip.height), "white")
    stacked.paste(picture, (0, 0))
    stacked.paste(strip, (0, picture.height))
    return stacked
