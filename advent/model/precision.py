"""How a network runs on a device: number format, memory format, compilation. None of it changes what is computed."""

from __future__ import annotations

import importlib.util
import os
import shutil
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from advent.config.schema import TrainConfig
from advent.errors import ConfigError
from advent.model.deeplabv2 import SegmentationNetwork
from advent.runtime import distributed

AMP_DTYPES: dict[str, torch.dtype | None] = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}
FIRST_SCALE = 2.0**16


class LossScale:
    """Multiplies losses so that small float16 gradients do not vanish, and finds the factor by itself.

    Off, it does nothing. PyTorch's GradScaler does the arithmetic; nothing here waits for the device.
    """

    def __init__(self, amp: str, device: torch.device) -> None:
        self.used = amp == "fp16"
        if self.used and device.type == "mps":
            raise ConfigError("TRAIN.AMP: fp16: loss scaling needs float64, which mps does not have; use bf16 or 'off'")
        self._factor_of = torch.ones((), device=device)
        self._scaler = torch.amp.GradScaler(device.type, init_scale=FIRST_SCALE, enabled=self.used)

    def __call__(self, loss: Tensor) -> Tensor:
        """The loss to call `backward` on."""
        return self._scaler.scale(loss) if self.used else loss

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Bring an optimizer's gradients back to their own size."""
        if self.used:
            self._scaler.unscale_(optimizer)

    def factor(self) -> Tensor:
        """The present factor, on the device."""
        return self._scaler.scale(self._factor_of)  # `get_scale` would wait for the device

    def update(self) -> None:
        """Adapt the factor: halved after an overflow, doubled after many iterations without one."""
        if self.used:
            self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """What an exact continuation needs."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        if self.used:
            self._scaler.load_state_dict(state)


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Reduced precision for the operations inside, full precision with `dtype` None.

    Raises ConfigError where PyTorch has none on the device.
    """
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)
    if dtype is None:
        return nullcontext()
    raise ConfigError(
        f"TRAIN.AMP: PyTorch {torch.__version__} has no reduced precision on {device.type}; set it to 'off'"
    )


# By device. CPU: measured (docs/performance.md). CUDA: what PyTorch recommends for its tensor cores. MPS: its default.
CHANNELS_LAST = {"cpu": True, "cuda": True}


def memory_format(device: torch.device) -> torch.memory_format:
    """The order of a network's tensors that suits the device."""
    return torch.channels_last if CHANNELS_LAST.get(device.type) else torch.contiguous_format


def to_device(net: nn.Module, device: torch.device) -> nn.Module:
    """The network on its device, in the memory format that suits it."""
    return net.to(device).to(memory_format=memory_format(device))


def convert_sync_bn(net: SegmentationNetwork, device: torch.device) -> SegmentationNetwork:
    """The network with batch norms that take their statistics over all processes (TRAIN.SYNC_BN).

    Raises ConfigError where PyTorch cannot. In a single process they are plain ones.
    """
    if distributed.world_size() > 1 and device.type != "cuda":
        raise ConfigError(
            f"TRAIN.SYNC_BN: PyTorch synchronises batch norm on CUDA only, not on {device.type}; set it to false"
        )
    if any(type(part).__name__ == "BatchNormAct2d" for part in net.modules()):
        from timm.layers import convert_sync_batchnorm  # timm's own batch norms hold their activation

        return convert_sync_batchnorm(net)
    return nn.SyncBatchNorm.convert_sync_batchnorm(net)


def maybe_compile(net: nn.Module, train: TrainConfig, device: torch.device) -> nn.Module:
    """What to call instead of the network: itself, or with TRAIN.COMPILE its compiled form, which shares its weights.

    Raises ConfigError where compiling is impossible.
    """
    if not train.COMPILE:
        return net
    if device.type == "cpu" and not any(shutil.which(one) for one in (os.environ.get("CXX", "g++"), "clang++")):
        raise ConfigError(
            "TRAIN.COMPILE: on a CPU it needs a C++ compiler, g++ or clang++; install one, or leave it out"
        )
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise ConfigError("TRAIN.COMPILE: on CUDA it needs triton; pip install triton, or leave it out")
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"TRAIN.COMPILE: does not work on {device.type}; leave it out")
    return torch.compile(net)  # type: ignore[return-value]
