"""Effective batch size over processes and accumulation: logged, recorded, and checked on resume."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from advent.config.schema import Config
from advent.errors import ConfigError
from advent.runtime import distributed

log = logging.getLogger(__name__)


def effective_batch(config: Config, uses_target: bool = True) -> dict[str, Any]:
    """Log and return processes, accumulation steps, images per iteration and learning rates (never scaled).

    `target_images` is 0 when the method does not use the target.
    """
    train, processes = config.TRAIN, distributed.world_size()
    parts = processes * train.ACCUMULATE
    source = parts * train.BATCH_SIZE_SOURCE
    target = parts * train.BATCH_SIZE_TARGET if uses_target else 0
    log.info(
        "effective batch: %d source%s images per iteration (%d process%s x TRAIN.ACCUMULATE %d x batch %d); "
        "TRAIN.LEARNING_RATE %g as configured, not scaled",
        source,
        f" + {target} target" if target else "",
        processes,
        "" if processes == 1 else "es",
        train.ACCUMULATE,
        train.BATCH_SIZE_SOURCE,
        train.LEARNING_RATE,
    )
    return {
        "processes": processes,
        "accumulate": train.ACCUMULATE,
        "source_images": source,
        "target_images": target,
        "learning_rate": train.LEARNING_RATE,
        "learning_rate_d": train.LEARNING_RATE_D,
        "sync_bn": train.SYNC_BN,
    }


def with_recorded_accumulation(config: Config, parts: tuple[int, int], path: Path) -> Any:
    """A copy of the config with the TRAIN.ACCUMULATE that the run started with; `parts`: its (processes, ACCUMULATE).

    A run may resume on another number of processes if processes x ACCUMULATE, and so every batch, stays the same.
    Raises ConfigError, naming the resume state at `path`, if the product differs.
    """
    processes, accumulate = distributed.world_size(), config.TRAIN.ACCUMULATE
    if processes * accumulate != parts[0] * parts[1]:
        raise ConfigError(
            f"{path}: the run started with {parts[0]} processes x TRAIN.ACCUMULATE {parts[1]}, now {processes} x "
            f"{accumulate}: a different effective batch; resume with processes x ACCUMULATE = {parts[0] * parts[1]}"
        )
    recorded = config.model_copy(deep=True)
    recorded.TRAIN.ACCUMULATE = parts[1]
    return recorded
