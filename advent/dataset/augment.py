"""Augmentation of training samples (the config's section AUGMENT).

`Augmentation` changes the compact items of StreetDataset.get_uint8 inside the data workers. `strong_augmentation`
changes network images on their device. The random numbers of a sample depend on TRAIN.RANDOM_SEED, its domain and its
position only (`sample_rng`).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from advent.config.schema import AugmentConfig
from advent.dataset.sampling import Draw, sample_rng

FLIP_RATE, JITTER_RATE, BLUR_RATE = 0.5, 0.8, 0.5  # probabilities; the last two are DACS's
SIGMAS = (0.15, 1.15)  # of the blur, in pixels
BLUR_RADIUS = 5  # pixels; of the largest sigma, a larger kernel would add weights below 2e-6
TRIES = 10  # crops that are drawn for a class that rare class sampling wants
STRENGTH = 0.2  # of the jitter in a self-training step (DACS)
GRAY = (0.2989, 0.587, 0.114)  # weights of R, G, B in torchvision's grayscale


class Box(NamedTuple):
    """A region of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


class Photometric(NamedTuple):
    """Photometric change of one image: whether it is jittered, the jitter's factors, and the blur's sigma (0: none).

    The hue is shifted by `hue` of a full turn.
    """

    jitter: bool
    brightness: float
    contrast: float
    saturation: float
    hue: float
    sigma: float


def draw_photometric(rng: np.random.Generator, strength: float, blur: bool) -> Photometric:
    """Jitter with probability 0.8, its factors within `strength` of 1 (hue: of 0); blur, if `blur`, with 0.5.

    Always takes seven numbers from `rng`.
    """
    for_jitter, *factors, for_blur, for_sigma = rng.random(7).tolist()
    brightness, contrast, saturation, hue = [strength * (2 * number - 1) for number in factors]
    sigma = SIGMAS[0] + for_sigma * (SIGMAS[1] - SIGMAS[0]) if blur and for_blur < BLUR_RATE else 0.0
    jitter = strength > 0 and for_jitter < JITTER_RATE
    return Photometric(jitter, 1 + brightness, 1 + contrast, 1 + saturation, hue, sigma)


@dataclass(frozen=True)
class Augmentation:
    """Flip, zoom, crop, colour jitter and blur of compact items.

    `config`: the section AUGMENT. `seed`: TRAIN.RANDOM_SEED. `domain`: source (the labelled stream, which alone gets
    photometric changes) or target. `crop_share`: share of a crop that a class wanted by rare class sampling should
    exceed.
    """

    config: AugmentConfig
    seed: int
    domain: str
    crop_share: float = 0.0

    def __post_init__(self) -> None:
        if self.used:
            importlib.import_module("torchvision.transforms.v2")  # here, or each worker process would import it

    @property
    def used(self) -> bool:
        """Whether any item is changed."""
        config = self.config
        if self.domain == "target" and config.DOMAINS == "source":
            return False
        geometric = config.FLIP or config.CROP is not None or config.SCALE != [1.0, 1.0]
        return geometric or (self.domain == "source" and (config.JITTER > 0 or config.BLUR))

    def __call__(self, item: dict[str, Any], draw: Draw) -> dict[str, Any]:
        """The changed item. image: (H, W, 3) uint8 BGR; label and depth, if present: (H, W), of the same size.

        All are cropped, resized and mirrored alike: the image bilinearly with antialiasing, label and depth to the
        nearest pixel. With depth, `zoom` (float32) is the factor of the inverse depth: a camera of the same focal
        length would see the enlarged image at 1 / zoom of the distance. `load_batches` applies it.
        """
        rng = sample_rng(self.seed, self.domain, draw.position)
        photometric = draw_photometric(rng, self.config.JITTER, self.config.BLUR)
        for_flip, for_scale, *places = rng.random(2 + 2 * TRIES).tolist()
        height, width = item["image"].shape[:2]
        size = self.config.CROP or [width, height]
        assert size[0] <= width, "load_config compares them"
        assert size[1] <= height, "load_config compares them"
        box = self._box((width, height), size, for_scale, places, item.get("label"), draw.wanted)
        flip = self.config.FLIP and for_flip < FLIP_RATE
        changed = dict(item)
        for key in ("label", "depth"):
            if key in item:
                assert item[key].shape == (height, width), "training reads label and depth at the image's size"
                changed[key] = _cut(item[key][None], box, size, flip, "nearest-exact")[0]
        image = _cut(item["image"].permute(2, 0, 1), box, size, flip, "bilinear")
        changed["image"] = image.permute(1, 2, 0).contiguous()
        if self.domain == "source":
            changed["image"] = _photometric_uint8(changed["image"], photometric)
        if "depth" in item:
            changed["zoom"] = torch.tensor(sqrt(size[0] / box.width * (size[1] / box.height)), dtype=torch.float32)
        return changed

    def _box(
        self,
        image_size: Sequence[int],
        size: Sequence[int],
        for_scale: float,
        places: Sequence[float],
        label: Tensor | None,
        wanted: int,
    ) -> Box:
        """The region that becomes the crop: inside the image, and for a wanted class the first place with enough of it.

        If no place has enough, the one with most.
        """
        low = max(self.config.SCALE[0], size[0] / image_size[0], size[1] / image_size[1])
        high = max(self.config.SCALE[1], low)
        scale = low * (high / low) ** for_scale
        width, height = (min(most, max(1, round(side / scale))) for most, side in zip(image_size, size, strict=True))
        boxes = [
            Box(int(down * (image_size[1] - height + 1)), int(right * (image_size[0] - width + 1)), height, width)
            for down, right in zip(places[::2], places[1::2], strict=True)
        ]
        if wanted < 0 or label is None:
            return boxes[0]
        best, most_pixels = boxes[0], -1
        for box in boxes:
            inside = label[box.top : box.top + height, box.left : box.left + width]
            pixels = int((inside == wanted).sum())
            if pixels > most_pixels:
                best, most_pixels = box, pixels
            if pixels > self.crop_share * width * height:
                break
        return best


