"""Result files of an evaluation: a JSON record, tables in Markdown, CSV and LaTeX, and prediction images."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from advent.dataset.base_dataset import StreetDataset
from advent.dataset.classes import ClassSet
from advent.dataset.resolved_layout import ResolvedLayout
from advent.runtime.distributed import is_main, main_only
from advent.utils.metrics import intersection_over_union, mean_iou
from advent.utils.serialization import write_atomically, write_json, write_text
from advent.utils.tables import latex_table, results_table
from advent.utils.viz_segmask import colorize_mask


def summary(hist: np.ndarray, classes: ClassSet) -> dict[str, Any]:
    """Scores of a confusion matrix in the results schema, in percent; None for classes that do not occur."""
    iou = intersection_over_union(hist)
    total = int(hist.sum())
    subsets = {name: mean_iou(iou, members) for name, members in classes.subset.items()}
    return {
        "miou": mean_iou(iou),
        **{name: None if np.isnan(value) else value for name, value in subsets.items()},
        "pixel_accuracy": 100 * float(np.trace(hist)) / total if total else None,
        "iou": {name: None if np.isnan(v) else 100 * float(v) for name, v in zip(classes.names, iou, strict=True)},
        "pixels": total,
    }


@main_only
def write_results(folder: Path, record: Mapping[str, Any]) -> None:
    """Write `results.json`, and its table as `.md`, `.csv` and `.tex`."""
    write_json(folder / "results.json", record)
    rows = {row_name(result): result for result in record["results"]}
    write_text(folder / "results.md", results_table(rows, accuracy=True) + "\n")
    header, lines = _cells(rows)
    cells = [[name, *["" if value is None else repr(value) for value in values]] for name, values in lines]
    write_text(folder / "results.csv", _csv([header, *cells]))
    rounded = [[name, *["–" if value is None else f"{value:.1f}" for value in values]] for name, values in lines]
    write_text(folder / "results.tex", latex_table(header, rounded))


def row_name(result: Mapping[str, Any]) -> str:
    """Row name of a result: how it was selected, its snapshot, and its batch-norm statistics if re-estimated."""
    snapshot = f"model_{result['iteration']}" if result["iteration"] is not None else result["snapshot"]
    statistics = result.get("batch_norm")
    suffix = f", batch norm: target's {statistics['split']} images" if statistics else ""
    return f"{result['selected']} {snapshot}{suffix}"


def _cells(rows: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[tuple[str, list[float | None]]]]:
    first = next(iter(rows.values()))
    subsets = [key for key in first if key.startswith("mIoU")]
    header = ["model", "mIoU", *subsets, "pixel accuracy", *first["iou"]]
    lines = [
        (name, [row["miou"], *[row[key] for key in subsets], row["pixel_accuracy"], *row["iou"].values()])
        for name, row in rows.items()
    ]
    return header, lines


def _csv(rows: Iterable[Sequence[Any]]) -> str:
    sheet = io.StringIO()
    csv.writer(sheet, lineterminator="\n").writerows(rows)
    return sheet.getvalue()


class PredictionFolder:
    """Writes predictions in the official Cityscapes format: full-size PNGs of label ids, and color images.

    Files: `labelIds/<name>_pred_labelIds.png` and `color/<name>_pred_color.png`. The folders are separate because the
    official tool reads every PNG below its folder as a prediction. Label id PNGs have 8 bits, or 16 if the data set has
    label ids above 255. A class with several ids is written as the first one. A data set without label ids gets train
    ids. `classes.csv` lists id, name and color of every class.
    """

    def __init__(self, folder: Path, dataset: StreetDataset) -> None:
        self.folder, self.resolved, self.colors = folder, dataset.resolved, dataset.classes.colors
        classes, of_class = dataset.classes, dataset.spec.ids.get(dataset.classes.name)
        ids = range(len(classes)) if of_class is None else [of_class.get(name, (0,))[0] for name in classes.names]
        self.ids = np.array(ids, np.uint8 if max(ids) <= 255 else np.uint16)
        legend = [(i, name, *color) for i, name, color in zip(ids, classes.names, classes.colors, strict=True)]
        if is_main():
            write_text(folder / "classes.csv", _csv([("id", "name", "red", "green", "blue"), *legend]))

    def write(self, name: str, predicted: np.ndarray, size_hw: Sequence[int]) -> None:
        """Write the (H, W) uint8 train ids of one image; padding beyond `size_hw` is cut off."""
        resolved: ResolvedLayout = self.resolved
        height, width = size_hw
        cropped = predicted[:height, :width]
        file = self.folder / "labelIds" / f"{resolved.key(name)}_pred_labelIds.png"
        write_atomically(file, lambda f: Image.fromarray(self.ids[cropped]).save(f, "PNG"))
        file = self.folder / "color" / f"{resolved.key(name)}_pred_color.png"
        write_atomically(file, lambda f: colorize_mask(cropped, colors=self.colors).save(f, "PNG"))
