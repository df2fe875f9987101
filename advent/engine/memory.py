"""Less memory for more time: activations of the encoder's blocks are computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from advent.errors import ConfigError
from advent.model.deeplabv2 import SegmentationNetwork


def recompute_activations(net: SegmentationNetwork) -> None:
    """Let every block of the encoder keep only its input while training; outputs and gradients stay the same.

    Raises ConfigError for an encoder that names no blocks.
    """
    blocks = net.blueprint.blocks(net)
    if not blocks:
        raise ConfigError("TRAIN.CHECKPOINT_ACTIVATIONS: works with MODEL.ENCODER: resnet101 only; set it to false")
    for block in blocks:
        block.forward = partial(_recomputed, block, block.forward)


def _recomputed(block: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if not (block.training and torch.is_grad_enabled()):
        return forward(x)
    # The blocks draw no random numbers.
    return checkpoint(forward, x, use_reentrant=False, preserve_rng_state=False, context_fn=partial(_contexts, block))  # type: ignore[no-any-return]


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _statistics_stand_still(block)


@contextmanager
def _statistics_stand_still(block: nn.Module) -> Iterator[None]:
    """Batch norms use the batch's statistics as before, but their running ones do not move a second time."""
    norms = [part for part in block.modules() if isinstance(part, nn.BatchNorm2d)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
