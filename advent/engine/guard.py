"""The guard against numbers that are not finite. It decides on the device: no step waits for the host."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Guard:
    """Makes an iteration with a loss or gradient that is not finite leave no trace.

    `before` the step, `judge` after it, then `update`: weights, optimizer states and batch-norm statistics stay as
    they were when the verdict is bad. Gradient norms are measured on the way and reported with the losses.
    """

    def __init__(self, net: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        self.net, self.optimizers = net, optimizers
        self._statistics: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def before(self) -> None:
        """Remember the batch-norm statistics, which the forward pass is going to move."""
        self._statistics = [(buffer, buffer.clone()) for buffer in self.net.buffers()]

    @torch.no_grad()
    def judge(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The losses, and the L2 norm of every optimizer's gradients as `gradient`, `gradient_d`, `gradient_d_aux`."""
        values = dict(losses)
        for name, optimizer in self.optimizers.items():
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            if gradients:
                values[name] = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        return values

    @torch.no_grad()
    def update(self, values: Mapping[str, Tensor]) -> None:
        """Let every optimizer step if all values are finite; else undo what the forward pass moved."""
        finite = torch.isfinite(torch.stack([value.float() for value in values.values()])).all()
        skip = (~finite).float()
        for optimizer in self.optimizers.values():
            if optimizer.defaults["fused"]:
                # The fused kernels read this flag on the device and leave everything as it is when it is 1: the way
                # that PyTorch's own GradScaler has for it.
                optimizer.found_inf = skip  # type: ignore[attr-defined]
                optimizer.step()
            elif finite:  # waits for the device: only where PyTorch has no fused kernel
                optimizer.step()
        for buffer, kept in self._statistics:
            torch.where(finite, buffer, kept, out=buffer)
