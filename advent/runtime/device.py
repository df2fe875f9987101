"""Device selection, seeds, random states, TF32 and determinism settings."""

from __future__ import annotations

import logging
import os
import platform
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from advent.config.schema import Config
from advent.errors import DeviceError, first_line
from advent.runtime import distributed
from advent.runtime.memory import keep_freed_memory

log = logging.getLogger(__name__)


def pick_device(name: str = "auto") -> torch.device:
    """The device of `name`: `auto` selects CUDA, else Apple's MPS, else the CPU; other names are PyTorch's.

    With several processes, each uses the GPU of its local rank. Raises DeviceError if the device is not available.
    """
    if name == "auto":
        fallback = "mps" if torch.backends.mps.is_available() else "cpu"
        name = "cuda" if torch.cuda.is_available() else fallback
    if distributed.world_size() > 1 and name.startswith("cuda") and torch.cuda.is_available():
        return _own_gpu(name)
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = first_line(error, 120)
        raise DeviceError(f"--device {name}: not available here ({reason}); use --device auto or cpu") from None
    return device


def prepare_device(config: Config) -> torch.device:
    """The device of DEVICE, after applying TRAIN.TF32 and TRAIN.DETERMINISTIC; for training, ranking, evaluation."""
    device = pick_device(config.DEVICE)
    if device.type == "cpu":
        keep_freed_memory()
    set_deterministic(config.TRAIN.DETERMINISTIC)
    set_tf32(config.TRAIN.TF32)
    if device.type == "cuda" and config.TRAIN.AMP == "off" and _tf32_convolutions(device):
        log.info("TRAIN.AMP is off, but convolutions run in TF32 on this GPU (PyTorch's default); see TRAIN.TF32")
    return device


def set_tf32(mode: str) -> None:
    """Set TF32: `off`, `on`, or PyTorch's `default` (TF32 for convolutions on Ampere and later, float32 for matmul)."""
    torch.backends.cudnn.allow_tf32 = mode != "off"
    torch.backends.cuda.matmul.allow_tf32 = mode == "on"


def set_deterministic(deterministic: bool) -> None:
    """Switch PyTorch's deterministic algorithms on or off; it warns about an operation that has none on the device."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
        torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=True)


def device_facts(device: torch.device) -> dict[str, Any]:
    """Type and name of a device, and on CUDA whether convolutions and matrix products may run in TF32."""
    if device.type != "cuda":
        return {"type": device.type, "name": _processor()}
    tf32 = {"convolutions": _tf32_convolutions(device), "matmul": torch.backends.cuda.matmul.allow_tf32}
    return {"type": "cuda", "name": torch.cuda.get_device_name(device), "tf32": tf32}


def _tf32_convolutions(device: torch.device) -> bool:
    return bool(torch.backends.cudnn.allow_tf32) and torch.cuda.get_device_capability(device) >= (8, 0)


def _processor() -> str:
    """The processor's name, or its architecture if the system does not report a name."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _own_gpu(name: str) -> torch.device:
    """cuda:LOCAL_RANK, set as the current device, as NCCL requires."""
    if name != "cuda":
        raise DeviceError(f"--device {name}: one GPU cannot serve several processes; with torchrun use --device cuda")
    index, count = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if index >= count:
        raise DeviceError(
            f"{os.environ.get('LOCAL_WORLD_SIZE', 'several')} processes on a machine with {count} GPUs; use "
            f"torchrun --nproc_per_node={count}, or --device cpu"
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def seed_rank(seed: int) -> None:
    """Give every process except rank 0 its own seed; rank 0 draws the same numbers as a single process."""
    if distributed.rank():
        seed_everything(seed + 1_000_003 * distributed.rank(), torch.are_deterministic_algorithms_enabled())


def seed_everything(seed: int, deterministic: bool = False) -> None:
    """Seed Python's, NumPy's and PyTorch's generators (all devices).

    `deterministic` also enables PyTorch's deterministic algorithms; an operation without one runs with a warning. On
    the CPU, equal runs are bit-identical in any case.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    set_deterministic(deterministic)


def rng_state(device: torch.device) -> dict[str, torch.Tensor]:
    """State of PyTorch's random generators: the CPU's, and the device's if it has its own."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_rng_state(device: torch.device, states: dict[str, torch.Tensor]) -> None:
    """Restore `rng_state`; a device that has no stored state keeps its seed."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])
