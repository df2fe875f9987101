"""Batch norms of a network: finding them, re-estimating, preserving and freezing their running statistics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from advent.errors import ConfigError
from advent.model.precision import autocast

BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)  # timm's BatchNormAct2d is a BatchNorm2d


def batch_norms(net: nn.Module) -> list[nn.BatchNorm2d | nn.SyncBatchNorm]:
    """The network's batch norms with running statistics; it may have none."""
    return [part for part in net.modules() if isinstance(part, BATCH_NORMS) and part.track_running_stats]


def required_batch_norms(net: nn.Module) -> list[nn.BatchNorm2d | nn.SyncBatchNorm]:
    """`batch_norms`. Raises ConfigError if there are none."""
    norms = batch_norms(net)
    if not norms:
        raise ConfigError(
            "the network has no batch norms, so it has no statistics to re-estimate; keep TEST.BN_STATISTICS and "
            "TRAIN.RESTORE_BN at checkpoint"
        )
    return norms


@torch.no_grad()
def reestimate(net: nn.Module, batches: Iterable[Tensor], dtype: torch.dtype | None = None) -> None:
    """Replace the running statistics by averages over `batches`: of the means, and of the unbiased variances.

    batches: (B, 3, H, W) normalised images on the network's device; each batch has the same weight. `dtype`: autocast
    type. Batch norms normalise by their batch during the pass; every other module is in eval mode (no dropout).
    Weights, modes and momenta are as before. Raises ConfigError for a network without batch norms, ValueError without
    batches.
    """
    norms = required_batch_norms(net)
    modes = [(part, part.training) for part in net.modules()]
    momenta = [norm.momentum for norm in norms]
    count = 0
    try:
        net.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # PyTorch's cumulative average
            norm.training = True  # not norm.train(): timm's norms contain dropout
        for images in batches:
            with autocast(images.device, dtype):
                net(images)
            count += 1
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for part, mode in modes:
            part.training = mode
    if count == 0:
        raise ValueError("no images to estimate batch-norm statistics on")


@contextmanager
def preserved_statistics(net: nn.Module) -> Iterator[None]:
    """On exit the batch norms have the running statistics and counters that they had on entry."""
    norms = batch_norms(net)
    saved = [{name: buffer.clone() for name, buffer in norm.named_buffers(recurse=False)} for norm in norms]
    try:
        yield
    finally:
        with torch.no_grad():
            for norm, values in zip(norms, saved, strict=True):
                for name, buffer in norm.named_buffers(recurse=False):
                    buffer.copy_(values[name])


@contextmanager
def frozen_statistics(net: nn.Module) -> Iterator[None]:
    """Inside the block a pass in train mode moves no running statistics and counts no batch.

    Batch statistics are used as before. Restoring the values afterwards would not do: the backward pass needs the
    buffers unchanged.
    """
    norms = batch_norms(net)
    saved = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, (_, count) in zip(norms, saved, strict=True):
        # The counter is replaced by a copy: SyncBatchNorm requires one.
        norm.momentum, norm.num_batches_tracked = 0.0, None if count is None else count.clone()
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, saved, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
