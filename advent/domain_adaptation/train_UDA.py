"""ADVENT's training module: its entry point; the training stage is in advent/training/stage.py."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from easydict import EasyDict

from advent.checkpoints.auto_precision import settle_precision, training_passes
from advent.checkpoints.run_dir import RunDir
from advent.config.loading import as_config
from advent.config.schema import Config
from advent.dataset.loader import batch_to_device
from advent.methods.registry import find_method, find_network
from advent.training.learner import Learner
from advent.training.stage import finish, run_to_end, train_stage
from advent.training.trainer import Trainer

__all__ = ["finish", "run_to_end", "train_domain_adaptation", "train_stage"]

log = logging.getLogger(__name__)


def train_domain_adaptation(
    model: Any, trainloader: Iterable[Any], targetloader: Iterable[Any], cfg: Config | EasyDict
) -> None:
    """ADVENT's entry point: train `model` on loaders of (image, label, ...) and (image, ...) tuples.

    Snapshots are written to the config's run directory. A third entry of a source item is used as inverse depth if it
    is a floating-point tensor (three or four dimensions).
    """
    config = as_config(cfg)
    device = next(model.parameters()).device
    settle_precision(config, lambda: model, device, training_passes(config))
    learner = Learner(model, find_method(config), find_network(config).supervised, config.TRAIN, device)
    with Trainer(config, learner, RunDir.of(config)) as trainer:
        trainer.run(_endless(trainloader, device), _endless(targetloader, device))


def _endless(loader: Iterable[Any], device: torch.device) -> Iterator[dict[str, Any]]:
    while True:
        for item in loader:
            batch = {"image": item[0], "label": item[1]}
            if len(item) > 2 and isinstance(item[2], torch.Tensor) and item[2].is_floating_point():
                batch["depth"] = item[2]
            yield batch_to_device(batch, device)
