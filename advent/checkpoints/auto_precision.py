"""TRAIN.AMP: auto: the number format of a stage, kept from an earlier record or chosen on this machine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from advent.checkpoints.provenance import FILE, read_provenance
from advent.config.schema import Config, Precision
from advent.model.precision import AMP_DTYPES
from advent.model.precision_probe import Passes, fastest_precision
from advent.runtime import distributed

log = logging.getLogger(__name__)


def settle_precision(
    config: Config,
    network: Callable[[], nn.Module],
    device: torch.device,
    passes: Passes,
    *,
    resumed: Path | None = None,
    start: Path | None = None,
) -> None:
    """With TRAIN.AMP: auto, choose the stage's number format (`config.TRAIN.precision`) and log it with its reason.

    network: gives the network on `device`; called only to measure. A run that continues in the folder `resumed` keeps
    its format. Else TRAIN.DETERMINISTIC takes float32. Else the format of the stage that wrote the checkpoint `start`
    on the same type of device is kept. Else the fastest one is chosen. Rank 0 chooses for all processes.
    """
    if config.TRAIN.AMP != "auto":
        return

    def choose() -> Precision:
        if resumed is not None and (kept := recorded_precision(resumed)) is not None:
            return kept
        if config.TRAIN.DETERMINISTIC:
            return Precision("off", "TRAIN.DETERMINISTIC")
        if start is not None and (kept := recorded_precision(start.parent, device.type)) is not None:
            return kept
        return fastest_precision(network(), device, passes)

    config.TRAIN.precision = distributed.broadcast_object(choose)
    log.info("TRAIN.AMP: auto: %s (%s)", *config.TRAIN.precision)


def recorded_precision(folder: Path, device_type: str | None = None) -> Precision | None:
    """The format in a folder's provenance.json, if any; only one of the same `device_type`, if that is given.

    A graphics card's format may be very slow on a CPU.
    """
    record = read_provenance(folder) or {}
    chosen = record.get("precision", {}).get("format")
    if chosen not in AMP_DTYPES or device_type not in (None, record.get("device", {}).get("type")):
        return None
    return Precision(chosen, f"as in {folder / FILE}")


def training_passes(config: Config) -> Passes:
    """The passes of a training step on labelled images."""
    return Passes(config.TRAIN.BATCH_SIZE_SOURCE, config.AUGMENT.CROP or config.TRAIN.INPUT_SIZE_SOURCE, trains=True)


def labelling_passes(config: Config) -> Passes:
    """The passes of a ranking."""
    return Passes(config.TEST.BATCH_SIZE_TARGET, config.TRAIN.PREDICT_CROP or config.TRAIN.INPUT_SIZE_TARGET, False)


def scoring_passes(config: Config) -> Passes:
    """The passes of an evaluation."""
    return Passes(config.TEST.BATCH_SIZE_TARGET, config.TEST.CROP or config.TEST.INPUT_SIZE_TARGET, trains=False)
