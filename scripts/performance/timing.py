"""Paired timing: variants alternate round by round in one process; median and quartiles. Also peak memory."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.benchmark import timer

Row = dict[str, Any]


@dataclass(frozen=True)
class Timing:
    """Time of one variant: median, first and third quartile in seconds, and number of runs."""

    seconds: float
    low: float
    high: float
    runs: int


def row(label: str, timing: Timing | None = None, **fields: Any) -> Row:
    """One row of the results."""
    return {"what": label, **(dataclasses.asdict(timing) if timing is not None else {}), **fields}


def alternate(variants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    """Time the variants: one warm-up run each, then `rounds` rounds in alternation.

    The clock is that of torch.utils.benchmark, which waits for the accelerator. Its Timer is not used: it measures one
    variant after another, so a machine that slows down meanwhile would favour the first, and warms up at every call.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, work in variants.items():
            began = timer()
            work()
            ended = timer()
            if turn:
                seconds[name].append(ended - began)
    return {name: timing_of(values) for name, values in seconds.items()}


def peak_memory(work: Callable[[], object], device: torch.device) -> int | None:
    """Peak memory of `work` in bytes above the memory held before; None if the system does not report it."""
    gc.collect()
    if device.type == "cuda":
        held = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
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
    low, median, high = np.percentile(seconds, (25, 50, 75)).tolist()
    return Timing(median, low, high, len(seconds))
