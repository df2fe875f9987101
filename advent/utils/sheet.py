"""Sheets of small pictures under captions, and the colouring of what they show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw

from advent.utils.viz_segmask import colorize_mask

TILE = (240, 180)  # width, height
MARGIN, CAPTION = 4, 18

Column = tuple[str, Sequence[np.ndarray]]  # caption, RGB tiles from top to bottom


def photograph(image: np.ndarray, mean_bgr: Sequence[float]) -> np.ndarray:
    """A network's input (3, H, W), BGR minus mean, as an RGB picture (H, W, 3) uint8."""
    bgr = image + np.asarray(mean_bgr).reshape(3, 1, 1)
    return bgr[::-1].transpose(1, 2, 0).round().clip(0, 255).astype(np.uint8)


def class_colors(labels: np.ndarray, colors: Sequence[Sequence[int]]) -> np.ndarray:
    """Train ids (H, W) -> RGB (H, W, 3) uint8; unlabelled is black."""
    return np.asarray(colorize_mask(labels, colors).convert("RGB"))


def heat(values: np.ndarray) -> np.ndarray:
    """(H, W) floats -> RGB heat map (H, W, 3) uint8 between their own 2nd and 98th percentile; large is bright."""
    low, high = np.percentile(values, (2, 98))
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    return cv2.applyColorMap((255 * scaled).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]


def sheet(columns: Sequence[Column]) -> Image.Image:
    """The columns side by side, every tile at TILE's size."""
    rows = len(columns[0][1])
    width, height = TILE[0] + MARGIN, TILE[1] + MARGIN
    picture = Image.new("RGB", (width * len(columns) + MARGIN, height * rows + CAPTION + MARGIN), "white")
    draw: Any = ImageDraw.Draw(picture)
    for c, (title, tiles) in enumerate(columns):
        draw.text((MARGIN + c * width, 3), title, fill="black")
        for r, tile in enumerate(tiles):
            corner = (MARGIN + c * width, CAPTION + r * height)
            picture.paste(Image.fromarray(np.ascontiguousarray(tile)).resize(TILE, Image.Resampling.NEAREST), corner)
    return picture
