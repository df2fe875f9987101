"""One optimizer step over several micro-batches (TRAIN.ACCUMULATE) and processes.

Gradients, losses and batch-norm statistics are averaged over all parts (micro-batches of all processes). Every process
gets the same values. All parts have one size, so a mean over images or pixels needs no correction. A loss that divides
by a count (valid labels, known depths) or depends on a maximum (BerHu's threshold) takes it from the whole batch. N
parts therefore give the gradients of one batch N times as large, except for batch norm, which normalises each part.

DistributedDataParallel is not used. It sends gradients during one backward pass, but a step has several, for both
networks, and two of these passes share one forward pass of the discriminator. All of them would run under its
`no_sync`, where it only adds hooks. Either way one message with all gradients follows (docs/distributed.md; a test
compares the two).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from advent.methods.steps import Batch, GlobalMaxLoss, Losses, StepContext
from advent.runtime import distributed
from advent.utils.loss import valid_pixels


def accumulated_step(
    context: StepContext,
    networks: Sequence[nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    sources: Sequence[Batch],
    targets: Sequence[Batch | None],
) -> Losses:
    """Run the method's step on this process's micro-batches, then average over the micro-batches of all processes.

    Every process must pass the same number of micro-batches, all of one size. Returns the averaged losses; leaves the
    averaged gradients on the parameters, and the averaged changes of the buffers on `networks`.
    """
    count = len(sources) * distributed.world_size()
    buffers = [buffer for net in networks for buffer in net.buffers()]
    before = [buffer.clone() for buffer in buffers]
    sources = _global_maxima(context, _with_global_counts(sources, count))
    statistics = [buffer for buffer in buffers if buffer.is_floating_point()]
    old = [buffer for buffer in before if buffer.is_floating_point()]
    changes = [torch.zeros_like(buffer) for buffer in old]
    losses: Losses = {}
    for source, target in zip(sources, targets, strict=True):
        _restore(buffers, before)  # every part updates the same initial statistics, as every process does
        for name, loss in context.method.step(context, source, target).items():
            losses[name] = losses[name] + loss if name in losses else loss
        for total, buffer, kept in zip(changes, statistics, old, strict=True):
            total += buffer.detach() - kept
    groups = (group for optimizer in optimizers.values() for group in optimizer.param_groups)
    parameters = [p for group in groups for p in group["params"] if p.grad is not None]
    values = [*losses.values(), *changes]
    reduced = distributed.all_reduce_mean([*[p.grad for p in parameters], *values], [*parameters, *values], count)
    for parameter, gradient in zip(parameters, reduced, strict=False):
        parameter.grad = gradient
    means = reduced[len(parameters) :]
    with torch.no_grad():
        for buffer, kept, change in zip(statistics, old, means[len(losses) :], strict=True):
            buffer.copy_(kept + change)
    return dict(zip(losses, means, strict=False))


def _with_global_counts(sources: Sequence[Batch], count: int) -> list[Batch]:
    """Add `label_count` and `depth_count`: valid pixels of the whole batch divided by the number of parts (`count`).

    A part's sum divided by that count, averaged over the parts, is the mean of the whole batch.
    """
    masks = {"label_count": ("label", valid_pixels), "depth_count": ("depth_known", Tensor.bool)}
    names = [name for name, (key, _) in masks.items() if key in sources[0]]
    if not names:
        return list(sources)
    local = [torch.stack([masks[name][1](batch[masks[name][0]]).sum() for name in names]) for batch in sources]
    totals = distributed.all_reduce_sum(torch.stack(local).sum(0)).clamp(min=1)
    exact = totals.float() if totals.device.type == "mps" else totals.double()
    counts = dict(zip(names, exact / count, strict=True))
    return [{**batch, **counts} for batch in sources]


@torch.no_grad()
def _global_maxima(context: StepContext, sources: Sequence[Batch]) -> Sequence[Batch]:
    """Add the maximum that the losses need over all micro-batches, from an extra forward pass before the step.

    With one micro-batch the loss itself takes the maximum over processes (methods/steps.py, GlobalMaxLoss).
    """
    supervised = context.supervised
    if len(sources) == 1 or not isinstance(supervised, GlobalMaxLoss) or not supervised.needs_global_max(sources[0]):
        return sources
    maxima = [supervised.maximum(context.predict(batch["image"]), batch) for batch in sources]
    greatest = distributed.all_reduce_max(torch.stack(maxima).max())
    return [{**batch, supervised.global_key: greatest} for batch in sources]


@torch.no_grad()
def _restore(buffers: Sequence[Tensor], before: Sequence[Tensor]) -> None:
    for buffer, kept in zip(buffers, before, strict=True):
        buffer.copy_(kept)
