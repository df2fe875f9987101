"""The batch that an iteration really learns from, over all processes: said, recorded, and kept when a run goes on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from advent.config.schema import Config
from advent.errors import ConfigError
from advent.runtime import distributed

log = logging.getLogger(__name__)


def effective_batch(config: Config, uses_target: bool = True) -> dict[str, Any]:
    """Processes, micro-batches, images of an iteration, and the rates, which nothing scales; said in the log."""
    train, processes = config.TRAIN, distributed.world_size()
    parts = processes * train.ACCUMULATE
    source = parts * train.BATCH_SIZE_SOURCE
    target = parts * train.BATCH_SIZE_TARGET if uses_target else 0
    log.info(
        "an iteration: %d source%s images (%d process%s x TRAIN.ACCUMULATE %d x batch %d); "
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
    """The config with TRAIN.ACCUMULATE as a run began with it, in `parts` (processes, ACCUMULATE).

    The rule for continuing on another number of processes: the product of both stays, and with it every batch. Raises
    ConfigError, naming the resume state at `path`, where it does not.
    """
    processes, accumulate = distributed.world_size(), config.TRAIN.ACCUMULATE
    if processes * accumulate != parts[0] * parts[1]:
        raise ConfigError(
            f"{path}: the run began with {parts[0]} processes x TRAIN.ACCUMULATE {parts[1]}, now it is {processes} x "
            f"{accumulate}, another batch; continue with processes x ACCUMULATE = {parts[0] * parts[1]}"
        )
    began = config.model_copy(deep=True)
    began.TRAIN.ACCUMULATE = parts[1]
    return began
