"""Converts torchvision's ImageNet ResNet-101 to the ResNet of the authors' code: other input convention, same names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from advent.errors import CheckpointError, first_line

# Input normalisation of torchvision's weights: RGB, on the scale 0..1.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def convert(weights: Mapping[str, Tensor], mean_bgr: Sequence[float]) -> dict[str, Tensor]:
    """Convert torchvision's state dict to BGR input 0..255 minus `mean_bgr`; the classifier `fc` is dropped.

    Only the stem changes. (x / 255 - MEAN) / STD = (x - 255 MEAN) / (255 STD), so its channels are reordered and
    divided by 255 STD. The remainder, the constant mean_bgr - 255 MEAN per channel, gives a constant per output channel
    of the stem, which is subtracted from the running mean of `bn1`; in train mode batch statistics remove it anyway.
    This is not exact at the zero-padded border: our padding represents the colour mean_bgr, torchvision's 255 MEAN.
    With the released mean they differ by at most one grey value, so the outermost outputs differ slightly. With
    mean_bgr = 255 MEAN (as BGR) both are equal everywhere.
    """
    kept = {name: tensor.clone() for name, tensor in weights.items() if not name.startswith("fc.")}
    stem = kept["conv1.weight"]
    scale = 255 * torch.tensor(STD, dtype=stem.dtype)
    shift = torch.tensor(list(mean_bgr)[::-1], dtype=stem.dtype) - 255 * torch.tensor(MEAN, dtype=stem.dtype)
    scaled = stem / scale[None, :, None, None]
    kept["conv1.weight"] = scaled.flip(1).contiguous()
    kept["bn1.running_mean"] -= (scaled.sum((2, 3)) * shift).sum(1)
    return kept


def download() -> dict[str, Tensor]:
    """Download torchvision's ImageNet weights of ResNet-101. Raises CheckpointError if the download fails."""
    from torchvision.models import ResNet101_Weights

    try:
        return ResNet101_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
    except OSError as error:  # URLError is one
        raise CheckpointError(
            f"TRAIN.RESTORE_FROM: torchvision: its weights cannot be downloaded ({first_line(error)}); download "
            f"{ResNet101_Weights.IMAGENET1K_V1.url} elsewhere and set TRAIN.RESTORE_FROM=FILE"
        ) from None
