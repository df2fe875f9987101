"""Optimizers of network and discriminators, with the repeated backbone update of the authors' code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from advent.config.schema import TrainConfig
from advent.errors import ConfigError
from advent.model.deeplabv2 import SegmentationNetwork

# Devices whose fused optimizers respect `found_inf`, by which the guard skips a step. Apple's fused kernels do not.
FUSED = ("cpu", "cuda")
ADAMW_BETAS = (0.9, 0.999)
# Parts of the names of timm's matrices that are not decayed: tokens, positions, scales of Swin's attention.
UNDECAYED = frozenset(
    ("pos_embed", "cls_token", "reg_token", "mask_token", "relative_position_bias_table", "logit_scale", "cpb_mlp")
)


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


def network_optimizer(net: SegmentationNetwork, train: TrainConfig) -> torch.optim.Optimizer:
    """Optimizer of backbone (group 0) and heads (group 1, HEAD_RATE times the rate); `train` is the TRAIN section.

    Further groups hold backbone parameters with other update counts or rates, and with AdamW all parameters without
    weight decay. Raises ConfigError when TRAIN.BACKBONE_UPDATES is `release` and the encoder or the optimizer does not
    support repeated updates, and when TRAIN.LAYER_DECAY needs blocks that the encoder does not name.
    """
    repeated, adamw = train.BACKBONE_UPDATES == "release", train.OPTIMIZER == "adamw"
    if repeated and adamw:
        raise ConfigError(
            "TRAIN.BACKBONE_UPDATES: release repeats updates of SGD, TRAIN.OPTIMIZER is adamw; set it to once"
        )
    if repeated and not net.blueprint.repeats_updates:
        raise ConfigError(
            "TRAIN.BACKBONE_UPDATES: release is defined only for the ResNet of the authors' code; set it to once"
        )
    scales = layer_scales(net, train.LAYER_DECAY)
    by_kind: dict[tuple[float, int, bool], list[nn.Parameter]] = {}
    for name, parameter in net.backbone_parameters():
        kind = (scales[name], update_multiplicity(name) if repeated else 1, not adamw or _decays(name, parameter))
        by_kind.setdefault(kind, []).append(parameter)
    in_order = sorted(by_kind.items(), key=lambda item: (-item[0][0], item[0][1], not item[0][2]))
    backbone = [_group(parameters, *kind) for kind, parameters in in_order]
    heads = net.head_parameters()
    decayed = [p for name, p in heads if not adamw or _decays(name, p)]
    others = [p for name, p in heads if adamw and not _decays(name, p)]
    head_groups = [_group(decayed, train.HEAD_RATE, 1, True)]
    if others:
        head_groups.append(_group(others, train.HEAD_RATE, 1, False))
    groups = [*backbone[:1], *head_groups, *backbone[1:]]
    fused = has_fused_kernels(decayed)
    if adamw:
        decay = train.WEIGHT_DECAY
        return torch.optim.AdamW(groups, lr=train.LEARNING_RATE, betas=ADAMW_BETAS, weight_decay=decay, fused=fused)
    return RepeatedSGD(
        groups, lr=train.LEARNING_RATE, momentum=train.MOMENTUM, weight_decay=train.WEIGHT_DECAY, fused=fused
    )


def layer_scales(net: SegmentationNetwork, decay: float) -> dict[str, float]:
    """Learning-rate factor of each backbone parameter by name: decay ^ (n - i) for block i of n, counted from 0.

    Parameters before the first block (stem, embeddings) have decay ^ (n + 1), those after the last 1. Parameters
    between two blocks (a stage's downsampling) have the factor of the block that follows them. Raises ConfigError for
    an encoder that does not name its blocks, unless decay is 1.
    """
    names = [name for name, _ in net.backbone_parameters()]
    if decay == 1:
        return dict.fromkeys(names, 1.0)
    prefixes = net.blueprint.block_prefixes
    if not prefixes:
        raise ConfigError(
            f"TRAIN.LAYER_DECAY: {decay:g}: this MODEL.ENCODER has no blocks in order, as ViTs do; set it to 1"
        )
    scales, following = {}, 0
    for name in names:
        block = next((index for index, prefix in enumerate(prefixes) if name.startswith(prefix)), None)
        following = following if block is None else block + 1
        index = block if block is not None else following or -1
        scales[name] = decay ** (len(prefixes) - index)
    return scales


def _decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether AdamW decays a parameter: not norms, biases and other vectors, nor embeddings of position and tables."""
    return parameter.ndim > 1 and not UNDECAYED.intersection(name.split("."))


def _group(parameters: list[nn.Parameter], scale: float, repeats: int, decays: bool) -> dict[str, Any]:
    group = {"params": parameters, "lr_scale": scale, "repeats": repeats}
    return group if decays else {**group, "weight_decay": 0.0}


def discriminator_optimizer(discriminator: nn.Module, train: TrainConfig) -> torch.optim.Adam:
    """ADVENT's Adam: betas (0.9, 0.99), no weight decay."""
    parameters = list(discriminator.parameters())
    fused = has_fused_kernels(parameters)
    return torch.optim.Adam(parameters, lr=train.LEARNING_RATE_D, betas=(0.9, 0.99), fused=fused)


def has_fused_kernels(parameters: Sequence[Tensor]) -> bool:
    """Whether the device of these parameters has fused optimizers that can skip a step."""
    return parameters[0].device.type in FUSED
