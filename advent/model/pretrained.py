"""torchvision's ImageNet ResNet as the start of the release's: another input convention, otherwise the same names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from advent.errors import CheckpointError, first_line

# RGB, on the scale 0..1: what torchvision's weights were trained with.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def convert(weights: Mapping[str, Tensor], mean_bgr: Sequence[float]) -> dict[str, Tensor]:
    """torchvision's state dict -> ours: BGR input 0..255 minus `mean_bgr`; the old classifier `fc` is dropped.

    Only the stem changes. (x / 255 - MEAN) / STD = (x - 255 MEAN) / (255 STD): its channels are put in our order and
    divided by 255 STD. What is left, the constant mean_bgr - 255 MEAN per channel, passes the stem as a constant per
    output channel, which moves into the running mean of `bn1`; in train mode batch statistics remove it anyway. At
    the zero-padded border it does not pass whole: there our padding stands for the colour mean_bgr and torchvision's
    for 255 MEAN, at most one grey value apart with the released mean, so the outermost outputs differ a little. With
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
    """torchvision's own ImageNet weights of ResNet-101. Raises CheckpointError where they cannot be fetched."""
    from torchvision.models import ResNet101_Weights

    try:
        return ResNet101_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
    except OSError as error:  # URLError is one
        raise CheckpointError(
            f"TRAIN.RESTORE_FROM: torchvision: its weights cannot be fetched ({first_line(error)}); download "
            f"{ResNet101_Weights.IMAGENET1K_V1.url} elsewhere and give the file: TRAIN.RESTORE_FROM=FILE"
        ) from None
