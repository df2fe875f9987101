"""One picture of a whole pipeline: target images, ground truth, every stage's prediction, depth, depth-aware map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from advent.dataset.classes import ClassSet
from advent.domain_adaptation.steps import Parts, Prediction
from advent.engine.build import build_network, class_set, test_data
from advent.engine.device import pick_device
from advent.engine.registry import find_method
from advent.engine.streams import loader
from advent.utils.serialization import write_atomically
from advent.utils.viz_segmask import colorize_mask
from daf.interaction import depth_aware_map

if TYPE_CHECKING:
    from ida.runner import Stage

TILE = (240, 180)  # width, height
MARGIN, CAPTION = 4, 18
EXAMPLES = 4

Column = tuple[str, list[np.ndarray]]


def stage_grid(stages: Sequence[Stage], path: str | Path) -> Path:
    """Write the grid as PNG: one row per example, spread evenly over the target's labelled set.

    Depth and depth-aware map are those of the last stage whose network predicts depth.
    """
    trained = [stage for stage in stages if stage.trains]
    config = trained[-1].config
    classes, dataset = class_set(config), test_data(config)
    chosen = np.linspace(0, len(dataset) - 1, min(EXAMPLES, len(dataset))).round().astype(int)
    subset = torch.utils.data.Subset(dataset, chosen.tolist())
    batches = list(loader(subset, workers=0, batch_size=1, shuffle=False))
    mean = np.asarray(config.TRAIN.IMG_MEAN).reshape(3, 1, 1)
    columns: list[Column] = [
        ("image", [_photograph(batch["image"][0].numpy() + mean) for batch in batches]),
        ("ground truth", [_colored(batch["label"][0].numpy(), classes) for batch in batches]),
    ]
    last: list[Prediction] = []
    for stage in trained:
        predictions = _predict(stage, [batch["image"] for batch in batches])
        columns.append((stage.name, [_colored(p.main.argmax(1)[0].numpy(), classes) for p in predictions]))
        if predictions[0].depth is not None:
            last = predictions
    if last:
        columns += [
            ("depth (near is bright)", [_scalar(p.depth) for p in last]),
            ("depth-aware map", [_map(p) for p in last]),
        ]
    picture = _compose(columns)
    return write_atomically(path, lambda handle: picture.save(handle, "PNG"))


@torch.inference_mode()
def _predict(stage: Any, images: list[Tensor]) -> list[Prediction]:
    device = pick_device(stage.config.DEVICE)
    net = build_network(stage.config, stage.folder.snapshots()[-1][1]).to(device).eval()
    parts = Parts(net, find_method(stage.config))
    return [parts.predict(image.to(device)).each(lambda x: x.float().cpu()) for image in images]


def _photograph(bgr: np.ndarray) -> np.ndarray:
    return bgr[::-1].transpose(1, 2, 0).round().clip(0, 255).astype(np.uint8)


def _colored(labels: np.ndarray, classes: ClassSet) -> np.ndarray:
    return np.asarray(colorize_mask(labels.astype(np.uint8), classes.colors).convert("RGB"))


def _scalar(values: Tensor | None) -> np.ndarray:
    """(1, 1, H, W) as a heat map between its own 2nd and 98th percentile."""
    assert values is not None
    plane = values[0].sum(0).numpy()
    low, high = np.percentile(plane, (2, 98))
    scaled = np.clip((plane - low) / max(high - low, 1e-12), 0, 1)
    return cv2.applyColorMap((255 * scaled).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]


def _map(prediction: Prediction) -> np.ndarray:
    assert prediction.depth is not None
    return _scalar(depth_aware_map(prediction.main, prediction.depth))


def _compose(columns: Sequence[Column]) -> Image.Image:
    rows = len(columns[0][1])
    width, height = TILE[0] + MARGIN, TILE[1] + MARGIN
    sheet = Image.new("RGB", (width * len(columns) + MARGIN, height * rows + CAPTION + MARGIN), "white")
    draw: Any = ImageDraw.Draw(sheet)
    for c, (title, tiles) in enumerate(columns):
        draw.text((MARGIN + c * width, 3), title, fill="black")
        for r, tile in enumerate(tiles):
            corner = (MARGIN + c * width, CAPTION + r * height)
            sheet.paste(Image.fromarray(np.ascontiguousarray(tile)).resize(TILE, Image.Resampling.NEAREST), corner)
    return sheet
