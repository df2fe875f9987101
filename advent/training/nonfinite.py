"""The guard against numbers that are not finite. It decides on the device: no step waits for the host."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from advent.model.precision import LossScale


class Guard:
    """Makes an iteration with a loss or gradient that is not finite leave no trace.

    `snapshot_buffers` the step, `unscale_and_check` after it, then `step_if_finite`: weights, optimizer states and batch-norm statistics stay as
    they were when the verdict is bad. Gradient norms are measured on the way and reported with the losses.
    """

    def __init__(
        self, net: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer], scale: LossScale | None = None
    ) -> None:
        self.net, self.optimizers, self.scale = net, optimizers, scale
        self._statistics: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def snapshot_buffers(self) -> None:
        """Remember the batch-norm statistics, which the forward pass is going to move."""
        self._statistics = [(buffer, buffer.clone()) for buffer in self.net.buffers()]

    @torch.no_grad()
    def unscale_and_check(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The losses, and the L2 norm of every optimizer's gradients as `gradient`, `gradient_d`, `gradient_d_aux`.

        With loss scaling also its factor, and `overflow`: 1 where gradients are not finite although the losses are.
        That is how the factor finds its size, so their norms then count as 0, until the factor is down to 1.
        """
        norms = {}
        for name, optimizer in self.optimizers.items():
            if self.scale is not None:
                self.scale.unscale(optimizer)
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            if gradients:
                norms[name] = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
        if self.scale is None or not self.scale.used:
            return {**losses, **norms}
        factor = self.scale.factor()
        overflow = _all_finite(losses) & ~_all_finite(norms) & (factor > 1)
        norms = {name: norm.masked_fill(overflow, 0) for name, norm in norms.items()}
        return {**losses, **norms, "loss_scale": factor.clone(), "overflow": overflow.float()}

    @torch.no_grad()
    def step_if_finite(self, values: Mapping[str, Tensor]) -> None:
        """Let every optimizer step if all is finite and nothing overflowed; else undo what the forward pass moved."""
        good = _all_finite(values)
        if "overflow" in values:
            good = good & (values["overflow"] == 0)
        skip = (~good).float()
        for optimizer in self.optimizers.values():
            if optimizer.defaults["fused"]:
                # The fused kernels read this flag on the device and leave everything as it is when it is 1: the way
                # that PyTorch's own GradScaler has for it.
                optimizer.found_inf = skip  # type: ignore[attr-defined]
                optimizer.step()
            elif good:  # waits for the device: only where PyTorch has no fused kernel
                optimizer.step()
        for buffer, kept in self._statistics:
            torch.where(good, buffer, kept, out=buffer)
        if self.scale is not None:
            self.scale.update()


def _all_finite(values: Mapping[str, Tensor]) -> Tensor:
    return torch.isfinite(torch.stack([value.float() for value in values.values()])).all()
