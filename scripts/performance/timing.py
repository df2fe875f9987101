"""Paired timing: variants alternate round by round in one process; median and quartiles. Also peak memory."""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of one variant: median, first and third quartile, and number of runs."""

    median: float
    low: float
    high: float
    runs: int


def wait_for(device: torch.device) -> None:
    """Wait until the device has finished its queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def alternate(variants: Mapping[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, Timing]:
    """Time the variants: one warm-up run each, then `rounds` rounds in alternation."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, work in variants.items():
            wait_for(device)
            began = time.perf_counter()
            work()
            wait_for(device)
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return {name: timing_of(values) for name, values in seconds.items()}


def peak_memory(work: Callable[[], object], device: torch.device) -> int | None:
    """Peak memory of `work` in bytes above the memory held before; None if the system does not report it."""
    gc.collect()
    if device.type == "cuda":
        held = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        wait_for(device)
        return torch.cuda.max_memory_allocated(device) - held
    clear = Path("/proc/self/clear_refs")
    if device.type != "cpu" or not clear.exists():
        return None
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # else freed pages of earlier work count as held
    clear.write_text("5")  # resets the kernel's high-water mark
    held = _status("VmRSS")
    work()
    return _status("VmHWM") - held


def _status(key: str) -> int:
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.partition(f"{key}:")[2].split()[0])


def timing_of(seconds: list[float]) -> Timing:
    """Median and quartiles of measured seconds."""
    median, low, high = np.percentile(seconds, (50, 25, 75))
    return Timing(float(median), float(low), float(high), len(seconds))
