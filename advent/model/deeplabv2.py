"""DeepLabv2 as in ADVENT: encoder, ASPP classifier, optional auxiliary classifier on x3. Or another head (heads.py)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from advent.model.encoder import Encoder, Maps, ResNetEncoder
from advent.model.heads import FusionHead

ASPP_DILATIONS = (6, 12, 18, 24)
CLASSIFIERS = ("layer5", "layer6", "head.classifier")


class ASPP(nn.Module):
    """ASPP classifier: four parallel dilated 3x3 convolutions. Those of `dilations` are summed: all four in ADVENT.

    AdaptSegNet's classifier returns inside its loop, so it sums only the first two. Unused convolutions are kept,
    frozen, so that the weights' names stay the same.
    """

    def __init__(self, channels: int, num_classes: int, dilations: Sequence[int] = ASPP_DILATIONS) -> None:
        super().__init__()
        self.dilations = tuple(dilations)
        self.conv2d_list = nn.ModuleList(
            nn.Conv2d(channels, num_classes, 3, padding=rate, dilation=rate) for rate in ASPP_DILATIONS
        )
        self.used = [index for index, rate in enumerate(ASPP_DILATIONS) if rate in self.dilations]
        for index, conv in enumerate(self.conv2d_list):
            conv.requires_grad_(index in self.used)

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels, h, w) -> logits (B, num_classes, h, w)."""
        first, *others = [self.conv2d_list[index] for index in self.used]
        logits = first(features)
        for conv in others:
            logits = logits + conv(features)
        return logits


class SegmentationNetwork(nn.Module):
    """Base class: encoder plus classifier. Subclasses insert a depth head between them.

    `forward` takes (B, 3, H, W) float images, BGR 0..255 minus the mean, and returns `(aux, main)` logits at the
    encoder's stride; aux is None unless multi-level. Networks with a depth head return `(aux, main, depth)`.
    `dilations`: dilations of the classifiers' convolutions that are used. `head`: replaces the ASPP classifier.

    `small_weights`: modules whose convolutions start from N(0, 0.01) in every scheme of `initialise`. `he_weights`:
    modules whose other convolutions start as in `he` in every scheme.
    """

    small_weights: tuple[str, ...] = CLASSIFIERS
    he_weights: tuple[str, ...] = ("head", "depth_head", "pyramid")

    def __init__(
        self,
        num_classes: int,
        encoder: Encoder,
        multi_level: bool = False,
        dilations: Sequence[int] = ASPP_DILATIONS,
        head: FusionHead | None = None,
    ) -> None:
        super().__init__()
        self.num_classes, self.multi_level, self.blueprint = num_classes, multi_level, encoder
        encoder.install(self)
        self.head = head
        if head is not None:
            return
        if multi_level:
            self.layer5 = ASPP(encoder.channels[2], num_classes, dilations)
        self.layer6 = ASPP(encoder.channels[3], num_classes, dilations)

    def encode(self, images: Tensor) -> Maps:
        """The encoder's four feature maps."""
        return self.blueprint.features(self, images)

    def backbone_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Trainable parameters of the encoder, (name, parameter) in state-dict order: base learning rate."""
        return [(n, p) for n, p in self.named_parameters() if p.requires_grad and self._in_backbone(n)]

    def head_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Trainable parameters outside the encoder, (name, parameter): ten times the base learning rate."""
        return [(n, p) for n, p in self.named_parameters() if p.requires_grad and not self._in_backbone(n)]

    def _in_backbone(self, name: str) -> bool:
        return name.split(".", 1)[0] in self.blueprint.names


class DeeplabV2(SegmentationNetwork):
    """DeepLabv2 of ADVENT, or its encoder with a fusion head; without a depth head."""

    def forward(self, images: Tensor) -> tuple[Tensor | None, Tensor]:
        """Images (B, 3, H, W) -> (aux or None, main), logits (B, num_classes, h, w)."""
        maps = self.encode(images)
        if self.head is not None:
            return None, self.head(maps)
        _, _, x3, x4 = maps
        aux = self.layer5(x3) if self.multi_level else None
        return aux, self.layer6(x4)


def initialise(net: SegmentationNetwork, scheme: str = "release", backbone: bool = True) -> None:
    """Initialise the convolution weights in state-dict order; biases and batch norms keep PyTorch's defaults.

    All are normal with mean 0. scheme: `release` (the authors' code) has standard deviation 0.01, for weights that
    ImageNet weights overwrite. `he`, for training from scratch, has sqrt(2 / fan_out) for the backbone and the depth
    head, and 0.01 for the classifiers. The network names modules that are alike in both (`small_weights`,
    `he_weights`). `backbone=False` skips the encoder, which already has its own weights.
    """
    skipped = () if backbone else net.blueprint.names
    for name, module in net.named_modules():
        top = name.split(".", 1)[0]
        if not isinstance(module, nn.Conv2d) or top in skipped:
            continue
        small = name in net.small_weights or top in net.small_weights
        he = not small and (scheme == "he" or top in net.he_weights)
        fan_out = module.out_channels * math.prod(module.kernel_size) / module.groups
        nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out) if he else 0.01)


def get_deeplab_v2(num_classes: int = 19, multi_level: bool = True) -> DeeplabV2:
    """ADVENT's full-size network with random weights (ResNet-101, stride 8)."""
    net = DeeplabV2(num_classes, ResNetEncoder(), multi_level)
    initialise(net)
    return net
