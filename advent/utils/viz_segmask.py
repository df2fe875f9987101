"""Colouring of label maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from advent.dataset.classes import load_classes


def colorize_mask(mask: np.ndarray, colors: Sequence[Sequence[int]] | None = None) -> Image.Image:
    """Train ids -> palette picture (mode P); ids without a colour, and 255, are black.

    mask: (H, W) integers 0..255. colors: RGB per train id, e.g. `load_classes("street16").colors`; None is Cityscapes'
    19 classes, as in ADVENT (the same ids mean other classes in the 16-class set: hand over its colours).
    """
    if mask.ndim != 2:
        raise ValueError(f"a mask is (H, W), got shape {mask.shape}")
    chosen = load_classes("cityscapes19").colors if colors is None else colors
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(chosen)] = np.asarray(chosen, np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(mask.astype(np.uint8)))
    picture.putpalette(palette.ravel().tolist())
    return picture
