"""Network outputs: forward pass in a chosen precision, bilinear resize to the images, predictions in eval mode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from advent.model.precision import autocast


class NetworkOutputs(NamedTuple):
    """Network outputs of a batch: logits (B, C, h, w), depth (B, 1, h', w'); None for a head that it lacks."""

    aux: Tensor | None
    main: Tensor
    depth: Tensor | None = None

    def each(self, change: Callable[[Tensor], Tensor]) -> NetworkOutputs:
        """The outputs with `change` applied to each that is not None."""
        aux, depth = (None if x is None else change(x) for x in (self.aux, self.depth))
        return NetworkOutputs(aux, change(self.main), depth)


def resize_bilinear(x: Tensor, size_hw: Sequence[int]) -> Tensor:
    """Bilinear resize of (B, C, h, w) to (H, W), corners aligned; the same tensor if the size already matches."""
    if tuple(x.shape[-2:]) == tuple(size_hw):
        return x
    return functional.interpolate(x, size=tuple(size_hw), mode="bilinear", align_corners=True)


def forward(net: nn.Module, images: Tensor, amp_dtype: torch.dtype | None = None) -> NetworkOutputs:
    """Forward pass under autocast: outputs at the network's own strides and precision.

    images: (B, 3, H, W) network input. `amp_dtype`: autocast type, None for full precision.
    """
    with autocast(images.device, amp_dtype):
        return NetworkOutputs(*net(images))


def forward_at_input_size(net: nn.Module, images: Tensor, amp_dtype: torch.dtype | None = None) -> NetworkOutputs:
    """As `forward`, with the outputs in the images' precision, resized to the images: (B, C, H, W), (B, 1, H, W)."""
    size_hw = images.shape[-2:]
    return forward(net, images, amp_dtype).each(lambda x: resize_bilinear(x.to(images.dtype), size_hw))


@contextmanager
def eval_mode(net: nn.Module) -> Iterator[None]:
    """Set the network to eval mode inside the block, and back to its former mode afterwards."""
    was_training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(was_training)


@torch.inference_mode()
def predict_images(
    net: nn.Module, batches: Iterable[Tensor], device: torch.device, amp_dtype: torch.dtype | None = None
) -> list[NetworkOutputs]:
    """Predictions of image batches (B, 3, H, W) at input size, float32 on the CPU; the network is run in eval mode.

    Every prediction stays in memory: for the few images of a figure, not for a data set.
    """
    with eval_mode(net):
        outputs = (forward_at_input_size(net, images.to(device), amp_dtype) for images in batches)
        return [output.each(lambda x: x.float().cpu()) for output in outputs]
