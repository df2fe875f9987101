"""Visualization of predictions: label ids, colours, overlay with legend, depth, entropy, depth-aware map."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from advent.errors import ConfigError
from advent.utils.image_grid import heatmap, legend, percentile_range, stack
from advent.utils.serialization import write_atomically
from daf.dataset.depth import to_centimetres
from daf.inference import Model, Prediction

OPACITY = 0.55  # of the class colours in the overlay
STEADY = 0.9  # momentum of the colour limits between video frames
Writer = Callable[[BinaryIO], None]


@dataclass(frozen=True)
class OutputOptions:
    """Outputs to write besides ids, colours and overlay. `depth` None: if the network predicts it."""

    depth: bool | None = None
    entropy: bool = False
    map: bool = False

    def of(self, model: Model) -> OutputOptions:
        """Options resolved for a network. Raises ConfigError if depth or map is requested without a depth head."""
        requested = "--depth" if self.depth else "--map" if self.map else None
        if requested and not model.gives_depth:
            raise ConfigError(
                f"{requested}: {model.config.MODEL.NAME} predicts no depth; remove the option, or use DAF's network"
            )
        return OutputOptions(model.gives_depth if self.depth is None else self.depth, self.entropy, self.map)

    @property
    def maps(self) -> bool:
        """Whether entropy or the depth-aware map is requested."""
        return self.entropy or self.map


class Renderer:
    """Renders predictions image by image.

    `video` smooths the colour limits over the frames; `with_legend` puts the classes below the overlay.
    """

    def __init__(self, model: Model, options: OutputOptions, video: bool = False, with_legend: bool = True) -> None:
        self.model, self.options, self.video, self.with_legend = model, options, video, with_legend
        self._limits: dict[str, tuple[float, float]] = {}

    def pictures(self, photo: Image.Image, found: Prediction) -> Iterator[tuple[str, Image.Image]]:
        """(product, RGB or paletted image) of every visual output."""
        colors = self.model.colors(found)
        yield "color", colors
        overlay = Image.blend(photo, colors.convert("RGB"), OPACITY)
        if self.with_legend:
            overlay = stack(overlay, legend(self.model.classes.names, self.model.classes.colors, photo.width))
        yield "overlay", overlay
        if self.options.depth and found.depth is not None:
            yield "depth_color", self._heat("depth", visible_depth(found.depth))
        if self.options.entropy and found.entropy is not None:
            yield "entropy", Image.fromarray(heatmap(found.entropy, (0.0, 1.0)))
        if self.options.map and found.depth_aware is not None:
            yield "map", self._heat("map", found.depth_aware)

    def _heat(self, product: str, values: np.ndarray) -> Image.Image:
        limits = percentile_range(values)
        if self.video and product in self._limits:
            low, high = self._limits[product]
            limits = STEADY * low + (1 - STEADY) * limits[0], STEADY * high + (1 - STEADY) * limits[1]
        self._limits[product] = limits
        return Image.fromarray(np.ascontiguousarray(heatmap(values, limits)))


def visible_depth(inverse: np.ndarray) -> np.ndarray:
    """Log inverse depth for colouring: resolves far and near pixels alike."""
    return np.log1p(np.maximum(inverse, 0))


def products(options: OutputOptions) -> list[str]:
    """Output folders of still images."""
    depth = ["depth", "depth_color"] if options.depth else []
    return ["classes", "color", "overlay", *depth, *["entropy"] * options.entropy, *["map"] * options.map]


def still_paths(output: Path, key: str, options: OutputOptions) -> list[Path]:
    """Paths of all files that `write_still` writes for one image."""
    paths = [output / folder / f"{key}{'.jpg' if folder == 'overlay' else '.png'}" for folder in products(options)]
    return paths + [output / folder / f"{key}.npy" for folder in ("entropy", "map") if getattr(options, folder)]


def write_still(output: Path, key: str, photo: Image.Image, found: Prediction, renderer: Renderer) -> None:
    """Write all outputs of one image, each file atomically."""
    files: list[tuple[str, str, Writer]] = [("classes", "png", _png(Image.fromarray(found.classes)))]
    for product, picture in renderer.pictures(photo, found):
        files.append((product, *(("jpg", _jpeg(picture)) if product == "overlay" else ("png", _png(picture)))))
    if renderer.options.depth and found.depth is not None:
        files.append(("depth", "png", _png(Image.fromarray(to_centimetres(found.depth)))))
    for product, values in (("entropy", found.entropy), ("map", found.depth_aware)):
        if getattr(renderer.options, product) and values is not None:
            files.append((product, "npy", _npy(values)))
    for folder, suffix, write in files:
        write_atomically(output / folder / f"{key}.{suffix}", write)


def _png(picture: Image.Image) -> Writer:
    return lambda handle: picture.save(handle, "PNG")


def _jpeg(picture: Image.Image) -> Writer:
    return lambda handle: picture.save(handle, "JPEG", quality=92)


def _npy(values: np.ndarray) -> Writer:
    return lambda handle: np.save(handle, values)
