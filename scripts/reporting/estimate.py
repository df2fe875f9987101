"""Cost estimate of a pipeline from a few measured steps (iterations, disk, time, memory), and its missing inputs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from advent.build import evaluation_data, source_data, target_data
from advent.checkpoints.auto_precision import settle_precision, training_passes
from advent.checkpoints.loading import TORCHVISION_WEIGHTS
from advent.config.schema import Config
from advent.dataset.spec import load_spec
from advent.errors import UserError
from advent.methods.registry import find_method, find_network
from advent.methods.steps import Method, supervised_step
from advent.model.precision import to_device
from advent.runtime.device import pick_device
from advent.training.learner import Learner
from advent.utils.tables import markdown_table
from ida.intra import intra_method
from ida.pipeline.stage import Stage
from performance.networks import batch, random_network
from performance.timing import alternate


@dataclass(frozen=True)
class Needs:
    """Estimated cost of one stage: `disk` and `memory` in bytes; `seconds` is None if the images are missing."""

    stage: str
    iterations: int
    snapshots: int
    disk: int
    seconds: float | None
    memory: int


def check_inputs(stages: Sequence[Stage]) -> list[str]:
    """Status lines of the inputs: data sets and starting weights; a missing one starts with `missing: `."""
    first, lines = stages[0].config, []
    for role, load, split in (
        ("source", source_data, first.TRAIN.SET_SOURCE),
        ("target", target_data, first.TRAIN.SET_TARGET),
        ("target's labels", evaluation_data, first.TEST.SET_TARGET),
    ):
        name = first.SOURCE if role == "source" else first.TARGET
        try:
            count = len(load(first))
        except UserError as error:
            lines.append(f"missing: {role} {name}: {error}")
            continue
        expected = (load_spec(name).counts or {}).get(split)
        odd = f"; the published set has {expected:,}" if expected and expected != count else ""
        lines.append(f"{role} {name}, {split}: {count:,} images{odd}")
    return [*lines, _start(first)]


def _start(config: Config) -> str:
    start = config.TRAIN.RESTORE_FROM
    if start is None:
        return "starting weights: none, random initialisation (the paper starts from ImageNet)"
    if start == TORCHVISION_WEIGHTS:
        return "starting weights: torchvision's ImageNet ResNet-101 (the paper uses ADVENT's file)"
    if not Path(start).is_file():
        return f"missing: starting weights {start}; or daf:TRAIN.RESTORE_FROM=torchvision for another ImageNet start"
    return f"starting weights: {start}"


def measure(stages: Sequence[Stage], steps: int = 2) -> list[Needs]:
    """Measure every stage: median of `steps` training steps after one warm-up step, and of a prediction."""
    return [_measure(stage, steps) for stage in stages]


def _measure(stage: Stage, steps: int) -> Needs:
    config, train = stage.config, stage.config.TRAIN
    device = pick_device(config.DEVICE)
    net = random_network(config)
    forward = _time(lambda: _predict(to_device(net, device).eval(), config, device), steps)
    labelled = _count(target_data, config)
    if not stage.trains:
        return Needs(stage.name, 0, 0, 0, None if labelled is None else labelled * forward, _memory(device))
    method = _method(stage)
    settle_precision(config, lambda: to_device(net, device), device, training_passes(config))
    learner = Learner(net, method, find_network(config).supervised, train, device)
    isl = stage.script == "train_isl.py"  # trains on the target only
    labelled_size = train.INPUT_SIZE_TARGET if isl else train.INPUT_SIZE_SOURCE
    batches = (
        batch(config, labelled_size, train.BATCH_SIZE_SOURCE, device),
        batch(config, train.INPUT_SIZE_TARGET, train.BATCH_SIZE_TARGET, device),
    )
    step = _time(lambda: learner.update(0, *batches), steps)
    iterations = train.EARLY_STOP + (1 if method.include_last_iter else 0)
    snapshots = (iterations - 1) // train.SAVE_PRED_EVERY + (1 if train.SAVE_LAST else 0)
    kept = min(snapshots, train.KEEP) if train.KEEP else snapshots
    weights = sum(tensor.nbytes for tensor in net.state_dict().values())
    state = 2 * weights + 3 * sum(tensor.nbytes for tensor in learner.context.discriminators.state_dict().values())
    seconds: float | None = iterations * train.ACCUMULATE * step
    scored = _count(evaluation_data, config)
    if scored is not None and seconds is not None:
        seconds += scored * forward * (snapshots if config.TEST.MODE == "best" else 1)
    if isl:
        rounds = -(-iterations // config.ISL.REFRESH_EVERY)
        seconds = None if labelled is None or seconds is None else seconds + rounds * labelled * forward
    return Needs(stage.name, iterations, snapshots, kept * weights + state, seconds, _memory(device))


def _method(stage: Stage) -> Method:
    if stage.script == "train_isl.py":
        return Method("ISL", supervised_step, include_last_iter=True, multi_level=True)
    return intra_method(stage.config) if stage.script == "train_intra.py" else find_method(stage.config)


@torch.inference_mode()
def _predict(net: torch.nn.Module, config: Config, device: torch.device) -> None:
    width, height = config.TEST.INPUT_SIZE_TARGET
    net(torch.zeros(1, 3, height, width, device=device))


def _time(work: Callable[[], object], steps: int) -> float:
    """Median seconds of `work` over `steps` runs, after one warm-up run."""
    return alternate({"work": work}, steps)["work"].seconds


def _count(load: Any, config: Config) -> int | None:
    try:
        return len(load(config))
    except UserError:
        return None


def _memory(device: torch.device) -> int:
    """Peak memory in bytes so far: of the device, or on a CPU of this process (never decreases between stages)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # not a POSIX system
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def plan_table(needs: Sequence[Needs], seeds: int) -> str:
    """The plan as a Markdown table, with the total over stages and seeds."""
    rows = [
        [n.stage, f"{n.iterations:,}", f"{n.snapshots}", _size(n.disk), _hours(n.seconds), _size(n.memory)]
        for n in needs
    ]
    known = [n.seconds for n in needs if n.seconds is not None]
    total = sum(known) * seeds
    least = "" if len(known) == len(needs) else ">= "
    disk = sum(n.disk for n in needs) * seeds
    total_label = f"all, {seeds} seeds" if seeds > 1 else "all"
    iterations = sum(n.iterations for n in needs) * seeds
    snapshots = sum(n.snapshots for n in needs) * seeds
    peak = max(n.memory for n in needs)
    rows.append([total_label, f"{iterations:,}", f"{snapshots}", _size(disk), least + _hours(total), _size(peak)])
    return markdown_table(["stage", "iterations", "snapshots", "disk", "time", "peak memory"], rows)


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**28 else f"{count / 2**20:.0f} MiB"


def _hours(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
