"""Domain discriminator of ADVENT."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm


def get_fc_discriminator(num_classes: int, ndf: int = 64, spectral: bool = False) -> nn.Sequential:
    """Fully convolutional discriminator: five 4x4 stride-2 convolutions with LeakyReLU(0.2) between them.

    Channels: num_classes -> ndf -> 2 ndf -> 4 ndf -> 8 ndf -> 1. Takes a map (B, num_classes, H, W) and returns domain
    logits (B, 1, H / 32, W / 32): below 0 is source, above is target. Both sides of the map must be at least 32 pixels.
    `spectral`: every weight is divided by its largest singular value (Miyato et al., ICLR 2018).
    """
    widths = (num_classes, ndf, 2 * ndf, 4 * ndf, 8 * ndf, 1)
    layers: list[nn.Module] = []
    for index in range(5):
        layer = nn.Conv2d(widths[index], widths[index + 1], 4, stride=2, padding=1)
        layers.append(spectral_norm(layer) if spectral else layer)
        if index < 4:
            layers.append(nn.LeakyReLU(0.2, inplace=True))
    return nn.Sequential(*layers)
