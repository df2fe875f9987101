"""Confusion matrix, IoU and mIoU, with the conventions of the authors' code."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Confusion matrix: (num_classes, num_classes) int64 counts, row = label, column = prediction.

    labels and predictions: integer arrays of one shape. Pixels with a label outside 0..num_classes-1 (such as
    255) are ignored. Raises ValueError if the shapes differ.
    """
    if labels.shape != predictions.shape:
        raise ValueError(f"labels are {labels.shape}, predictions {predictions.shape}")
    labels, predictions = labels.reshape(-1), predictions.reshape(-1)
    valid = (labels >= 0) & (labels < num_classes)
    cells = num_classes * labels[valid].astype(np.int64) + predictions[valid]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def confusion_counts(labels: Tensor, predictions: Tensor, num_classes: int) -> Tensor:
    """`confusion_matrix` of uint8 tensors on their device, (num_classes, num_classes) int64."""
    cells = labels.to(torch.int32) * num_classes + predictions
    counts = torch.bincount(cells.reshape(-1), minlength=256 * num_classes)
    return counts.reshape(256, num_classes)[:num_classes]


def intersection_over_union(hist: np.ndarray) -> np.ndarray:
    """Per-class IoU in [0, 1], float64; NaN for a class that is neither labelled nor predicted.

    A class that is predicted but never labelled has IoU 0.
    """
    diagonal = np.diag(hist).astype(np.float64)
    union = hist.sum(0) + hist.sum(1) - np.diag(hist)
    return np.divide(diagonal, union, out=np.full(len(hist), np.nan), where=union > 0)


def mean_iou(iou: np.ndarray, classes: tuple[int, ...] | None = None) -> float:
    """Mean of the given classes' IoU in percent, without absent classes (NaN); NaN if none remains.

    A subset mean (mIoU13) uses the same IoUs; the confusion matrix is not recomputed.
    """
    chosen = iou if classes is None else iou[list(classes)]
    chosen = chosen[~np.isnan(chosen)]
    return float(chosen.mean() * 100) if len(chosen) else float("nan")
