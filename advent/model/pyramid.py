"""Feature pyramid of a plain ViT: four maps at strides 4, 8, 16 and 32 from its last map (ViTDet)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

PYRAMID_STRIDES = (4, 8, 16, 32)
MOST_CHANNELS = 256  # of each map, as in ViTDet


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SimplePyramid(nn.Module):
    """ViTDet's simple feature pyramid: x4 (two transposed convolutions), x2 (one), x1, x1/2 (maximum), each then a 1x1.

    A patch of 16 pixels gives the strides 4, 8, 16, 32 by itself; the maps of other patch sizes are resized to them.
    channels: of the ViT's map. The four maps have `out_channels` each.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = self.channels_of(channels)
        half, quarter = max(1, channels // 2), max(1, channels // 4)
        self.up4 = nn.Sequential(
            nn.ConvTranspose2d(channels, half, 2, stride=2),
            ChannelNorm(half),
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, 2, stride=2),
        )
        self.up2 = nn.ConvTranspose2d(channels, half, 2, stride=2)
        self.down = nn.MaxPool2d(2, ceil_mode=True)
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(count, self.out_channels, 1, bias=False), ChannelNorm(self.out_channels))
            for count in (quarter, half, channels, channels)
        )

    @staticmethod
    def channels_of(channels: int) -> int:
        """Channels of the four maps for a ViT's width."""
        return min(channels, MOST_CHANNELS)

    def forward(self, x: Tensor, image_hw: torch.Size) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, channels, h, w) of an image (H, W) -> four maps (B, out_channels, ceil(H / s), ceil(W / s))."""
        height, width = image_hw
        scaled = (self.up4(x), self.up2(x), x, self.down(x))
        maps = [
            _resized(lateral(feature), ((height + stride - 1) // stride, (width + stride - 1) // stride))
            for lateral, feature, stride in zip(self.lateral, scaled, PYRAMID_STRIDES, strict=True)
        ]
        return maps[0], maps[1], maps[2], maps[3]


def to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Images (B, 3, H, W) enlarged to the next height and width that `multiple` divides; bilinear."""
    height, width = ((side + multiple - 1) // multiple * multiple for side in images.shape[-2:])
    return _resized(images, (height, width))


def _resized(x: Tensor, size_hw: tuple[int, int]) -> Tensor:
    if tuple(x.shape[-2:]) == size_hw:
        return x
    return functional.interpolate(x, size=size_hw, mode="bilinear", align_corners=False)
