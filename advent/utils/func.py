"""Loss, metric and learning-rate functions under their names in ADVENT's public interface."""

from __future__ import annotations

import numpy as np
import torch
from easydict import EasyDict
from torch import Tensor

from advent.utils.loss import bce_loss, cross_entropy_2d, self_information
from advent.utils.metrics import confusion_matrix, intersection_over_union
from advent.utils.schedule import poly_rate, set_rate

__all__ = [
    "adjust_learning_rate",
    "adjust_learning_rate_discriminator",
    "bce_loss",
    "fast_hist",
    "loss_calc",
    "lr_poly",
    "per_class_iu",
    "prob_2_entropy",
]

prob_2_entropy = self_information
lr_poly = poly_rate


def loss_calc(pred: Tensor, label: Tensor, device: torch.device | str) -> Tensor:
    """Cross entropy of (B, C, H, W) logits against (B, H, W) labels, moved to `device`."""
    return cross_entropy_2d(pred, label.long().to(device))


def fast_hist(a: np.ndarray, b: np.ndarray, n: int) -> np.ndarray:
    """(n, n) int64 confusion matrix of labels `a` (rows) and predictions `b` (columns); labels >= n are dropped."""
    return confusion_matrix(a, b, n)


def per_class_iu(hist: np.ndarray) -> np.ndarray:
    """Intersection over union per class of an (n, n) confusion matrix; NaN for a class that does not occur."""
    return intersection_over_union(hist)


def adjust_learning_rate(optimizer: torch.optim.Optimizer, i_iter: int, cfg: EasyDict) -> float:
    """Set the poly learning rate of iteration `i_iter` for the network: group 0 at the rate, group 1 at ten times.

    Returns the rate.
    """
    return set_rate(optimizer, poly_rate(cfg.TRAIN.LEARNING_RATE, i_iter, cfg.TRAIN.MAX_ITERS, cfg.TRAIN.POWER))


def adjust_learning_rate_discriminator(optimizer: torch.optim.Optimizer, i_iter: int, cfg: EasyDict) -> float:
    """Set the poly learning rate of iteration `i_iter` for a discriminator's optimizer. Returns the rate."""
    return set_rate(optimizer, poly_rate(cfg.TRAIN.LEARNING_RATE_D, i_iter, cfg.TRAIN.MAX_ITERS, cfg.TRAIN.POWER))
