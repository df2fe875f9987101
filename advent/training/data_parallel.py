"""One step on a batch that lies in parts: micro-batches (TRAIN.ACCUMULATE), processes, or both.

What is left behind, gradients, losses and batch-norm statistics, is the mean over all parts, the same on every process.
Parts are of one size, so means over images or pixels need nothing more; what is divided by a count of its own (valid
labels, known depths) or depends on a maximum (BerHu's threshold) takes it from the whole batch. So N parts give the
gradients of one batch N times as large, but for batch norm, which sees a part at a time.

Not DistributedDataParallel: it would send gradients during one backward pass, and a step has several (both networks',
with one forward pass of the discriminator serving two of them), so all of them would run under its `no_sync`, where it
adds nothing but hooks; one message of everything follows either way (docs/distributed.md, and a test compares them).
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
    net: nn.Module,
    optimizers: Mapping[str, torch.optim.Optimizer],
    sources: Sequence[Batch],
    targets: Sequence[Batch | None],
) -> Losses:
    """The method's step on each of this process's micro-batches, then the means over all of every process's.

    Every process must call it with equally many micro-batches of one size.
    """
    count = len(sources) * distributed.world_size()
    before = [buffer.clone() for buffer in net.buffers()]
    sources = _global_maxima(context, _with_global_counts(sources, count))
    statistics = [buffer for buffer in net.buffers() if buffer.is_floating_point()]
    old = [buffer for buffer in before if buffer.is_floating_point()]
    moved = [torch.zeros_like(buffer) for buffer in old]
    losses: Losses = {}
    for source, target in zip(sources, targets, strict=True):
        _restore_buffers(net, before)  # every part moves the statistics from where they were, as every process does
        for name, loss in context.method.step(context, source, target).items():
            losses[name] = losses[name] + loss if name in losses else loss
        for total, buffer, kept in zip(moved, statistics, old, strict=True):
            total += buffer.detach() - kept
    groups = (group for optimizer in optimizers.values() for group in optimizer.param_groups)
    learnt = [p for group in groups for p in group["params"] if p.grad is not None]
    values = [*losses.values(), *moved]
    found = distributed.all_reduce_mean([*[p.grad for p in learnt], *values], [*learnt, *values], count)
    for parameter, gradient in zip(learnt, found, strict=False):
        parameter.grad = gradient
    means = found[len(learnt) :]
    with torch.no_grad():
        for buffer, kept, change in zip(statistics, old, means[len(losses) :], strict=True):
            buffer.copy_(kept + change)
    return dict(zip(losses, means, strict=False))


def _with_global_counts(sources: Sequence[Batch], count: int) -> list[Batch]:
    """The batches with `label_count` and `depth_count`: pixels of the whole batch that count, per part.

    A part's sum divided by that, averaged over the parts, is the whole batch's mean.
    """
    masks = {"label_count": ("label", valid_pixels), "depth_count": ("depth_known", Tensor.bool)}
    names = [name for name, (key, _) in masks.items() if key in sources[0]]
    if not names:
        return list(sources)
    found = [torch.stack([masks[name][1](one[masks[name][0]]).sum() for name in names]) for one in sources]
    totals = distributed.all_reduce_sum(torch.stack(found).sum(0)).clamp(min=1)
    exact = totals.float() if totals.device.type == "mps" else totals.double()
    counts = dict(zip(names, exact / count, strict=True))
    return [{**one, **counts} for one in sources]


@torch.no_grad()
def _global_maxima(context: StepContext, sources: Sequence[Batch]) -> Sequence[Batch]:
    """With several micro-batches, what the losses need a maximum of is found by a forward pass before all others.

    With one, the loss asks the other processes on its way (steps.py, Supervision).
    """
    supervised = context.supervised
    if len(sources) == 1 or not isinstance(supervised, GlobalMaxLoss) or not supervised.needs_global_max(sources[0]):
        return sources
    found = [supervised.maximum(context.predict(one["image"]), one) for one in sources]
    greatest = distributed.all_reduce_max(torch.stack(found).max())
    return [{**one, supervised.global_key: greatest} for one in sources]


@torch.no_grad()
def _restore_buffers(net: nn.Module, before: Sequence[Tensor]) -> None:
    for buffer, kept in zip(net.buffers(), before, strict=True):
        buffer.copy_(kept)
