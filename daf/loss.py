"""The depth loss."""

from __future__ import annotations

import torch
from torch import Tensor


def berhu(pred: Tensor, target: Tensor, known: Tensor | None = None) -> Tensor:
    """Reverse Huber loss of DADA: e where e <= c, else (e^2 + c^2) / (2c), e = |pred - target|, c = 0.2 max(e).

    pred: (B, 1, H, W) or (B, H, W); target: (B, H, W), same size, same unit. Mean over all pixels, with `known`
    (B, H, W) bool over those that have a target (0 if none has). c is a constant for the gradient; a perfect prediction
    (c = 0) gives 0. Raises ValueError when the sizes differ.
    """
    if pred.dim() == target.dim() + 1:
        pred = pred.squeeze(1)
    if pred.shape != target.shape:
        raise ValueError(f"prediction is {tuple(pred.shape)}, target {tuple(target.shape)}")
    error = (pred - target).abs()
    if known is not None:
        error = error * known
    threshold = 0.2 * error.detach().max()
    # With c = 0 every e is 0 and takes the linear branch; the clamp keeps the other branch's 0 / 0 out of the gradient.
    quadratic = (error**2 + threshold**2) / (2 * threshold.clamp(min=torch.finfo(error.dtype).tiny))
    losses = torch.where(error <= threshold, error, quadratic)
    return losses.mean() if known is None else losses.sum() / known.sum().clamp(min=1)
