"""Depthwise convolutions on the CPU: fast dilated ones, and the ones that stay in float32 under autocast."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class DilatedDepthwiseConv2d(nn.Conv2d):
    """Depthwise 3x3 convolution with dilation d and padding d: (B, C, H, W) -> (B, C, H, W), without bias.

    When it trains on a CPU, it runs as an undilated convolution over the d * d interleaved images of every d-th row and
    column. The outputs are the same. oneDNN has fast kernels for that form only: the backward pass takes a sixth to a
    third of the time, and in bfloat16 its own weight gradient of dilated convolutions is wrong (docs/performance.md).
    """

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__(channels, channels, 3, padding=dilation, dilation=dilation, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve; the form depends on the device and on whether gradients are recorded."""
        trains = torch.is_grad_enabled() and x.device.type == "cpu" and not torch.compiler.is_compiling()
        return self._interleaved(x) if trains else super().forward(x)

    def _interleaved(self, x: Tensor) -> Tensor:
        count, channels, height, width = x.shape
        step = self.dilation[0]
        rows, columns = -(-height // step), -(-width // step)
        # Pads and slices while channels are last: their gradients then keep the memory format.
        x = functional.pad(x.permute(0, 2, 3, 1), (0, 0, 0, columns * step - width, 0, rows * step - height))
        x = x.reshape(count, rows, step, columns, step, channels).permute(2, 4, 0, 1, 3, 5)
        x = x.reshape(step * step * count, rows, columns, channels).permute(0, 3, 1, 2)
        x = functional.conv2d(x, self.weight, None, 1, 1, 1, channels).permute(0, 2, 3, 1)
        x = x.reshape(step, step, count, rows, columns, channels).permute(2, 3, 0, 4, 1, 5)
        x = x.reshape(count, rows * step, columns * step, channels)
        return x[:, :height, :width].contiguous().permute(0, 3, 1, 2)  # batch norm is slow on strided tensors


class GroupedConvolutionsInFloat32(TorchFunctionMode):
    """Computes grouped convolutions in float32 under the CPU's autocast, except 3x3 of stride and dilation 1.

    PyTorch 2.14 on processors with AVX512-BF16 takes several times as long for them in bfloat16, and its weight
    gradients of dilated ones are wrong: it reads memory that was never written. They have few operations.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls `func`; grouped convolutions with autocast off, their result cast to autocast's type."""
        kwargs = kwargs or {}
        if func is torch.conv2d and torch.is_autocast_enabled("cpu") and _in_float32(*args, **kwargs):
            dtype = torch.get_autocast_dtype("cpu")
            with torch.autocast("cpu", enabled=False):
                args, kwargs = tuple(map(_float32, args)), {name: _float32(value) for name, value in kwargs.items()}
                return func(*args, **kwargs).to(dtype)
        return func(*args, **kwargs)


def _in_float32(
    input: Tensor,  # the names of torch.conv2d's arguments
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> bool:
    plain = max(weight.shape[-2:]) <= 3 and {*_pair(stride), *_pair(dilation)} == {1}
    return groups > 1 and not plain


def _pair(value: Any) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) else value
