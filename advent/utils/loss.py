"""Losses on logits and probabilities (ADVENT, section 3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

IGNORE_LABEL = 255
SOURCE_LABEL, TARGET_LABEL = 0, 1  # ADVENT's order; other libraries use the reverse


def valid_pixels(target: Tensor) -> Tensor:
    """Mask of valid labels, neither 255 nor negative: bool of the same shape."""
    return (target != IGNORE_LABEL) & (target >= 0)


def cross_entropy_2d(predict: Tensor, target: Tensor, count: Tensor | None = None) -> Tensor:
    """Mean cross entropy over pixels whose label is neither 255 nor negative.

    predict: (B, C, H, W) logits; target: (B, H, W) integer train ids. Without a valid pixel the result is 0
    with a zero gradient, never NaN. `count`: divisor of the sum, in place of the number of valid pixels (for a
    micro-batch of a larger batch). Raises ValueError if the sizes differ.
    """
    if predict.dim() != 4 or target.dim() != 3 or predict.shape[0] != target.shape[0]:
        raise ValueError(f"expected (B, C, H, W) and (B, H, W), got {tuple(predict.shape)} and {tuple(target.shape)}")
    if predict.shape[2:] != target.shape[1:]:
        raise ValueError(f"logits are {tuple(predict.shape[2:])} and labels {tuple(target.shape[1:])}: resize first")
    target = target.long()
    target = target.masked_fill(target < 0, IGNORE_LABEL)
    # CUDA's kernel adds the pixels in no fixed order, unless the sum is an operation of its own.
    apart = predict.device.type != "cpu" and torch.are_deterministic_algorithms_enabled()
    reduction = "none" if apart else "sum"
    total = functional.cross_entropy(predict, target, ignore_index=IGNORE_LABEL, reduction=reduction).sum()
    return total / ((target != IGNORE_LABEL).sum().clamp(min=1) if count is None else count.to(total.dtype))


def self_information(probs: Tensor) -> Tensor:
    """Weighted self-information map -p log2(p) / log2(C) (ADVENT, section 3.2).

    probs: (B, C, H, W) float, sums to 1 over C. Returns the same shape; its sum over C is the entropy, in [0, 1].
    Raises ValueError if C < 2: log2(1) is 0.
    """
    num_classes = probs.shape[1]
    if num_classes < 2:
        raise ValueError("self-information needs at least two classes")
    return -probs * torch.log2(probs + 1e-30) / math.log2(num_classes)


def entropy_loss(probs: Tensor) -> Tensor:
    """MinEnt loss: mean over pixels of the normalised entropy of (B, C, H, W) probabilities, in [0, 1]."""
    return self_information(probs).sum(1).mean()


def bce_loss(y_pred: Tensor, y_label: int | float) -> Tensor:
    """Mean binary cross entropy of domain logits (any shape) against one domain label."""
    return functional.binary_cross_entropy_with_logits(y_pred, torch.full_like(y_pred, float(y_label)))
