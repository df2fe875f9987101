"""Guard against non-finite losses and gradients. It decides on the device, so no step waits for the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from advent.model.precision import LossScale


class Guard:
    """Skips an iteration whose loss or gradient is not finite.

    Call `snapshot_buffers` before the forward pass, `unscale_and_check` after the backward passes, then
    `step_if_finite`. A skipped iteration leaves weights, optimizer states and batch-norm statistics unchanged. Gradient
    norms are computed for the check and reported with the losses.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        scale: LossScale | None = None,
    ) -> None:
        self.networks, self.optimizers, self.scale = networks, optimizers, scale
        self._statistics: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def snapshot_buffers(self) -> None:
        """Save the batch-norm statistics and the method's own, which the forward passes update."""
        self._statistics = [(buffer, buffer.clone()) for net in self.networks for buffer in net.buffers()]

    @torch.no_grad()
    def unscale_and_check(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The losses, and the L2 norm of every optimizer's gradients as `gradient`, `gradient_d`, `gradient_d_aux`.

        With loss scaling the result also has `loss_scale`, the factor, and `overflow`: 1 where gradients are not finite
        although the losses are. An overflow is how the factor adapts, so the norms then count as 0, as long as the
        factor is above 1.
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
        """Step every optimizer if all values are finite without overflow; else restore the batch-norm statistics."""
        good = _all_finite(values)
        if "overflow" in values:
            good = good & (values["overflow"] == 0)
        skip = (~good).float()
        for optimizer in self.optimizers.values():
            if optimizer.defaults["fused"]:
                # The fused kernels read this flag on the device and change nothing when it is 1, as PyTorch's
                # GradScaler does.
                optimizer.found_inf = skip  # type: ignore[attr-defined]
                optimizer.step()
            elif good:  # a device sync, only where PyTorch has no fused kernel
                optimizer.step()
        for buffer, kept in self._statistics:
            torch.where(good, buffer, kept, out=buffer)
        if self.scale is not None:
            self.scale.update()


def _all_finite(values: Mapping[str, Tensor]) -> Tensor:
    return torch.isfinite(torch.stack([value.float() for value in values.values()])).all()
