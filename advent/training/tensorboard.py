"""TensorBoard files of a stage: metrics, the share of time spent waiting for data, and images of both domains.

Logging does not affect training: the weights are bit-identical with and without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from advent.config.schema import Config
from advent.dataset.base_dataset import StreetDataset
from advent.model.outputs import NetworkOutputs, predict_images
from advent.training.learner import Learner
from advent.utils.image_grid import (
    Column,
    class_colors,
    denormalize,
    heatmap,
    image_grid,
    legend,
    percentile_range,
    stack,
)
from advent.utils.loss import self_information
from advent.utils.sampling import evenly_spaced

EXAMPLES = 2  # of each domain
TILE_WIDTH = 240


class TensorBoardWriter:
    """Writes event files to a folder; `iteration` is the first of this start (later entries are replaced)."""

    def __init__(self, folder: Path, iteration: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=iteration)
        self._time, self._waited = time.monotonic(), 0.0

    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        """Write losses, learning rates and scores under their names in the metrics."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, iteration)

    def data_wait(self, iteration: int, waited: float) -> None:
        """Write `waiting_share`, the share of time spent waiting for data since the last call.

        `waited`: seconds spent waiting for data since this start.
        """
        now = time.monotonic()
        share = (waited - self._waited) / max(now - self._time, 1e-9)
        self._writer.add_scalar("waiting_share", min(1.0, share), iteration)
        self._time, self._waited = now, waited

    def image(self, iteration: int, name: str, picture: Image.Image) -> None:
        """Write one RGB image."""
        self._writer.add_image(name, np.asarray(picture), iteration, dataformats="HWC")

    def close(self) -> None:
        """Flush everything to disk."""
        self._writer.close()


ImageLogger = Callable[[TensorBoardWriter, int], None]


def image_logger(config: Config, learner: Learner, source: StreetDataset, target: StreetDataset | None) -> ImageLogger:
    """An image logger that draws the same few images of both domains every TRAIN.PICTURES_EVERY iterations.

    Columns: image, labels (of the source, or pseudo labels), prediction, depth beside its ground truth, entropy and
    depth-aware map. The target's ground truth is never opened. The network's mode, its statistics and all random
    states stay unchanged.
    """
    domains = [("source", source), *([("target", target)] if target is not None else [])]

    def log_images(writer: TensorBoardWriter, iteration: int) -> None:
        if iteration % config.TRAIN.PICTURES_EVERY:
            return
        for role, dataset in domains:
            writer.image(iteration, f"pictures/{role}", domain_grid(learner, dataset))

    return log_images


def domain_grid(learner: Learner, dataset: StreetDataset, count: int = EXAMPLES) -> Image.Image:
    """An image grid of one domain, with the class legend below."""
    items = [dataset[index] for index in evenly_spaced(len(dataset), count)]
    classes = dataset.classes
    images = (item["image"][None] for item in items)
    predictions = predict_images(learner.net, images, learner.device, learner.context.amp_dtype)
    columns: list[Column] = [("image", [denormalize(item["image"].numpy(), dataset.mean) for item in items])]
    if "label" in items[0]:
        title = "pseudo label" if dataset.pseudo is not None else "ground truth"
        columns.append((title, [class_colors(item["label"].numpy(), classes.colors) for item in items]))
    columns.append(("prediction", [class_colors(p.main.argmax(1)[0].numpy(), classes.colors) for p in predictions]))
    columns += _depth_columns(items, predictions)
    entropies = [self_information(p.main.softmax(1)).sum(1)[0] for p in predictions]
    columns.append(("entropy", [heatmap(entropy.numpy(), (0.0, 1.0)) for entropy in entropies]))
    if predictions[0].depth is not None:
        # Summed over the classes, the depth-aware map is entropy x depth, so `daf`, which defines it, is not imported.
        pairs = zip(entropies, predictions, strict=True)
        depth_aware = [entropy * p.depth[0, 0] for entropy, p in pairs if p.depth is not None]
        columns.append(("depth-aware map", [heatmap(values.numpy()) for values in depth_aware]))
    height, width = items[0]["image"].shape[1:]
    grid = image_grid(columns, (TILE_WIDTH, max(1, round(TILE_WIDTH * height / width))))
    return stack(grid, legend(classes.names, classes.colors, grid.width))


def _depth_columns(items: list[dict[str, Any]], predictions: list[NetworkOutputs]) -> list[Column]:
    """Predicted depth on a logarithmic scale; with ground truth, both in the colour range of the ground truth."""
    predicted = [np.log1p(p.depth[0, 0].clamp(min=0).numpy()) for p in predictions if p.depth is not None]
    if not predicted:
        return []
    if "depth" not in items[0]:
        return [("depth (near is bright)", [heatmap(depth) for depth in predicted])]
    truth = [np.log1p(item["depth"].numpy()) for item in items]
    limits = [percentile_range(depth) for depth in truth]
    drawn = [heatmap(depth, limit) for depth, limit in zip(predicted, limits, strict=True)]
    return [("depth: truth", [heatmap(depth) for depth in truth]), ("depth: prediction", drawn)]
