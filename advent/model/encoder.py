"""Encoders: four feature maps for the heads, from the ResNet of the authors' code or from any timm backbone.

An encoder is not an nn.Module: it adds its modules to the network itself, so that the ResNet keeps the flat parameter
names of the published checkpoints (`conv1.weight`, `layer1.0.conv1.weight`, ...).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from advent.errors import ConfigError

Maps = tuple[Tensor, Tensor, Tensor, Tensor]


class Encoder(Protocol):
    """Interface of an encoder (backbone) to the network."""

    channels: tuple[int, int, int, int]  # of the maps x1..x4
    names: tuple[str, ...]  # children it adds: the backbone's parameters, with the base learning rate
    repeats_updates: bool  # whether it supports the repeated backbone update of the authors' code
    block_prefixes: tuple[str, ...]  # of the parameters of each block in order (TRAIN.LAYER_DECAY); () if unknown

    def install(self, net: nn.Module) -> None:
        """Add the backbone's modules to `net` as children called `names`."""

    def features(self, net: nn.Module, images: Tensor) -> Maps:
        """(B, 3, H, W) BGR 0..255 minus the mean -> x1..x4, each (B, channels[i], h_i, w_i)."""

    def stages(self, net: nn.Module) -> list[nn.Sequential]:
        """Stages (sequences of blocks) for activation checkpointing; empty if unknown."""


class Bottleneck(nn.Module):
    """Residual block with its stride in the first 1x1 convolution (DeepLabv2, ADVENT) or in the 3x3 (torchvision)."""

    expansion = 4

    def __init__(self, inplanes: int, planes: int, stride: int, dilation: int, project: bool, in_conv1: bool) -> None:
        super().__init__()
        width = planes * self.expansion
        first, second = (stride, 1) if in_conv1 else (1, stride)
        self.conv1 = nn.Conv2d(inplanes, planes, 1, stride=first, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=second, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inplanes, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))
            if project
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inplanes, H, W) -> (B, 4 * planes, H / stride, W / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class ResNetEncoder:
    """Dilated ResNet of the authors' code, output stride 8 (blocks 3, 4, 23, 3 and stem width 64 = ResNet-101)."""

    names: tuple[str, ...] = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
    repeats_updates = True
    block_prefixes: tuple[str, ...] = ()

    def __init__(
        self, layers: Sequence[int] = (3, 4, 23, 3), width: int = 64, affine: str = "auto", stride_in: str = "conv1"
    ) -> None:
        if len(layers) != 4 or min(layers) < 1:
            raise ConfigError(f"MODEL.LAYERS: {list(layers)} must be four numbers of blocks, each at least 1")
        if width < 4 or width % 4:
            raise ConfigError(f"MODEL.WIDTH: {width} must be a positive multiple of 4 (64 in the authors' code)")
        self.layers, self.width, self.stride_in = tuple(layers), width, stride_in
        self.trainable_affine = affine == "trainable"
        self.channels = (4 * width, 8 * width, 16 * width, 32 * width)

    def install(self, net: nn.Module) -> None:
        """Add the stem and four stages to `net` as direct children."""
        net.conv1 = nn.Conv2d(3, self.width, 7, stride=2, padding=3, bias=False)
        net.bn1 = nn.BatchNorm2d(self.width)
        net.relu = nn.ReLU(inplace=True)
        net.maxpool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
        inplanes = self.width
        strides_and_dilations = ((1, 1), (2, 1), (1, 2), (1, 4))
        for index, (blocks, (stride, dilation)) in enumerate(zip(self.layers, strides_and_dilations, strict=True)):
            planes = self.width * 2**index
            in_conv1 = self.stride_in == "conv1"
            stage = [Bottleneck(inplanes, planes, stride, dilation, True, in_conv1)]
            inplanes = planes * Bottleneck.expansion
            stage += [Bottleneck(inplanes, planes, 1, dilation, False, in_conv1) for _ in range(blocks - 1)]
            setattr(net, f"layer{index + 1}", nn.Sequential(*stage))
        if not self.trainable_affine:
            # The authors' code freezes only scale and shift. Batch statistics are used and running ones are updated,
            # even at batch size 1.
            for name in self.names:
                freeze_batch_norm_affine(getattr(net, name))

    def features(self, net: nn.Module, images: Tensor) -> Maps:
        """(B, 3, H, W) BGR 0..255 minus the mean -> x1..x4 at stride 4, 8, 8, 8."""
        trunk: Any = net
        x = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(images))))
        x1 = trunk.layer1(x)
        x2 = trunk.layer2(x1)
        x3 = trunk.layer3(x2)
        return x1, x2, x3, trunk.layer4(x3)

    def stages(self, net: nn.Module) -> list[nn.Sequential]:
        """The four stages of residual blocks."""
        return [getattr(net, name) for name in self.names if name.startswith("layer")]


def freeze_batch_norm_affine(module: nn.Module) -> None:
    """Freeze scale and shift of every batch norm in `module`; running statistics are still updated."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.requires_grad_(False)
