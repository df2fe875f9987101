"""Stage 0: adaptation from the labelled source to the unlabelled target, by any registered method."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from advent.domain_adaptation.eval_UDA import evaluation_hook
from advent.engine.board import pictures_view
from advent.engine.build import open_run, settle_seed, source_data, target_data
from advent.engine.learner import Learner
from advent.engine.loop import Loop
from advent.engine.registry import find_method, find_network
from advent.engine.runlog import StageFolder
from advent.engine.streams import stream, to_device

log = logging.getLogger(__name__)


def train_stage(config: Any, *, resume: bool = False, overwrite: bool = False) -> StageFolder:
    """Train TRAIN.DA_METHOD on SOURCE -> TARGET; leaves snapshots, metrics and config in the stage's folder."""
    method = find_method(config)
    source = source_data(config)
    target = target_data(config) if method.uses_target else None
    settle_seed(config, resume)
    data = {"source": source, **({"target": target} if target else {})}
    with open_run(config, method, data=data, resume=resume, overwrite=overwrite) as loop:
        run_to_end(loop, source, target)
    return loop.folder


def run_to_end(loop: Loop, source: Any, target: Any | None, until: int | None = None, final: bool = True) -> None:
    """Run a loop over two data sets from where it stands; with `final` also mark the stage as finished."""
    config, train, device = loop.config, loop.config.TRAIN, loop.learner.device
    started = time.monotonic()
    if train.EVAL_EVERY and not loop.hooks:
        loop.hooks.append(evaluation_hook(config, loop.learner.net, device))
    if train.TENSORBOARD and train.PICTURES_EVERY:
        loop.views = [pictures_view(config, loop.learner, source, target)]
    where = (config.NUM_WORKERS, device, loop.iteration, train.ACCUMULATE)
    batches_src = stream(source, train.BATCH_SIZE_SOURCE, train.RANDOM_SEED, *where)
    batches_trg = None
    if target is not None:
        seed_trg = train.RANDOM_SEED + 1  # or two sets of one size would be visited in one order
        batches_trg = stream(target, train.BATCH_SIZE_TARGET, seed_trg, *where)
    loop.run(batches_src, batches_trg, until)
    if final:
        finish(loop, time.monotonic() - started)


def finish(loop: Loop, seconds: float) -> None:
    """Mark a stage as complete."""
    snapshots = loop.folder.snapshots()
    waited = min(1.0, loop.waited / seconds) if seconds > 0 else 0.0
    loop.folder.finish(
        stage=loop.config.STAGE.NAME,
        iterations=loop.iteration,
        snapshot=snapshots[-1][1].name if snapshots else None,
        config=loop.digest,
        seconds_of_last_start=round(seconds, 1),
        waited_for_data=round(waited, 4),
    )
    log.info("%s: finished in %.0f s, %.1f %% of it waiting for data", loop.folder.path, seconds, 100 * waited)


def train_domain_adaptation(model: Any, trainloader: Iterable[Any], targetloader: Iterable[Any], cfg: Any) -> None:
    """ADVENT's entry point: train `model` on loaders of (image, label, ...) and (image, ...) tuples.

    Snapshots go to the config's stage folder. A third entry of four-dimensional or three-dimensional floats in a
    source item is taken for inverse depth.
    """
    device = next(model.parameters()).device
    learner = Learner(model, find_method(cfg), find_network(cfg).supervised, cfg.TRAIN, device)
    with Loop(cfg, learner, StageFolder.of(cfg)) as loop:
        loop.run(_endless(trainloader, device), _endless(targetloader, device))


def _endless(loader: Iterable[Any], device: torch.device) -> Iterator[dict[str, Any]]:
    while True:
        for item in loader:
            batch = {"image": item[0], "label": item[1]}
            if len(item) > 2 and isinstance(item[2], torch.Tensor) and item[2].is_floating_point():
                batch["depth"] = item[2]
            yield to_device(batch, device)
