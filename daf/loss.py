"""Depth losses: BerHu (reverse Huber) of the inverse depth, smooth L1 of its logarithm."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

LEAST_INVERSE, LARGEST_INVERSE = 65536 / 8001, 65536.0  # inverse depth of 80 m and of 0 m: 65536 / (centimetres + 1)
LOG_BETA = 0.1  # log_l1 is quadratic for errors below about 10 % of the depth


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
    return _mean(torch.where(error <= threshold, error, quadratic), known, count)


def greatest_error(pred: Tensor, target: Tensor, known: Tensor | None = None) -> Tensor:
    """max(e) for `berhu`'s `greatest`, without a gradient."""
    return _errors(pred.detach(), target, known).max()


def log_l1(
    pred: Tensor, target: Tensor, known: Tensor | None = None, *, count: Tensor | None = None, beta: float = LOG_BETA
) -> Tensor:
    """Smooth L1 loss of e = |log D' - log T'|: e^2 / (2 beta) below beta, else e - beta / 2.

    D' = max(D, 65536 / 8001), the inverse depth of 80 m, for prediction and target alike: farther depths count as 80 m.
    Below that the prediction gets no gradient, so the network's depth must be positive (MODEL.DEPTH_OUTPUT: log).
    Shapes, `known`, `count` and the divisor are those of `berhu`; no maximum over the batch is needed.
    """
    pred, target = (x.clamp(min=LEAST_INVERSE).log() for x in (_squeezed(pred, target), target))
    losses = functional.smooth_l1_loss(pred, target, beta=beta, reduction="none")
    return _mean(losses if known is None else losses * known, known, count)


def _squeezed(pred: Tensor, target: Tensor) -> Tensor:
    """The prediction without its channel. Raises ValueError when the sizes differ."""
    if pred.dim() == target.dim() + 1:
        pred = pred.squeeze(1)
    if pred.shape != target.shape:
        raise ValueError(f"prediction is {tuple(pred.shape)}, target {tuple(target.shape)}")
    return pred


def _mean(losses: Tensor, known: Tensor | None, count: Tensor | None) -> Tensor:
    """Mean over all pixels, or over the known ones: 0 if there is none."""
    if known is None:
        return losses.mean()
    return losses.sum() / (known.sum().clamp(min=1) if count is None else count.to(losses.dtype))


def _errors(pred: Tensor, target: Tensor, known: Tensor | None) -> Tensor:
    error = (_squeezed(pred, target) - target).abs()
    return error if known is None else error * known
