"""Class-wise thresholds of pseudo labels, by which each class keeps a share of its pixels."""

from __future__ import annotations

import torch
from torch import Tensor


def probability_counts(probability: Tensor, label: Tensor, num_classes: int, bins: int) -> Tensor:
    """Histogram (C, bins) float32 of the probabilities of the pixels that are labelled as each class.

    probability, label: of one shape. Equal bins over [0, 1]. The host does not wait for the device.
    """
    at = label * bins + (probability * bins).long().clamp(max=bins - 1)
    zeros = torch.zeros(num_classes * bins, device=probability.device)
    return zeros.index_add(0, at.flatten(), torch.ones_like(at, dtype=zeros.dtype).flatten()).view(num_classes, bins)


def class_thresholds(counts: Tensor, threshold: float, share: float) -> Tensor:
    """Class-wise thresholds (C,): `threshold`, or lower where less than `share` of a class's pixels would reach it.

    counts: (C, bins) floats, as of `probability_counts`. A lowered threshold is the lower edge of the bin that
    completes the class's most probable `share`. A class without pixels keeps `threshold`.
    """
    most_probable = counts.flip(1).cumsum(1).flip(1)  # pixels at least as probable as each bin
    total = most_probable[:, :1]
    highest = (most_probable >= share * total).sum(1) - 1  # the highest bin that reaches the share
    edges = highest.to(counts.dtype) / counts.shape[1]
    return torch.where(total[:, 0] > 0, edges.clamp(max=threshold), threshold)
