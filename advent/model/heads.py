"""DAFormer's segmentation head: fuses the encoder's four maps at the first map's size (MODEL.HEAD: fusion)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from advent.config.schema import ModelConfig
from advent.errors import ConfigError
from advent.model.depthwise import DilatedDepthwiseConv2d
from advent.model.encoder import Encoder, Maps

FUSION_WIDTH = (256, 256)
FUSION_DILATIONS = (1, 6, 12, 18)


def conv_norm(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    """Convolution of the same size, batch norm, ReLU: (B, in_channels, h, w) -> (B, out_channels, h, w)."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


def _branch(in_channels: int, out_channels: int, dilation: int) -> nn.Sequential:
    """1x1 convolution for dilation 1, else a depthwise dilated 3x3 and a 1x1; each with batch norm and ReLU."""
    if dilation == 1:
        return conv_norm(in_channels, out_channels, 1)
    depthwise = DilatedDepthwiseConv2d(in_channels, dilation)
    return nn.Sequential(
        nn.Sequential(depthwise, nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True)),
        conv_norm(in_channels, out_channels, 1),
    )


class FusionHead(nn.Module):
    """Context-aware fusion head of DAFormer (section 3.2; sizes as in its released code).

    Each map is embedded by a 1x1 convolution and resized to the first map's size (stride 4). The concatenation passes a
    depthwise separable ASPP and a 3x3 convolution, then channel dropout and a 1x1 classifier.

    channels: of the maps x1..x4. width: channels of each embedding, and of the fused features. kernel: of the
    convolution that joins the branches (3 in DAFormer).
    """

    def __init__(
        self,
        channels: Sequence[int],
        num_classes: int,
        width: Sequence[int] = FUSION_WIDTH,
        dilations: Sequence[int] = FUSION_DILATIONS,
        dropout: float = 0.1,
        kernel: int = 3,
    ) -> None:
        super().__init__()
        embedding, self.width = width
        self.embed = nn.ModuleList(nn.Conv2d(count, embedding, 1) for count in channels)
        self.aspp = nn.ModuleList(_branch(len(channels) * embedding, self.width, rate) for rate in dilations)
        self.bottleneck = conv_norm(len(dilations) * self.width, self.width, kernel)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(self.width, num_classes, 1)

    def fuse(self, maps: Maps) -> Tensor:
        """Fused features z of the four maps, (B, width, h1, w1) at the size of x1; not negative."""
        size_hw = maps[0].shape[-2:]
        embedded = [
            functional.interpolate(conv(x), size=size_hw, mode="bilinear", align_corners=False)
            for conv, x in zip(self.embed, maps, strict=True)
        ]
        features = torch.cat(embedded, 1)
        return self.bottleneck(torch.cat([branch(features) for branch in self.aspp], 1))

    def classify(self, features: Tensor) -> Tensor:
        """(B, width, h, w) -> logits (B, num_classes, h, w)."""
        return self.classifier(self.dropout(features))

    def forward(self, maps: Maps) -> Tensor:
        """Four maps -> logits (B, num_classes, h1, w1) at the size of x1."""
        return self.classify(self.fuse(maps))


def build_head(model: ModelConfig, num_classes: int, encoder: Encoder) -> FusionHead | None:
    """The head of MODEL.HEAD: a FusionHead, or None for `aspp`. Raises ConfigError with MODEL.MULTI_LEVEL."""
    if model.HEAD == "aspp":
        return None
    if model.MULTI_LEVEL:
        raise ConfigError(
            "MODEL.MULTI_LEVEL: MODEL.HEAD=fusion reads all four maps and has no auxiliary classifier; set it to false"
        )
    return FusionHead(
        encoder.channels, num_classes, model.HEAD_WIDTH, model.HEAD_DILATIONS, model.DROPOUT, model.HEAD_KERNEL
    )
