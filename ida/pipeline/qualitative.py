"""Qualitative figures: every stage's predictions on the target, and samples of the source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from advent.build import evaluation_data, source_data
from advent.config.class_set import class_set
from advent.config.schema import Config
from advent.dataset.loader import load_batches, sequential_batches
from advent.utils.image_grid import Column, class_colors, denormalize, heatmap, image_grid
from advent.utils.sampling import evenly_spaced
from advent.utils.serialization import write_atomically
from daf.interaction import depth_aware_map
from daf.visualization import visible_depth
from ida.pipeline.assets import stage_predictions
from ida.pipeline.stage import Stage

EXAMPLES = 4


def qualitative_figure(stages: Sequence[Stage], path: str | Path) -> Path:
    """Write the grid: one row per example, spread evenly over the target's labelled set.

    A name in .jpg or .jpeg makes a JPEG, any other a PNG. Depth and depth-aware map are those of the last stage whose
    network predicts depth; the depth is shown on a logarithmic scale.
    """
    trained = [stage for stage in stages if stage.trains]
    config = trained[-1].config
    colors, dataset = class_set(config).colors, evaluation_data(config)
    chosen = evenly_spaced(len(dataset), EXAMPLES)
    subset = torch.utils.data.Subset(dataset, chosen)
    batches = list(load_batches(subset, 0, torch.device("cpu"), sequential_batches(len(chosen), 1)))
    columns: list[Column] = [
        ("image", [denormalize(batch["image"][0].numpy(), config.TRAIN.IMG_MEAN) for batch in batches]),
        ("ground truth", [class_colors(batch["label"][0].numpy(), colors) for batch in batches]),
    ]
    depths: list[Column] = []
    for stage in trained:
        predictions = stage_predictions(stage, [batch["image"] for batch in batches])
        columns.append((stage.name, [class_colors(p.main.argmax(1)[0].numpy(), colors) for p in predictions]))
        with_depth = [(p.main, p.depth) for p in predictions if p.depth is not None]
        if with_depth:
            depths = [
                ("depth (near is bright)", [heatmap(visible_depth(depth[0, 0].numpy())) for _, depth in with_depth]),
                ("depth-aware map", [heatmap(depth_aware_map(*pair)[0].sum(0).numpy()) for pair in with_depth]),
            ]
    picture = image_grid([*columns, *depths])
    kind = "JPEG" if Path(path).suffix.lower() in (".jpg", ".jpeg") else "PNG"
    return write_atomically(path, lambda handle: picture.save(handle, kind, quality=88))


def source_figure(config: Config, path: str | Path, count: int = EXAMPLES) -> Path:
    """Write a PNG of `count` images of the source with labels and, if the network learns it, depth."""
    dataset, colors = source_data(config), class_set(config).colors
    items = [dataset[index] for index in evenly_spaced(len(dataset), max(count, 1))]
    columns: list[Column] = [
        ("image", [denormalize(np.asarray(item["image"]), config.TRAIN.IMG_MEAN) for item in items]),
        ("labels", [class_colors(np.asarray(item["label"]), colors) for item in items]),
    ]
    if "depth" in items[0]:
        columns.append(
            ("depth (near is bright)", [heatmap(visible_depth(np.asarray(item["depth"]))) for item in items])
        )
    picture = image_grid(columns)
    return write_atomically(path, lambda handle: picture.save(handle, "PNG"))
