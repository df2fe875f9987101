"""Depth-aware map: cross-task interaction of segmentation and depth."""

from __future__ import annotations

from torch import Tensor

from advent.utils.loss import self_information


def depth_aware_map(logits: Tensor, depth: Tensor, power: int = 1) -> Tensor:
    """Self-information of softmax(logits) times depth ** power (the paper's depth-aware map; DADA's fusion).

    logits: (B, C, H, W); depth: (B, 1, H, W), same size, broadcast over the classes. Returns (B, C, H, W).
    power 0 is the plain self-information map. Raises ValueError when the sizes differ.
    """
    if depth.shape[-2:] != logits.shape[-2:]:
        raise ValueError(f"logits are {tuple(logits.shape[-2:])}, depth {tuple(depth.shape[-2:])}: resize first")
    information = self_information(logits.softmax(1))
    return information if power == 0 else information * depth**power
