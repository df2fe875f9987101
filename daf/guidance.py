"""Depth that guides self-training: depth-ordered mixing, a depth prior of the classes, and depth losses (DEPTH keys).

All compare logarithms of inverse depth, cut to the range of the source's depth files: no depth is farther than 80 m.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from daf.loss import LARGEST_INVERSE, LEAST_INVERSE, log_l1

ONE_METRE = 65536 / 101  # the bins of the prior end here
BINS = 32
FEWEST = 0.1  # of the drawn pixels: if ordering would paste fewer, the mix is not ordered


def log_depth(inverse: Tensor) -> Tensor:
    """Logarithm of inverse depth, cut to the range of depth files; any shape, any sign."""
    return inverse.clamp(LEAST_INVERSE, LARGEST_INVERSE).log()


def depth_loss(predicted: Tensor, wanted: Tensor, known: Tensor | None = None) -> Tensor:
    """Mean smooth L1 distance of log inverse depths (B, H, W); unknown pixels count as 0 in the mean."""
    if known is None:
        return log_l1(predicted, wanted)
    return log_l1(predicted, wanted, known, count=torch.full((), known.numel(), device=known.device))  # no copy


def masked_median(values: Tensor, mask: Tensor) -> Tensor:
    """Median of each image's masked values, (B, H, W) -> (B,); 0 where nothing is masked."""
    return torch.where(mask, values, torch.nan).flatten(1).nanmedian(1).values.nan_to_num(0.0)


def align_on_road(source: Tensor, target: Tensor, source_road: Tensor, target_road: Tensor) -> Tensor:
    """The target's log depth (B, H, W), shifted so that both medians on the road agree; unshifted without a road."""
    both = source_road.flatten(1).any(1) & target_road.flatten(1).any(1)
    shift = masked_median(source, source_road) - masked_median(target, target_road)
    return target + torch.where(both, shift, 0.0)[:, None, None]


def ordered(mask: Tensor, source: Tensor, target: Tensor, margin: float) -> Tensor:
    """Of the pixels to paste (B, H, W) bool, those not farther than the target's; log inverse depths (B, H, W).

    An image of which less than a tenth of the drawn pixels would be left keeps its mask.
    """
    nearer = mask & (source >= target - margin)
    kept, drawn = nearer.flatten(1).sum(1), mask.flatten(1).sum(1)
    enough = kept >= FEWEST * drawn
    return torch.where(enough[:, None, None], nearer, mask)


def bin_of(log_inverse: Tensor) -> Tensor:
    """Number of the depth bin, 0 (farthest) to BINS - 1 (a metre or less), int64 of the same shape."""
    low, high = math.log(LEAST_INVERSE), math.log(ONE_METRE)
    return ((log_inverse - low) / (high - low) * BINS).long().clamp(0, BINS - 1)


def class_counts(label: Tensor, log_inverse: Tensor, num_classes: int, known: Tensor | None = None) -> Tensor:
    """Pixels of each depth bin and class, (BINS, C) float32, of labels (B, H, W); 255 and negative ids are ignored."""
    ids = label.long()
    valid = (ids >= 0) & (ids < num_classes)
    if known is not None:
        valid = valid & known
    cell = bin_of(log_inverse) * num_classes + torch.where(valid, ids, 0)
    counts = torch.zeros(BINS * num_classes, device=label.device)
    return counts.scatter_add(0, cell.flatten(), valid.flatten().float()).view(BINS, num_classes)


def with_prior(probabilities: Tensor, log_inverse: Tensor, counts: Tensor, exponent: float) -> Tensor:
    """Class probabilities (B, C, H, W) times (p(c | depth bin) / p(c)) ** exponent, renormalised.

    counts: (BINS, C), pixels of the source. A bin without pixels changes nothing.
    """
    total = counts.sum()
    prior = (counts.sum(0) + 1) / (total + counts.shape[1])
    in_bin = counts.sum(1, keepdim=True)
    share = (counts + prior * 100) / (in_bin + 100)  # 100 pixels of the prior: rare bins say little
    factor = (share / prior) ** exponent
    scaled = probabilities * factor[bin_of(log_inverse)].permute(0, 3, 1, 2)
    return scaled / scaled.sum(1, keepdim=True)
