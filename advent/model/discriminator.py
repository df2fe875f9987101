"""Domain discriminator of ADVENT."""

from __future__ import annotations

from torch import nn


def get_fc_discriminator(num_classes: int, ndf: int = 64) -> nn.Sequential:
    """Fully convolutional discriminator: five 4x4 stride-2 convolutions with LeakyReLU(0.2) between them.

    Channels: num_classes -> ndf -> 2 ndf -> 4 ndf -> 8 ndf -> 1. Takes a map (B, num_classes, H, W) and returns domain
    logits (B, 1, H / 32, W / 32): below 0 is source, above is target. Both sides of the map must be at least 32 pixels.
    """
    widths = (num_classes, ndf, 2 * ndf, 4 * ndf, 8 * ndf, 1)
    layers: list[nn.Module] = []
    for index in range(5):
        layers.append(nn.Conv2d(widths[index], widths[index + 1], 4, stride=2, padding=1))
        if index < 4:
            layers.append(nn.LeakyReLU(0.2, inplace=True))
    return nn.Sequential(*layers)