def _cut(picture: Tensor, box: Box, size: Sequence[int], flip: bool, interpolation: str) -> Tensor:
    """(C, H, W) -> the box at `size` (width, height), mirrored if `flip`. interpolation: torchvision's name for it."""
    # Deferred: torchvision takes as long to import as PyTorch, and most commands do not augment.
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as transforms

    mode = InterpolationMode(interpolation)
    cut = transforms.resized_crop(picture, *box, size=[size[1], size[0]], interpolation=mode, antialias=True)
    return transforms.horizontal_flip(cut) if flip else cut


def _photometric_uint8(bgr: Tensor, change: Photometric) -> Tensor:
    """(H, W, 3) uint8 BGR, jittered and blurred."""
    if change.jitter:
        # In float32, as on a device: on a CPU half the time of torchvision's operations on uint8, without its rounding.
        images = bgr.permute(2, 0, 1)[None].to(torch.float32)
        jittered = color_jitter(images, torch.tensor([change[1:5]]), torch.zeros(3))
        bgr = jittered[0].round_().to(torch.uint8).permute(1, 2, 0).contiguous()
    if change.sigma > 0:  # OpenCV blurs uint8 many times faster than a convolution does
        size = (2 * BLUR_RADIUS + 1, 2 * BLUR_RADIUS + 1)
        bgr = torch.from_numpy(cv2.GaussianBlur(bgr.numpy(), size, change.sigma))
    return bgr


def zoomed_depth(depth: Tensor, zoom: Tensor, largest: float = 65536.0) -> Tensor:
    """Inverse depth (B, H, W) of images that were enlarged by `zoom` (B,): times zoom, at most 65536; unknown stays 0.

    An image enlarged s times is what a camera of the same focal length sees at 1 / s of the distance.
    """
    return (depth * zoom[:, None, None]).clamp_(max=largest)


