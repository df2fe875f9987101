"""How right a stage's labels and ranking are, where the target has labels: a diagnosis, nothing is chosen by it."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from advent.dataset.base_dataset import StreetDataset, collect_pseudo_labels
from advent.dataset.place import resolve_root
from advent.dataset.reading import read_ids
from advent.dataset.spec import load_spec
from advent.engine.build import class_set, target_data
from advent.engine.metrics import confusion_matrix, intersection_over_union, mean_iou
from advent.errors import DataError
from advent.utils.loss import IGNORE_LABEL
from ida.rank_stage import MASKS
from ida.stage import Stage

log = logging.getLogger(__name__)


def label_quality(stage: Stage) -> dict[str, Any] | None:
    """Of the newest pseudo labels of a self-learning stage, in percent; None where the target's train has no labels.

    kept: of all pixels. coverage, precision: per true class the share of its pixels that keep a label, per predicted
    class the share of its labels that are right; null where there are none.
    """
    folder = max((stage.folder.path / "pseudo_labels").glob("round_*"), key=lambda p: int(p.name.split("_")[1]))
    names = class_set(stage.config).names
    labels = _labels(stage.config, folder)
    if labels is None:
        return None
    made, truth = labels
    known = truth != IGNORE_LABEL
    kept = made != IGNORE_LABEL
    right = made == truth
    coverage, precision = {}, {}
    for index, name in enumerate(names):
        coverage[name] = _percent(kept[truth == index])
        precision[name] = _percent(right[(made == index) & known])
    return {
        "kept": _percent(kept),
        "right": _percent(right[kept & known]),
        "coverage": coverage,
        "precision": precision,
    }


def ranking_quality(stage: Stage) -> dict[str, Any] | None:
    """Whether the ranking finds easier images: mIoU (percent) of its labels on both halves, and Spearman's correlation
    of the score with the true error (share of wrong pixels) over the images; None where there are no labels.
    """
    with open(stage.folder.path / "ranking.csv", newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    names = [row["name"] for row in rows]
    labels = _labels(stage.config, stage.folder.path / MASKS, names)
    if labels is None:
        return None
    made, truth = labels
    classes = stage.config.NUM_CLASSES
    hists = [confusion_matrix(t, m, classes) for t, m in zip(truth, made, strict=True)]
    error = [1 - np.trace(hist) / max(hist.sum(), 1) for hist in hists]
    easy = np.array([row["half"] == "easy" for row in rows])

    def miou(chosen: np.ndarray) -> float:
        return mean_iou(intersection_over_union(np.stack(hists)[chosen].sum(0)))

    scores = [float(row["score"]) for row in rows]
    return {
        "easy": int(easy.sum()), "hard": int((~easy).sum()), "miou_easy": miou(easy), "miou_hard": miou(~easy),
        "error_easy": 100 * float(np.mean(np.array(error)[easy])),
        "error_hard": 100 * float(np.mean(np.array(error)[~easy])),
        "spearman": spearman(scores, error),
    }  # fmt: skip


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rank correlation: Pearson's of the ranks, ties at their mean rank; None where all are equal."""

    def ranks(values: Sequence[float]) -> np.ndarray:
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        ends = counts.cumsum()
        return (ends - (counts - 1) / 2)[inverse]

    ranked = ranks(a), ranks(b)
    if min(np.ptp(one) for one in ranked) == 0:
        return None
    return float(np.corrcoef(*ranked)[0, 1])


def _labels(config: Any, folder: Path, names: Sequence[str] | None = None) -> tuple[np.ndarray, np.ndarray] | None:
    """(N, H, W) pseudo labels of the target's training images, and their ground truth at the same size, if any."""
    names = list(names if names is not None else target_data(config).names)
    spec = load_spec(config.TARGET)
    root = resolve_root(config.DATA_ROOT, config.DATA_DIRECTORY_TARGET, spec)
    size = tuple(config.TRAIN.INPUT_SIZE_TARGET)
    try:
        truth = StreetDataset(
            spec, root, config.TRAIN.SET_TARGET, class_set(config), size=size, label_size=size, names=names,
            with_labels=True,
        )  # fmt: skip
    except DataError as error:
        log.warning("the target's training images have no labels to compare with (%s)", error)
        return None
    made = np.stack([read_ids(file) for file in collect_pseudo_labels(folder, names)])
    return made, np.stack([truth.decode(index)["label"] for index in range(len(truth))])


def _percent(flags: np.ndarray) -> float | None:
    return 100 * float(flags.mean()) if flags.size else None
