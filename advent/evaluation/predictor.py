"""Predictor: logits of one network or an ensemble, optionally averaged over sliding crops, flips and scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from advent.errors import NotFinite
from advent.model.outputs import NetworkOutputs, forward, resize_bilinear
from advent.model.precision import AMP_DTYPES

SHOWN_IMAGES = 5


def not_finite(names: Sequence[str], *outputs: Tensor | None) -> list[str]:
    """Names of the images with an inf or NaN in any of the outputs (B, ...)."""
    finite = [torch.isfinite(x).flatten(1).all(1) for x in outputs if x is not None]
    all_finite = torch.stack(finite).all(0).tolist()
    return [name for name, is_finite in zip(names, all_finite, strict=True) if not is_finite]


def refuse_not_finite(names: Sequence[str], what: str, amp: str = "off", option: str = "TRAIN.AMP=off") -> None:
    """Raise NotFinite naming the images `names` for which `what` is not finite; does nothing without names."""
    if not names:
        return
    suffix = f" and {len(names) - SHOWN_IMAGES} more" if len(names) > SHOWN_IMAGES else ""
    fix = (
        f"repeat with {option} (now {amp})"
        if amp != "off"
        else "the checkpoint's weights have diverged: use another one, or train again with a lower TRAIN.LEARNING_RATE"
    )
    raise NotFinite(f"{what}: infinite or not a number for {', '.join(names[:SHOWN_IMAGES])}{suffix}; {fix}")


@dataclass(frozen=True)
class Crops:
    """Sliding crops: (height, width) of a crop, and of the step between two. The step is at most the crop."""

    size_hw: tuple[int, int]
    stride_hw: tuple[int, int]

    @classmethod
    def of(cls, crop_wh: Sequence[int] | None, stride_wh: Sequence[int] | None = None) -> Crops | None:
        """The crops of a config's (width, height) pairs; None without a crop. Default step: two thirds of the crop."""
        if crop_wh is None:
            return None
        width, height = crop_wh
        step_w, step_h = stride_wh or (max(1, 2 * width // 3), max(1, 2 * height // 3))
        return cls((height, width), (step_h, step_w))

    def areas(self, size_hw: Sequence[int]) -> list[tuple[slice, slice]]:
        """(rows, columns) of the crops that cover an image of (height, width), from top to bottom.

        The last crop of a direction is shifted inward to end at the border. A crop larger than the image has the
        image's extent.
        """
        rows, columns = map(_intervals, size_hw, self.size_hw, self.stride_hw)
        return [(row, column) for row in rows for column in columns]


def _intervals(length: int, crop: int, stride: int) -> list[slice]:
    crop = min(crop, length)
    starts = [*range(0, length - crop, stride), length - crop]
    return [slice(start, start + crop) for start in starts]


def sliding_forward(
    net: nn.Module, images: Tensor, amp_dtype: torch.dtype | None = None, crops: Crops | None = None
) -> NetworkOutputs:
    """Outputs in float32, predicted crop by crop: at the images' size, averaged where crops overlap.

    images: (B, 3, H, W) network input. Without `crops`, or if one crop covers the images, they are predicted at once,
    and the outputs have the network's own strides. A crop's outputs are resized to the crop with aligned corners.
    """
    height_width = images.shape[-2:]
    areas = [] if crops is None else crops.areas(height_width)
    if len(areas) <= 1:
        return forward(net, images, amp_dtype).each(Tensor.float)
    # The sums have the images' size (160 MB for 19 classes at 2048x1024). Sums at the network's stride are smaller, but
    # with aligned corners the spacing of a crop's outputs, (side - 1) / (outputs - 1), depends on its side. So they do
    # not lie on the grid of the image's outputs, even for crops that start at multiples of the stride.
    counts = images.new_zeros(height_width, dtype=torch.float32)
    sums: NetworkOutputs | None = None
    for rows, columns in areas:
        crop = images[:, :, rows, columns]
        at_crop = partial(resize_bilinear, size_hw=crop.shape[-2:])
        outputs = forward(net, crop, amp_dtype).each(Tensor.float).each(at_crop)
        if sums is None:
            sums = outputs.each(lambda x: x.new_zeros(*x.shape[:2], *height_width))
        for total, part in zip(sums, outputs, strict=True):
            if total is not None and part is not None:
                total[:, :, rows, columns] += part
        counts[rows, columns] += 1
    assert sums is not None
    return sums.each(lambda total: total.div_(counts))


class Predictor:
    """Weighted sum of the main logits of several networks (ADVENT's ensemble), or the logits of one network.

    `flip` and `scales` average the logits over mirrored and resized inputs, `crops` over sliding crops of each; the
    paper's numbers use none of them. Networks are set to eval mode and stay in it.
    """

    def __init__(
        self,
        nets: Sequence[nn.Module],
        weights: Sequence[float] = (),
        *,
        amp: str = "off",
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
        crops: Crops | None = None,
    ) -> None:
        self.nets = [net.eval() for net in nets]
        self.weights = list(weights) or [1.0] * len(nets)
        self.amp, self.dtype, self.flip, self.scales = amp, AMP_DTYPES[amp], flip, tuple(scales)
        self.crops = crops

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised images -> (B, C, h, w) float32 logits: at the network's stride, or of several crops.

        The mean of several crops has the images' size.
        """
        plain = self._sum(images)
        views = [] if self.scales == (1.0,) else [self._at(images, scale, plain) for scale in self.scales]
        if self.flip:
            mirrored = images.flip(3)
            views = views or [plain]
            views += [self._at(mirrored, scale, plain).flip(3) for scale in self.scales]
        return torch.stack(views).mean(0) if views else plain

    def _at(self, images: Tensor, scale: float, like: Tensor) -> Tensor:
        """Logits of the resized images, at the size of `like`."""
        if scale != 1.0:
            size = [max(32, round(scale * side)) for side in images.shape[2:]]
            images = resize_bilinear(images, size)
        return resize_bilinear(self._sum(images), like.shape[2:])

    def _sum(self, images: Tensor) -> Tensor:
        total: Tensor | None = None
        for net, weight in zip(self.nets, self.weights, strict=True):
            logits = sliding_forward(net, images, self.dtype, self.crops).main
            logits = logits if weight == 1.0 else weight * logits
            total = logits if total is None else total + resize_bilinear(logits, total.shape[2:])
        assert total is not None
        return total
