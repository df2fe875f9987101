"""Colouring of label maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

# RGB of Cityscapes' 19 train ids, as in configs/classes/cityscapes19.yml.
CITYSCAPES_COLORS = (
    (128, 64, 128),
    (244, 35, 232),
    (70, 70, 70),
    (102, 102, 156),
    (190, 153, 153),
    (153, 153, 153),
    (250, 170, 30),
    (220, 220, 0),
    (107, 142, 35),
    (152, 251, 152),
    (70, 130, 180),
    (220, 20, 60),
    (255, 0, 0),
    (0, 0, 142),
    (0, 0, 70),
    (0, 60, 100),
    (0, 80, 100),
    (0, 0, 230),
    (119, 11, 32),
)


def colorize_mask(mask: np.ndarray, colors: Sequence[Sequence[int]] | None = None) -> Image.Image:
    """Train ids -> palette image (mode P); ids without a colour, and 255, are black.

    mask: (H, W) integers 0..255. colors: RGB per train id, e.g. `load_classes("street16").colors`; None is Cityscapes'
    19 classes, as in ADVENT (in the 16-class set the same ids are other classes: pass its colours). Raises ValueError
    if the mask is not 2-D.
    """
    if mask.ndim != 2:
        raise ValueError(f"a mask is (H, W), got shape {mask.shape}")
    chosen = CITYSCAPES_COLORS if colors is None else colors
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(chosen)] = np.asarray(chosen, np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(mask.astype(np.uint8)))
    picture.putpalette(palette.ravel().tolist())
    return picture
