"""Execution options of a network: mixed precision, memory format, SyncBatchNorm, compilation."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from advent.config.schema import TrainConfig
from advent.errors import ConfigError
from advent.model.deeplabv2 import SegmentationNetwork
from advent.model.depthwise import GroupedConvolutionsInFloat32
from advent.runtime import distributed

AMP_DTYPES: dict[str, torch.dtype | None] = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}
FIRST_SCALE = 2.0**16


class LossScale:
    """Dynamic loss scaling for float16, so that small gradients do not underflow.

    For other values of `amp` it does nothing. It wraps PyTorch's GradScaler; nothing here synchronises with the device.
    Raises ConfigError for fp16 on MPS.
    """

    def __init__(self, amp: str, device: torch.device) -> None:
        self.used = amp == "fp16"
        if self.used and device.type == "mps":
            raise ConfigError("TRAIN.AMP: fp16: loss scaling needs float64, which mps does not have; use bf16 or 'off'")
        self._factor_of = torch.ones((), device=device)
        self._scaler = torch.amp.GradScaler(device.type, init_scale=FIRST_SCALE, enabled=self.used)

    def __call__(self, loss: Tensor) -> Tensor:
        """The scaled loss, for `backward`."""
        return self._scaler.scale(loss) if self.used else loss

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide an optimizer's gradients by the factor."""
        if self.used:
            self._scaler.unscale_(optimizer)

    def factor(self) -> Tensor:
        """The current factor, a scalar tensor on the device."""
        return self._scaler.scale(self._factor_of)  # `get_scale` would synchronise with the device

    def update(self) -> None:
        """Update the factor: halve it after an overflow, double it after many iterations without one."""
        if self.used:
            self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """State for an exact resume."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`."""
        if self.used:
            self._scaler.load_state_dict(state)


@contextmanager
def _cpu_autocast(dtype: torch.dtype) -> Iterator[None]:
    with torch.autocast("cpu", dtype=dtype), GroupedConvolutionsInFloat32():
        yield


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Autocast context with `dtype`; full precision if `dtype` is None.

    On the CPU most grouped convolutions stay in float32. Raises ConfigError if PyTorch has no autocast on the device.
    """
    if device.type == "cpu" and dtype is not None:
        return _cpu_autocast(dtype)
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)
    if dtype is None:
        return nullcontext()
    raise ConfigError(
        f"TRAIN.AMP: PyTorch {torch.__version__} has no reduced precision on {device.type}; set it to 'off'"
    )


# Per device. CPU: measured (docs/performance.md). CUDA: recommended by PyTorch for tensor cores. MPS: the default.
CHANNELS_LAST = {"cpu": True, "cuda": True}


def memory_format(device: torch.device) -> torch.memory_format:
    """Preferred memory format of a device: channels last on CPU and CUDA, else contiguous."""
    return torch.channels_last if CHANNELS_LAST.get(device.type) else torch.contiguous_format


def to_device(net: nn.Module, device: torch.device) -> nn.Module:
    """Move the network to the device, in the device's memory format."""
    return net.to(device).to(memory_format=memory_format(device))


def convert_sync_bn(net: SegmentationNetwork, device: torch.device) -> SegmentationNetwork:
    """Convert batch norms to SyncBatchNorm, with statistics over all processes (TRAIN.SYNC_BN).

    In a single process they act as plain batch norms. Raises ConfigError for several processes without CUDA.
    """
    if distributed.world_size() > 1 and device.type != "cuda":
        raise ConfigError(
            f"TRAIN.SYNC_BN: PyTorch synchronises batch norm on CUDA only, not on {device.type}; set it to false"
        )
    if any(type(part).__name__ == "BatchNormAct2d" for part in net.modules()):
        from timm.layers import convert_sync_batchnorm  # timm's own batch norms include their activation

        return convert_sync_batchnorm(net)
    return nn.SyncBatchNorm.convert_sync_batchnorm(net)


def maybe_compile(net: nn.Module, train: TrainConfig, device: torch.device) -> nn.Module:
    """The network, or with TRAIN.COMPILE its compiled form, which shares its weights.

    Raises ConfigError if compilation is not possible on the device.
    """
    if not train.COMPILE:
        return net
    if device.type == "cpu" and not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++")):
        raise ConfigError(
            "TRAIN.COMPILE: on a CPU it needs a C++ compiler, g++ or clang++; install one, or leave it out"
        )
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise ConfigError("TRAIN.COMPILE: on CUDA it needs triton; pip install triton, or leave it out")
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"TRAIN.COMPILE: does not work on {device.type}; leave it out")
    return torch.compile(net)  # type: ignore[return-value]
