"""Depth-aware map: cross-task interaction of segmentation and depth."""

from __future__ import annotations

from torch import Tensor

from advent.utils.loss import self_information
from daf.loss import LEAST_INVERSE


def depth_aware_map(logits: Tensor, depth: Tensor, power: int = 1) -> Tensor:
    """Self-information of softmax(logits) times depth ** power (the paper's depth-aware map; DADA's fusion).

    logits: (B, C, H, W); depth: (B, 1, H, W), same size, broadcast over the classes. Returns (B, C, H, W).
    power 0 is the plain self-information map. Raises ValueError when the sizes differ.
    """
    _require_same_size(logits, depth)
    information = self_information(logits.softmax(1))
    return information if power == 0 else information * depth**power


def distance_aware_map(logits: Tensor, depth: Tensor) -> Tensor:
    """Self-information of softmax(logits) times distance over the image's mean distance (RANK.MAP: distance; ours).

    Shapes as in `depth_aware_map`; depth is inverse depth. The distance is 1 / depth, at most 80 m. The factor's mean
    over an image is 1, so an image of wide streets does not score higher than a narrow one. Near pixels, mostly road,
    count least, while inverse depth makes them dominate. Raises ValueError when the sizes differ.
    """
    _require_same_size(logits, depth)
    distance = 1 / depth.clamp(min=LEAST_INVERSE)
    return self_information(logits.softmax(1)) * (distance / distance.mean((2, 3), keepdim=True))


def _require_same_size(logits: Tensor, depth: Tensor) -> None:
    if depth.shape[-2:] != logits.shape[-2:]:
        raise ValueError(f"logits are {tuple(logits.shape[-2:])}, depth {tuple(depth.shape[-2:])}: resize first")
