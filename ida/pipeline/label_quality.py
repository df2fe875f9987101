"""Quality of pseudo labels and ranking against the target's labels: a diagnostic, never used for selection."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from advent.build import target_data
from advent.config.class_set import class_set, target_spec
from advent.config.schema import Config
from advent.dataset.base_dataset import StreetDataset
from advent.dataset.image_io import read_ids
from advent.dataset.pseudo_labels import collect_pseudo_labels
from advent.dataset.resolved_layout import resolve_root
from advent.errors import UserError
from advent.utils.loss import IGNORE_LABEL
from advent.utils.metrics import confusion_matrix, intersection_over_union, mean_iou
from ida.pipeline.stage import Stage
from ida.rank_stage import MASKS

log = logging.getLogger(__name__)


def label_quality(stage: Stage) -> dict[str, Any] | None:
    """Quality of a self-learning stage's newest pseudo labels, in percent; None if the training images have no labels.

    kept: labelled share of all pixels. right: correct share of the labelled pixels. coverage: labelled share of the
    pixels of each true class. precision: correct share of the labels of each class. None for a class without pixels.
    """
    folder, names = _newest_round(stage), class_set(stage.config).names
    counts = np.zeros((len(names) + 1, len(names) + 1), np.int64)  # truth x label; last row and column: unlabelled
    pairs = _labels(stage.config, folder)
    if pairs is None:
        return None
    for label, truth in pairs:
        counts += confusion_matrix(_none_last(truth, len(names)), _none_last(label, len(names)), len(names) + 1)
    known = counts[:-1]
    kept, right = known[:, :-1].sum(1), np.diag(counts)[:-1]
    return {
        "kept": _percent(counts[:, :-1].sum(), counts.sum()),
        "right": _percent(right.sum(), kept.sum()),
        "coverage": {name: _percent(k, t) for name, k, t in zip(names, kept, known.sum(1), strict=True)},
        "precision": {name: _percent(r, m) for name, r, m in zip(names, right, known[:, :-1].sum(0), strict=True)},
    }


def label_shares(stage: Stage) -> dict[str, float | None]:
    """Class -> percent of all pixels with that label in the newest pseudo labels. Needs no ground truth."""
    names = class_set(stage.config).names
    counts = np.zeros(IGNORE_LABEL + 1, np.int64)
    for file in collect_pseudo_labels(_newest_round(stage), target_data(stage.config).names):
        counts += np.bincount(read_ids(file).reshape(-1), minlength=IGNORE_LABEL + 1)
    return {name: _percent(count, counts.sum()) for name, count in zip(names, counts, strict=False)}


def ranking_quality(stage: Stage) -> dict[str, Any] | None:
    """Quality of a ranking; None if the target's training images have no labels.

    mIoU (percent) and share of wrong pixels (percent) of its pseudo labels on both halves, and Spearman's correlation
    of the score with the true error (share of wrong pixels) over the images. Pixels without a label (RANK.THRESHOLD) do
    not count.
    """
    with open(stage.run_dir.path / "ranking.csv", newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    names = [row["name"] for row in rows]
    pairs = _labels(stage.config, stage.run_dir.path / MASKS, names)
    if pairs is None:
        return None
    hists = [
        confusion_matrix(np.where(label == IGNORE_LABEL, IGNORE_LABEL, truth), label, stage.config.NUM_CLASSES)
        for label, truth in pairs
    ]
    error = [1 - np.trace(hist) / max(hist.sum(), 1) for hist in hists]
    easy = np.array([row["half"] == "easy" for row in rows])

    def miou(chosen: np.ndarray) -> float:
        return mean_iou(intersection_over_union(np.stack(hists)[chosen].sum(0)))

    scores = [float(row["score"]) for row in rows]
    return {
        "easy": int(easy.sum()),
        "hard": int((~easy).sum()),
        "miou_easy": miou(easy),
        "miou_hard": miou(~easy),
        "error_easy": 100 * float(np.mean(np.array(error)[easy])),
        "error_hard": 100 * float(np.mean(np.array(error)[~easy])),
        "spearman": spearman(scores, error),
    }


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rank correlation: Pearson's correlation of ranks (ties: mean rank); None if all values are equal."""

    def mean_ranks(values: Sequence[float]) -> np.ndarray:
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        ends = counts.cumsum()
        return (ends - (counts - 1) / 2)[inverse]

    ranked = mean_ranks(a), mean_ranks(b)
    if min(np.ptp(ranks) for ranks in ranked) == 0:
        return None
    return float(np.corrcoef(*ranked)[0, 1])


def _labels(
    config: Config, folder: Path, names: Sequence[str] | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]] | None:
    """Iterator of (pseudo label, ground truth), (H, W) each, over the target's training images; None without truth.

    Lazy: the labels of Cityscapes take three gigabytes.
    """
    names = list(names if names is not None else target_data(config).names)
    try:
        truth = training_truth(config, names)
    except UserError as error:  # no files, or no table for these classes
        log.warning("no label quality: the target's training images have no labels (%s)", error)
        return None
    files = collect_pseudo_labels(folder, names)
    return ((read_ids(file), truth.label(index)) for index, file in enumerate(files))


def training_truth(config: Config, names: Sequence[str]) -> StreetDataset:
    """The target's training images with their labels, at the network's input size. Raises UserError without labels."""
    spec = target_spec(config.TARGET, config.GEOMETRY_TARGET)
    root = resolve_root(config.DATA_ROOT, config.DATA_DIRECTORY_TARGET, spec)
    size = tuple(config.TRAIN.INPUT_SIZE_TARGET)
    return StreetDataset(
        spec,
        root,
        config.TRAIN.SET_TARGET,
        class_set(config),
        size=size,
        label_size=size,
        names=names,
        with_labels=True,
    )


def _newest_round(stage: Stage) -> Path:
    return max((stage.run_dir.path / "pseudo_labels").glob("round_*"), key=lambda p: int(p.name.split("_")[1]))


def _none_last(ids: np.ndarray, num_classes: int) -> np.ndarray:
    return np.where(ids == IGNORE_LABEL, num_classes, ids)


def _percent(part: Any, total: Any) -> float | None:
    return 100 * float(part / total) if total else None
