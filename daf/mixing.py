"""Pure functions of self-training: pseudo labels and their weights, ClassMix, block masks, the weighted loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from advent.dataset.sampling import sample_rng
from advent.utils.loss import IGNORE_LABEL


def uniform(seed: int, positions: Tensor, stream: str, shape: Sequence[int], device: torch.device) -> Tensor:
    """Uniform float32 numbers in [0, 1) of each sample, (B, *shape) on `device`.

    positions: (B,) int64 on the CPU. The numbers depend on (seed, stream, position) only; `stream` is one of
    `sampling.STREAMS`. They are drawn on the CPU, so that the host does not wait for the device.
    """
    drawn = [sample_rng(seed, stream, at).random(tuple(shape), np.float32) for at in positions.tolist()]
    numbers = torch.from_numpy(np.stack(drawn))
    if device.type == "cuda":  # copies from pinned memory do not wait
        numbers = numbers.pin_memory()
    return numbers.to(device, non_blocking=device.type == "cuda")


def pseudo_weight(probability: Tensor, label: Tensor, threshold: float | Tensor, kind: str, num_classes: int) -> Tensor:
    """Weights (B, H, W) of pseudo labels `label` (B, H, W) with the given `probability` (B, H, W); per image.

    share: the image's share of pixels with probability >= threshold. confidence: 1 for these pixels, else 0. class: the
    share of these pixels among the image's pixels of the same class. A threshold of shape (C,) has one value per class.
    """
    if isinstance(threshold, Tensor):
        threshold = threshold[label]
    confident = (probability >= threshold).to(probability.dtype)
    if kind == "confidence":
        return confident
    if kind == "share":
        return confident.mean((1, 2), keepdim=True).expand_as(confident)
    flat = label.flatten(1)
    zeros = confident.new_zeros(len(label), num_classes)
    total = zeros.scatter_add(1, flat, torch.ones_like(flat, dtype=confident.dtype))
    sure = zeros.scatter_add(1, flat, confident.flatten(1))
    return (sure / total.clamp(min=1)).gather(1, flat).view_as(confident)


def ignored_rows(weight: Tensor, top: float, bottom: float) -> Tensor:
    """The weights (B, H, W) with 0 in the given shares of rows at the top and at the bottom."""
    height = weight.shape[1]
    rows = torch.arange(height, device=weight.device)
    kept = (rows >= round(top * height)) & (rows < height - round(bottom * height))
    return weight * kept[:, None]


def drawn_classes(label: Tensor, draws: Tensor) -> Tensor:
    """Which classes to paste, (B, C) bool: ceil(n / 2) of the n classes in each label, those with the greatest draws.

    label: (B, H, W) train ids; 255 and negative ids are no class. draws: (B, C) in [0, 1).
    """
    num_classes = draws.shape[1]
    ids = label.long().flatten(1)
    present = torch.zeros(len(label), num_classes + 1, dtype=torch.bool, device=label.device)
    valid = (ids >= 0) & (ids < num_classes)
    present.scatter_(1, torch.where(valid, ids, num_classes), True)
    score = torch.where(present[:, :num_classes], draws + 1, draws - 1)  # absent classes rank last
    rank = score.argsort(1, descending=True).argsort(1)
    count = present[:, :num_classes].sum(1, keepdim=True)
    return rank < (count + 1) // 2


def class_mask(label: Tensor, chosen: Tensor) -> Tensor:
    """Pixels (B, H, W) bool whose label is a chosen class; `chosen`: (B, C) bool. 255 is never chosen."""
    ids = label.long()
    valid = (ids >= 0) & (ids < chosen.shape[1])
    return chosen.gather(1, torch.where(valid, ids, 0).flatten(1)).view_as(valid) & valid


def block_mask(draws: Tensor, ratio: float, block: int, size_hw: Sequence[int]) -> Tensor:
    """Visible pixels (B, 1, H, W) bool: a block of `block` pixels is visible where its draw exceeds `ratio`.

    draws: (B, ceil(H / block), ceil(W / block)) in [0, 1).
    """
    height, width = size_hw
    visible = (draws > ratio).repeat_interleave(block, 1).repeat_interleave(block, 2)
    return visible[:, None, :height, :width]


def grid_size(size_hw: Sequence[int], block: int) -> tuple[int, int]:
    """Rows and columns of the blocks that cover an image of (H, W)."""
    return -(-size_hw[0] // block), -(-size_hw[1] // block)


def weighted_cross_entropy(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Cross entropy times weight, averaged over all pixels; ignored and zero-weight pixels count in the mean.

    logits: (B, C, H, W); label: (B, H, W) train ids, 255 and negative ignored; weight: (B, H, W).
    """
    label = label.long()
    label = label.masked_fill(label < 0, IGNORE_LABEL)
    losses = functional.cross_entropy(logits, label, ignore_index=IGNORE_LABEL, reduction="none")
    return (losses * weight).mean()
