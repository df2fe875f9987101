"""Less memory for more time: activations of the encoder's blocks are computed again in the backward pass."""

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
    """Let the encoder keep only the inputs of some blocks while training, and compute the rest again.

    Outputs and gradients stay the same, but for the order in which the gradients of a map that two parts of the
    network read are added. Raises ConfigError for an encoder that names no stages.
    """
    stages = net.blueprint.stages(net)
    if not stages:
        raise ConfigError("TRAIN.CHECKPOINT_ACTIVATIONS: works with MODEL.ENCODER: resnet101 only; set it to false")
    for stage in stages:
        # A run of k blocks keeps one input and, while it is computed again, k blocks' activations, about three times
        # an input each: least memory in all at k = sqrt(n / 3).
        length = max(1, round(math.sqrt(len(stage) / 3)))
        blocks = list(stage)
        runs = [blocks[first : first + length] for first in range(0, len(blocks), length)]
        stage.forward = partial(_recomputed, stage, runs)  # type: ignore[method-assign]


def _recomputed(stage: nn.Sequential, runs: Sequence[Sequence[nn.Module]], x: Tensor) -> Tensor:
    keeps = stage.training and torch.is_grad_enabled()
    for run in runs:
        if not keeps:
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
    return nullcontext(), _statistics_stand_still(run)


@contextmanager
def _statistics_stand_still(run: Sequence[nn.Module]) -> Iterator[None]:
    """Batch norms use the batch's statistics as before, but their running ones do not move a second time."""
    kinds = (nn.BatchNorm2d, nn.SyncBatchNorm)
    norms = [part for block in run for part in block.modules() if isinstance(part, kinds)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, (_, count) in zip(norms, kept, strict=True):
        # A copy counts instead: SyncBatchNorm refuses to have no counter.
        norm.momentum, norm.num_batches_tracked = 0.0, None if count is None else count.clone()
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
