"""Activation checkpointing: recomputes the encoder's activations in the backward pass to save memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from advent.errors import ConfigError
from advent.model.batch_norm import frozen_statistics
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
    return nullcontext(), frozen_statistics(nn.ModuleList(run))  # else they would move twice
