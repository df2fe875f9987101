"""Activation checkpointing: recomputes the encoder's activations in the backward pass to save memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from advent.errors import ConfigError
from advent.model.deeplabv2 import SegmentationNetwork


def recompute_activations(net: SegmentationNetwork) -> None:
    """In training, keep only the inputs of some encoder blocks and recompute the other activations.

    Outputs and gradients stay the same, except for the order of addition of the gradients of a map that two parts of
    the network read. Raises ConfigError for an encoder without known stages.
    """
    stages = net.blueprint.stages(net)
    if not stages:
        raise ConfigError("TRAIN.CHECKPOINT_ACTIVATIONS: works with MODEL.ENCODER: resnet101 only; set it to false")
    for stage in stages:
        # A run of k blocks stores one input and, during recomputation, k blocks' activations (about three inputs each).
        # Total memory is minimal at k = sqrt(n / 3).
        length = max(1, round(math.sqrt(len(stage) / 3)))
        blocks = list(stage)
        runs = [blocks[first : first + length] for first in range(0, len(blocks), length)]
        stage.forward = partial(_recomputed, stage, runs)  # type: ignore[method-assign]


def _recomputed(stage: nn.Sequential, runs: Sequence[Sequence[nn.Module]], x: Tensor) -> Tensor:
    needs_grad = stage.training and torch.is_grad_enabled()
    for run in runs:
        if not needs_grad:
            x = _through(run, x)
            continue
        # The blocks draw no random numbers.
        x = checkpoint(
            _through, run, x, use_reentrant=False, preserve_rng_state=False, context_fn=partial(_contexts, run)
        )
    return x


def _through(run: Sequence[nn.Module], x: Tensor) -> Tensor:
    for block in run:
        x = block(x)
    return x


def _contexts(run: Sequence[nn.Module]) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _frozen_running_statistics(run)


@contextmanager
def _frozen_running_statistics(run: Sequence[nn.Module]) -> Iterator[None]:
    """Prevent a second update of the batch norms' running statistics; batch statistics are used as before."""
    kinds = (nn.BatchNorm2d, nn.SyncBatchNorm)
    norms = [part for block in run for part in block.modules() if isinstance(part, kinds)]
    saved = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, (_, count) in zip(norms, saved, strict=True):
        # The counter is replaced by a copy: SyncBatchNorm requires one.
        norm.momentum, norm.num_batches_tracked = 0.0, None if count is None else count.clone()
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, saved, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
