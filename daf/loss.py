"""BerHu (reverse Huber) depth loss."""

from __future__ import annotations

import torch
from torch import Tensor


def berhu(
    pred: Tensor,
    target: Tensor,
    known: Tensor | None = None,
    *,
    count: Tensor | None = None,
    greatest: Tensor | None = None,
) -> Tensor:
    """Reverse Huber loss of DADA: e where e <= c, else (e^2 + c^2) / (2c), e = |pred - target|, c = 0.2 max(e).

    pred: (B, 1, H, W) or (B, H, W); target: (B, H, W), same size, same unit. Returns the mean over all pixels, or
    over the pixels where `known` (B, H, W) bool is true (0 if none is). c is a constant for the gradient; a perfect
    prediction (c = 0) gives 0. For one micro-batch of a larger batch: `count` replaces the number of known pixels as
    the divisor, and `greatest` is max(e) over the larger batch. Raises ValueError when the sizes differ.
    """
    error = _errors(pred, target, known)
    threshold = 0.2 * (error.detach().max() if greatest is None else greatest)
    # With c = 0 every e is 0 and takes the linear branch; the clamp keeps the other branch's 0 / 0 out of the gradient.
    quadratic = (error**2 + threshold**2) / (2 * threshold.clamp(min=torch.finfo(error.dtype).tiny))
    losses = torch.where(error <= threshold, error, quadratic)
    if known is None:
        return losses.mean()
    return losses.sum() / (known.sum().clamp(min=1) if count is None else count.to(losses.dtype))


def greatest_error(pred: Tensor, target: Tensor, known: Tensor | None = None) -> Tensor:
    """max(e) for `berhu`'s `greatest`, without a gradient."""
    return _errors(pred.detach(), target, known).max()


def _errors(pred: Tensor, target: Tensor, known: Tensor | None) -> Tensor:
    if pred.dim() == target.dim() + 1:
        pred = pred.squeeze(1)
    if pred.shape != target.shape:
        raise ValueError(f"prediction is {tuple(pred.shape)}, target {tuple(target.shape)}")
    error = (pred - target).abs()
    return error if known is None else error * known
