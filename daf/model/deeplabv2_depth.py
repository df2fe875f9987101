"""DAF's network: DeepLabv2 with a channel-attention depth head that guides the classifier."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from advent.errors import ConfigError
from advent.model.deeplabv2 import ASPP_DILATIONS, SegmentationNetwork, initialise
from advent.model.encoder import Encoder, Maps, ResNetEncoder
from advent.model.outputs import resize_bilinear
from advent.model.precision import autocast
from advent.utils.deprecation import deprecated_names

BRANCH_CHANNELS = 16  # of each u_i; four of them are concatenated
RELEASED_DEPTH_SIZE = (304, 228)  # (width, height); the depth head's fixed output size in the authors' code


def full_precision(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """layer(x) in its weights' precision, under autocast too: inverse depth reaches 65536, float16 only 65504."""
    with autocast(x.device, None):
        return layer(x.to(layer.weight.dtype))


def channel_attention(channels: int) -> nn.Sequential:
    """sigmoid(W2 relu(W1 avgpool(x))): (B, c, h, w) -> weights (B, c, 1, 1) in (0, 1)."""
    squeezed = max(1, channels // 16)
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(channels, squeezed, 1, bias=False),
        nn.ReLU(inplace=True),
        nn.Conv2d(squeezed, channels, 1, bias=False),
        nn.Sigmoid(),
    )


class Branch(nn.Module):
    """One encoder map to 16 channels at a common size: resize(relu(bn(conv5x5(x))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, BRANCH_CHANNELS, 5, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(BRANCH_CHANNELS)

    def forward(self, x: Tensor, size_hw: Sequence[int]) -> Tensor:
        """(B, channels, h, w) -> (B, 16, *size_hw)."""
        return resize_bilinear(functional.relu(self.bn1(self.conv1(x))), size_hw)


class DeeplabV2Depth(SegmentationNetwork):
    """Segmentation and depth; `forward` returns (None, logits at the encoder's stride, depth at `depth_size`)."""

    def __init__(
        self,
        num_classes: int,
        encoder: Encoder,
        multi_level: bool = False,
        depth_size: Sequence[int] | None = RELEASED_DEPTH_SIZE,
        attention: bool = True,
        dilations: Sequence[int] = ASPP_DILATIONS,
    ) -> None:
        if multi_level:
            # The multi-level path of this network crashes in the authors' code; there is no reference behaviour.
            raise ConfigError("MODEL.MULTI_LEVEL: DAF's network has no auxiliary classifier; set it to false")
        super().__init__(num_classes, encoder, dilations=dilations)
        self.depth_size = tuple(depth_size) if depth_size else None
        fused = 4 * BRANCH_CHANNELS
        self.dec4 = nn.Conv2d(fused, encoder.channels[3], 1)
        for index, channels in enumerate(encoder.channels, start=1):
            setattr(self, f"att{index}", channel_attention(channels) if attention else None)
        for index, channels in enumerate(encoder.channels, start=1):
            setattr(self, f"up{index}", Branch(channels))
        self.mff_conv = nn.Conv2d(fused, fused, 5, padding=2, bias=False)
        self.mff_bn = nn.BatchNorm2d(fused)
        self.convR0 = nn.Conv2d(fused, fused, 5, padding=2, bias=False)
        self.bnR0 = nn.BatchNorm2d(fused)
        self.convR2 = nn.Conv2d(fused, 1, 5, padding=2)

    def fuse(self, maps: Maps) -> Tensor:
        """Attention-weighted fusion F of the four maps, (B, 64, h2, w2) at the size of x2."""
        size_hw = maps[1].shape[-2:]
        branches = []
        for index, x in enumerate(maps, start=1):
            attention, branch = getattr(self, f"att{index}"), getattr(self, f"up{index}")
            branches.append(branch(attention(x) * x if attention is not None else x, size_hw))
        return functional.relu(self.mff_bn(self.mff_conv(torch.cat(branches, 1))))

    def forward(self, images: Tensor) -> tuple[None, Tensor, Tensor]:
        """Images (B, 3, H, W) -> (None, logits (B, C, h, w), inverse depth (B, 1, depth height, depth width)).

        The depth has no output activation: its sign is not constrained.
        """
        maps = self.encode(images)
        fused = self.fuse(maps)
        depth = full_precision(self.convR2, functional.relu(self.bnR0(self.convR0(fused))))
        if self.depth_size:
            depth = resize_bilinear(depth, self.depth_size[::-1])
        x4 = maps[3]
        guidance = functional.relu(self.dec4(resize_bilinear(fused, x4.shape[-2:])))
        return None, self.layer6(x4 * guidance), depth


def get_deeplab_v2_depth(num_classes: int, multi_level: bool = False) -> DeeplabV2Depth:
    """DAF's full-size network with random weights. Raises ConfigError for `multi_level=True`."""
    net = DeeplabV2Depth(num_classes, ResNetEncoder(), multi_level)
    initialise(net)
    return net


__getattr__ = deprecated_names(__name__, {"resize": "resize_bilinear"})
