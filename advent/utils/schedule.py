"""Poly learning-rate schedule, and linear warm-up."""

from __future__ import annotations

import torch

HEAD_RATE = 10.0  # learning-rate factor of the heads over the backbone: default of TRAIN.HEAD_RATE


def poly_rate(base_lr: float, iter: int, max_iter: int, power: float) -> float:
    """base_lr * (1 - iter / max_iter) ** power; 0 from iteration max_iter on."""
    return base_lr * max(0.0, 1 - iter / max_iter) ** power


def warmup_factor(iter: int, warmup: int) -> float:
    """(iter + 1) / warmup in the first `warmup` iterations, then 1."""
    return min(1.0, (iter + 1) / warmup) if warmup else 1.0


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> float:
    """Set each group's lr to `rate` times its `lr_scale`. Without scales, group 0 gets the rate, others ten times."""
    for index, group in enumerate(optimizer.param_groups):
        group["lr"] = rate * group.get("lr_scale", HEAD_RATE if index else 1.0)
    return rate
