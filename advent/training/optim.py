"""Optimizers of network and discriminators, with the repeated backbone update of the authors' code."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from advent.config.schema import TrainConfig
from advent.errors import ConfigError
from advent.model.deeplabv2 import SegmentationNetwork

# Devices whose fused optimizers respect `found_inf`, by which the guard skips a step. Apple's fused kernels do not.
FUSED = ("cpu", "cuda")


class RepeatedSGD(torch.optim.SGD):
    """SGD that applies a group's update `repeats` times in one step, from one gradient.

    In all code of the ADVENT family the optimizer lists each backbone parameter several times: the generator that
    collects them yields each weight once per enclosing module. The SGD of their PyTorch (1.7) then updated once per
    copy, and each copy saw the momentum buffer and the weight that the previous copy left. This class gives the same
    numbers without duplicates, which current PyTorch refuses.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every group `group["repeats"]` times, one pass after another."""
        loss = closure() if closure is not None else None
        groups = self.param_groups
        self._start_momentum()
        try:
            for repeat in range(max(group["repeats"] for group in groups)):
                self.param_groups = [group for group in groups if group["repeats"] > repeat]
                super().step()
        finally:
            self.param_groups = groups
        return loss

    def _start_momentum(self) -> None:
        """Start momentum buffers at zero: the same first step, and a defined buffer if that step is skipped."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if group["momentum"] and parameter.grad is not None and not self.state[parameter]:
                    self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def update_multiplicity(name: str) -> int:
    """How often the authors' code updates a ResNet parameter per iteration: once per enclosing module.

    `conv1.weight` 1, `layer1.0.conv1.weight` 3, `layer1.0.downsample.0.weight` 4: the number of dots in the name.
    """
    return name.count(".")


def network_optimizer(net: SegmentationNetwork, train: TrainConfig) -> RepeatedSGD:
    """SGD over backbone (group 0) and heads (group 1, HEAD_RATE times the rate); `train` is the TRAIN section.

    Further groups hold backbone parameters with other update counts. Raises ConfigError when
    TRAIN.BACKBONE_UPDATES is `release` and the encoder does not support repeated updates.
    """
    repeated = train.BACKBONE_UPDATES == "release"
    if repeated and not net.blueprint.repeats_updates:
        raise ConfigError(
            "TRAIN.BACKBONE_UPDATES: release is defined only for the ResNet of the authors' code; set it to once"
        )
    by_repeats: dict[int, list[nn.Parameter]] = {}
    for name, parameter in net.backbone_parameters():
        by_repeats.setdefault(update_multiplicity(name) if repeated else 1, []).append(parameter)
    backbone = [{"params": p, "lr_scale": 1.0, "repeats": n} for n, p in sorted(by_repeats.items())]
    heads = [p for _, p in net.head_parameters()]
    groups = [*backbone[:1], {"params": heads, "lr_scale": train.HEAD_RATE, "repeats": 1}, *backbone[1:]]
    return RepeatedSGD(
        groups,
        lr=train.LEARNING_RATE,
        momentum=train.MOMENTUM,
        weight_decay=train.WEIGHT_DECAY,
        fused=has_fused_kernels(heads),
    )


def discriminator_optimizer(discriminator: nn.Module, train: TrainConfig) -> torch.optim.Adam:
    """ADVENT's Adam: betas (0.9, 0.99), no weight decay."""
    parameters = list(discriminator.parameters())
    fused = has_fused_kernels(parameters)
    return torch.optim.Adam(parameters, lr=train.LEARNING_RATE_D, betas=(0.9, 0.99), fused=fused)


def has_fused_kernels(parameters: Sequence[Tensor]) -> bool:
    """Whether the device of these parameters has fused optimizers that can skip a step."""
    return parameters[0].device.type in FUSED
