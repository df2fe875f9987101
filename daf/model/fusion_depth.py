"""DAF's network with a fusion head: depth is predicted from the fused features, and guides the classifier."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from advent.model.deeplabv2 import SegmentationNetwork
from advent.model.encoder import Encoder
from advent.model.heads import FusionHead, conv_norm
from advent.model.outputs import resize_bilinear
from daf.model.deeplabv2_depth import (
    RELEASED_DEPTH_SIZE,
    channel_attention,
    full_precision,
    positive_depth,
    start_near,
)

DEPTH_CHANNELS = 64


class FusedDepthHead(nn.Module):
    """Depth and guidance from the fused features z (B, channels, h, w) of a FusionHead.

    d = relu(bn(conv3x3(attention(z) * z))), 64 channels; depth = conv3x3(d); guidance g = relu(conv1x1(d)). The
    guidance starts near 1, so z * g starts near z.
    """

    def __init__(self, channels: int, attention: bool = True, log_depth: bool = False) -> None:
        super().__init__()
        self.log_depth = log_depth
        self.attention = channel_attention(channels) if attention else None
        self.features = conv_norm(channels, DEPTH_CHANNELS, 3)
        self.output = nn.Conv2d(DEPTH_CHANNELS, 1, 3, padding=1)
        self.guidance = nn.Conv2d(DEPTH_CHANNELS, channels, 1)
        assert self.guidance.bias is not None
        nn.init.ones_(self.guidance.bias)
        if log_depth:
            start_near(self.output)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z -> (inverse depth (B, 1, h, w) in full precision, guidance (B, channels, h, w), not negative)."""
        features = self.features(self.attention(z) * z if self.attention is not None else z)
        depth = full_precision(self.output, features)
        return positive_depth(depth) if self.log_depth else depth, functional.relu(self.guidance(features))


class FusionDepth(SegmentationNetwork):
    """Segmentation and depth; `forward` returns (None, logits at the stride of x1, depth at `depth_size`)."""

    small_weights = (*SegmentationNetwork.small_weights, "depth_head.output", "depth_head.guidance")

    def __init__(
        self,
        num_classes: int,
        encoder: Encoder,
        head: FusionHead,
        depth_size: Sequence[int] | None = RELEASED_DEPTH_SIZE,
        attention: bool = True,
        log_depth: bool = False,
    ) -> None:
        super().__init__(num_classes, encoder, head=head)
        self.depth_size = tuple(depth_size) if depth_size else None
        self.depth_head = FusedDepthHead(head.width, attention, log_depth)

    def forward(self, images: Tensor) -> tuple[None, Tensor, Tensor]:
        """Images (B, 3, H, W) -> (None, logits (B, C, h1, w1), inverse depth (B, 1, depth height, depth width)).

        Without a `depth_size` the depth has the logits' size.
        """
        assert self.head is not None
        fused = self.head.fuse(self.encode(images))
        depth, guidance = self.depth_head(fused)
        if self.depth_size:
            depth = resize_bilinear(depth, self.depth_size[::-1])
        return None, self.head.classify(fused * guidance), depth