@torch.no_grad()
def strong_augmentation(
    images: Tensor, positions: Tensor, seed: int, mean: Sequence[float], stream: str = "mixed"
) -> Tensor:
    """Colour jitter (probability 0.8, strength 0.2) and Gaussian blur (0.5, sigma 0.15 to 1.15) of network images.

    images: (B, 3, H, W) float BGR minus `mean`, 0..255 before that; returns the same. positions: (B,) int64 of the
    batch, on the CPU. The parameters of an image depend on (seed, stream, position) only; `stream` is one of
    `sampling.STREAMS`. On CUDA the host does not wait for the device.
    """
    drawn = [draw_photometric(sample_rng(seed, stream, at), STRENGTH, blur=True) for at in positions.tolist()]
    table = torch.tensor(drawn, dtype=torch.float32)
    offset = torch.tensor(list(mean), dtype=torch.float32)
    if images.device.type == "cuda":  # copies from pinned memory do not wait
        table, offset = table.pin_memory(), offset.pin_memory()
    table, offset = (x.to(images.device, images.dtype, non_blocking=True) for x in (table, offset))
    jittered = color_jitter(images, table[:, 1:5], offset)
    changed = torch.where(table[:, 0].bool()[:, None, None, None], jittered, images)
    sigma = table[:, 5]
    blurred = gaussian_blur(changed, sigma.clamp(min=SIGMAS[0]))
    return torch.where((sigma > 0)[:, None, None, None], blurred, changed)


def color_jitter(images: Tensor, factors: Tensor, mean: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue of network images, in this order.

    images: (B, 3, H, W) float BGR minus `mean` (3,), 0..255 before that; returns the same. factors: (B, 4), one row per
    image; 1 changes nothing, for the hue, a share of a full turn, 0. The operations are torchvision's on RGB in [0, 1].
    All tensors are on one device.
    """
    brightness, contrast, saturation, hue = factors[:, :, None, None, None].unbind(1)
    offset = mean[:, None, None]
    rgb = ((images + offset) / 255).flip(1).clamp(0, 1)
    rgb = (rgb * brightness).clamp(0, 1)
    rgb = _blend(rgb, _grayscale(rgb).mean((1, 2, 3), keepdim=True), contrast)
    rgb = _blend(rgb, _grayscale(rgb), saturation)
    return _shifted_hue(rgb, hue).flip(1) * 255 - offset


def _grayscale(rgb: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W)."""
    red, green, blue = rgb.split(1, dim=1)
    return GRAY[0] * red + GRAY[1] * green + GRAY[2] * blue


def _blend(rgb: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (factor * rgb + (1 - factor) * other).clamp(0, 1)


def _shifted_hue(rgb: Tensor, turn: Tensor) -> Tensor:
    """RGB in [0, 1] with its HSV hue shifted by `turn` (B, 1, 1, 1) of a full turn; value and saturation stay."""
    red, green, blue = rgb.split(1, dim=1)
    value = rgb.amax(1, keepdim=True)
    chroma = value - rgb.amin(1, keepdim=True)
    divisor = torch.where(chroma > 0, chroma, 1.0)  # a gray pixel has no hue; its chroma of 0 keeps it gray
    from_red, from_green = (green - blue) / divisor, (blue - red) / divisor + 2
    from_blue = (red - green) / divisor + 4
    sixths = torch.where(value == red, from_red, torch.where(value == green, from_green, from_blue)) + 6 * turn
    # HSV to RGB in closed form: each channel is the value less a share of the chroma, by its distance on the circle.
    distances = [(start + sixths) % 6 for start in (5, 3, 1)]
    return torch.cat([value - chroma * torch.minimum(k, 4 - k).clamp(0, 1) for k in distances], dim=1)


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """(B, C, H, W) float blurred by a Gaussian of `sigma` (B,) > 0 pixels: 11 x 11, edges reflected, as torchvision's.

    Images of at least 6 x 6 pixels; all tensors are on one device.
    """
    count, channels, height, width = images.shape
    offsets = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=images.device, dtype=images.dtype)
    kernels = torch.softmax(-0.5 * (offsets / sigma[:, None]) ** 2, dim=1).repeat_interleave(channels, dim=0)
    planes = images.reshape(1, count * channels, height, width)
    planes = functional.pad(planes, [BLUR_RADIUS] * 4, mode="reflect")
    for shape in ((-1, 1, 1, kernels.shape[1]), (-1, 1, kernels.shape[1], 1)):
        planes = functional.conv2d(planes, kernels.view(shape), groups=count * channels)
    return planes.view(images.shape)
