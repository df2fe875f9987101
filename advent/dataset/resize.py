"""Resizing and padding of images, labels and depth to the network input size. Sizes are (width, height).

`stretch` resizes to the input size. `pad` (Mapillary) keeps the aspect and pads at the bottom or right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

Size = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """Resizing rule: `stretch` or `pad`.

    content(native, target): size of the resized image inside a canvas of the target size.
    native_canvas(native, target): size of the canvas that a label at native size is padded to.
    """

    content: Callable[[Size, Size], Size]
    native_canvas: Callable[[Size, Size], Size]


def _keep_aspect(native: Size, target: Size) -> Size:
    (w, h), (wide, high) = native, target
    if w / h > wide / high:
        return wide, max(1, int(h * (wide / w)))
    return max(1, int(w * (high / h))), high


def _aspect_of_target(native: Size, target: Size) -> Size:
    (w, h), (wide, high) = native, target
    # max: if the aspects are equal, rounding in wide / high may otherwise give one pixel less than the label has.
    if w / h > wide / high:
        return w, max(h, int(w / (wide / high)))
    return max(w, int(wide / high * h)), h


GEOMETRIES = {
    "stretch": Geometry(content=lambda native, target: target, native_canvas=lambda native, target: native),
    "pad": Geometry(content=_keep_aspect, native_canvas=_aspect_of_target),
}


def pad_to(array: np.ndarray, size: Size, fill: int) -> np.ndarray:
    """Pad (H, W, ...) with `fill` at the bottom and right to `size`; the same array if it already has that size."""
    bottom, right = size[1] - array.shape[0], size[0] - array.shape[1]
    if bottom == 0 and right == 0:
        return array
    return np.pad(array, [(0, bottom), (0, right)] + [(0, 0)] * (array.ndim - 2), constant_values=fill)


def resize_image(rgb: Image.Image, size: Size | None, geometry: str = "stretch") -> np.ndarray:
    """(H, W, 3) uint8 RGB at `size` (None: native): PIL bicubic, padded with 0 under `pad`."""
    if size is None:
        return np.asarray(rgb)
    content = GEOMETRIES[geometry].content(rgb.size, size)
    return pad_to(np.asarray(rgb.resize(content, Image.Resampling.BICUBIC)), size, 0)


def resize_label(label: np.ndarray, size: Size, geometry: str = "stretch", fill: int = 255) -> np.ndarray:
    """(H, W) uint8 at `size`: PIL nearest (pixel centres), padded with `fill` under `pad`."""
    native = (label.shape[1], label.shape[0])
    content = GEOMETRIES[geometry].content(native, size)
    if content != native:
        label = np.asarray(Image.fromarray(label).resize(content, Image.Resampling.NEAREST))
    return pad_to(label, size, fill)


def pad_label(label: np.ndarray, target: Size, geometry: str = "stretch", fill: int = 255) -> np.ndarray:
    """(H, W) uint8 at its native size; under `pad`, padded with `fill` to the aspect of `target`."""
    return pad_to(label, GEOMETRIES[geometry].native_canvas((label.shape[1], label.shape[0]), target), fill)


def resize_depth(depth: np.ndarray, size: Size | None, geometry: str = "stretch") -> np.ndarray:
    """(H, W) at `size` (None: native): OpenCV nearest, index floor(x * in / out), padded with 0 under `pad`."""
    if size is None:
        return depth
    content = GEOMETRIES[geometry].content((depth.shape[1], depth.shape[0]), size)
    return pad_to(cv2.resize(depth, content, interpolation=cv2.INTER_NEAREST), size, 0)
