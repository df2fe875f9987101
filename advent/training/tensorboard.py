"""TensorBoard files of a stage: what the metrics hold, the share of waiting for data, and pictures of both domains.

Nothing here is part of a run: with or without it the weights are the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from advent.config.schema import Config
from advent.dataset.base_dataset import StreetDataset
from advent.methods.steps import Prediction, StepContext
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

EXAMPLES = 2  # of each domain
TILE_WIDTH = 240


class TensorBoardWriter:
    """Writes below a folder; `iteration` is the first one that this start runs (later entries are replaced)."""

    def __init__(self, folder: Path, iteration: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=iteration)
        self._time, self._waited = time.monotonic(), 0.0

    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        """Losses, learning rates, scores: by the names that the metrics give them."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, iteration)

    def data_wait(self, iteration: int, waited: float) -> None:
        """`waited`: seconds for data since this start; written as its share of the time since the last call."""
        now = time.monotonic()
        share = (waited - self._waited) / max(now - self._time, 1e-9)
        self._writer.add_scalar("waiting_share", min(1.0, share), iteration)
        self._time, self._waited = now, waited

    def image(self, iteration: int, name: str, picture: Image.Image) -> None:
        """One RGB picture."""
        self._writer.add_image(name, np.asarray(picture), iteration, dataformats="HWC")

    def close(self) -> None:
        """Bring everything to the disk."""
        self._writer.close()


ImageLogger = Callable[[TensorBoardWriter, int], None]


def image_logger(config: Config, learner: Learner, source: StreetDataset, target: StreetDataset | None) -> ImageLogger:
    """A view that draws the same few images of both domains every TRAIN.PICTURES_EVERY iterations.

    Image, labels (of the source, or pseudo labels), prediction, depth against its truth, entropy and depth-aware map.
    The target's ground truth is never opened. The network's mode, its statistics and all random numbers stay as
    they are.
    """
    domains = [("source", source), *([("target", target)] if target is not None else [])]

    def view(writer: TensorBoardWriter, iteration: int) -> None:
        if iteration % config.TRAIN.PICTURES_EVERY:
            return
        for role, dataset in domains:
            writer.image(iteration, f"pictures/{role}", domain_grid(learner, dataset))

    return view


def domain_grid(learner: Learner, dataset: StreetDataset, count: int = EXAMPLES) -> Image.Image:
    """The pictures of one domain, with the classes' legend beneath."""
    chosen = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    items = [dataset[int(index)] for index in chosen]
    classes = dataset.classes
    found = [_predict(learner, item["image"]) for item in items]
    columns: list[Column] = [("image", [denormalize(item["image"].numpy(), dataset.mean) for item in items])]
    if "label" in items[0]:
        what = "pseudo label" if dataset.pseudo_files is not None else "ground truth"
        columns.append((what, [class_colors(item["label"].numpy(), classes.colors) for item in items]))
    columns.append(("prediction", [class_colors(p.main.argmax(1)[0].numpy(), classes.colors) for p in found]))
    columns += _depth_columns(items, found)
    entropies = [self_information(p.main.softmax(1)).sum(1)[0] for p in found]
    columns.append(("entropy", [heatmap(entropy.numpy(), (0.0, 1.0)) for entropy in entropies]))
    if found[0].depth is not None:
        # Summed over the classes the depth-aware map is entropy x depth: no need of the floor that defines it.
        aware = [entropy * p.depth[0, 0] for entropy, p in zip(entropies, found, strict=True) if p.depth is not None]
        columns.append(("depth-aware map", [heatmap(one.numpy()) for one in aware]))
    height, width = items[0]["image"].shape[1:]
    drawn = image_grid(columns, (TILE_WIDTH, max(1, round(TILE_WIDTH * height / width))))
    return stack(drawn, legend(classes.names, classes.colors, drawn.width))


def _depth_columns(items: list[dict[str, Any]], found: list[Prediction]) -> list[Column]:
    """Predicted depth, beside the truth in the truth's own colours where there is one; both on a logarithmic scale."""
    predicted = [np.log1p(p.depth[0, 0].clamp(min=0).numpy()) for p in found if p.depth is not None]
    if not predicted:
        return []
    if "depth" not in items[0]:
        return [("depth (near is bright)", [heatmap(one) for one in predicted])]
    truth = [np.log1p(item["depth"].numpy()) for item in items]
    limits = [percentile_range(one) for one in truth]
    drawn = [heatmap(one, limit) for one, limit in zip(predicted, limits, strict=True)]
    return [("depth: truth", [heatmap(one) for one in truth]), ("depth: prediction", drawn)]


def _predict(learner: Learner, image: torch.Tensor) -> Prediction:
    net = learner.net
    was_training = net.training
    net.eval()
    try:
        with torch.no_grad():
            context = StepContext(net, learner.method, amp_dtype=learner.context.amp_dtype)
            return context.predict(image[None].to(learner.device)).each(lambda x: x.float().cpu())
    finally:
        net.train(was_training)
