"""DADA's network, the depth baseline: a depth encoder-decoder on x4 alone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from advent.errors import ConfigError
from advent.model.deeplabv2 import ASPP_DILATIONS, SegmentationNetwork, initialise
from advent.model.encoder import Encoder, ResNetEncoder
from daf.model.deeplabv2_depth import full_precision


class DeeplabV2DADA(SegmentationNetwork):
    """Segmentation and depth; `forward` returns (None, logits, depth), both at the encoder's stride."""

    def __init__(
        self,
        num_classes: int,
        encoder: Encoder,
        multi_level: bool = False,
        dilations: Sequence[int] = ASPP_DILATIONS,
    ) -> None:
        if multi_level:
            # DADA never trains the auxiliary output; a head without gradients would be misleading.
            raise ConfigError(
                "MODEL.MULTI_LEVEL: DADA's network is used without an auxiliary classifier; set it to false"
            )
        super().__init__(num_classes, encoder, dilations=dilations)
        channels = encoder.channels[3]
        squeezed, code = max(1, channels // 4), max(1, channels // 16)
        self.enc4_1 = nn.Conv2d(channels, squeezed, 1)
        self.enc4_2 = nn.Conv2d(squeezed, squeezed, 3, padding=1)
        self.enc4_3 = nn.Conv2d(squeezed, code, 1)
        self.dec4 = nn.Conv2d(code, channels, 1)

    def forward(self, images: Tensor) -> tuple[None, Tensor, Tensor]:
        """Images (B, 3, H, W) -> (None, logits (B, C, h, w), inverse depth (B, 1, h, w))."""
        x4 = self.encode(images)[3]
        code = full_precision(self.enc4_3, functional.relu(self.enc4_2(functional.relu(self.enc4_1(x4)))))
        depth = code.mean(1, keepdim=True)
        guidance = functional.relu(full_precision(self.dec4, code))  # the code has the depth's range
        return None, self.layer6(x4 * guidance), depth


def get_deeplab_v2_depth(num_classes: int, multi_level: bool = False) -> DeeplabV2DADA:
    """DADA's full-size network with random weights. Raises ConfigError for `multi_level=True`."""
    net = DeeplabV2DADA(num_classes, ResNetEncoder(), multi_level)
    initialise(net)
    return net
