"""Run one training stage: from config to snapshots."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from advent.build import (
    build_encoder,
    build_network,
    effective_batch,
    rare_class_sampler,
    source_data,
    target_data,
)
from advent.checkpoints.auto_precision import settle_precision, training_passes
from advent.checkpoints.loading import TORCHVISION_WEIGHTS, load_pretrained
from advent.checkpoints.provenance import names_digest, provenance, read_provenance
from advent.checkpoints.run_dir import RunDir, initial_checkpoint
from advent.config.loading import config_digest, dump_config
from advent.config.schema import Config
from advent.dataset.augment import Augmentation
from advent.dataset.base_dataset import StreetDataset
from advent.dataset.loader import infinite_batches
from advent.doctor.check import sanity_check
from advent.errors import ConfigError
from advent.evaluation.batch_norm import restore_statistics
from advent.evaluation.stage import evaluation_hook
from advent.methods.registry import find_method, find_network
from advent.methods.steps import Method
from advent.model.precision import to_device
from advent.runtime import distributed
from advent.runtime.device import prepare_device, seed_everything, seed_rank
from advent.training.learner import Learner
from advent.training.tensorboard import image_logger
from advent.training.trainer import Trainer

log = logging.getLogger(__name__)


def train_stage(config: Config, *, resume: bool = False, overwrite: bool = False) -> RunDir:
    """Train TRAIN.DA_METHOD on SOURCE -> TARGET; writes snapshots, metrics and config to the stage's run directory.

    With STAGE.AFTER it continues from that stage's last snapshot, with fresh optimizers.
    """
    method = find_method(config)
    source = source_data(config)
    target = target_data(config) if method.uses_target else None
    start = None
    if config.STAGE.AFTER and not is_resuming(config, resume):
        if config.TRAIN.RESTORE_FROM:
            raise ConfigError(
                f"STAGE.AFTER: {config.STAGE.AFTER} and TRAIN.RESTORE_FROM: {config.TRAIN.RESTORE_FROM} both name the "
                "weights to start from; set one of them to null"
            )
        start = initial_checkpoint(config)
    resolve_seed(config, resume)
    data = {"source": source, **({"target": target} if target else {})}
    with create_trainer(config, method, data=data, resume=resume, overwrite=overwrite, start=start) as trainer:
        run_to_end(trainer, source, target)
    return trainer.run_dir


def run_to_end(trainer: Trainer, source: Any, target: Any | None, until: int | None = None, final: bool = True) -> None:
    """Run a trainer from its current iteration over both data sets; `final` also marks the stage as finished."""
    config, train, device = trainer.config, trainer.config.TRAIN, trainer.learner.device
    started = time.monotonic()
    if train.EVAL_EVERY and not trainer.hooks:
        trainer.hooks.append(evaluation_hook(config, trainer.learner.scored, device))
    if train.TENSORBOARD and train.PICTURES_EVERY:
        trainer.image_loggers = [image_logger(config, trainer.learner, source, target)]
    batches_src = training_batches(config, source, "source", device, trainer.iteration)
    batches_trg = training_batches(config, target, "target", device, trainer.iteration) if target is not None else None
    trainer.run(batches_src, batches_trg, until)
    if final:
        finish(trainer, time.monotonic() - started)


def training_batches(
    config: Config, dataset: StreetDataset, domain: str, device: torch.device, start: int
) -> Iterator[dict[str, Any]]:
    """Infinite augmented batches of a domain, from iteration `start` on. `source` is a stage's labelled images."""
    train, is_source = config.TRAIN, domain == "source"
    # DAFormer wants 3000 pixels of an image of 1280x760 (0.31 %) and 1500 of a crop of 512x512 (0.57 %).
    augment = Augmentation(config.AUGMENT, train.RANDOM_SEED, domain, 2 * train.RARE_CLASS_SHARE)
    return infinite_batches(
        dataset,
        train.BATCH_SIZE_SOURCE if is_source else train.BATCH_SIZE_TARGET,
        # Another seed for the target: else two data sets of one size would be read in the same order.
        train.RANDOM_SEED if is_source else train.RANDOM_SEED + 1,
        config.NUM_WORKERS,
        device,
        start,
        train.ACCUMULATE,
        augment=augment if augment.used else None,
        choose=rare_class_sampler(config, dataset) if is_source else None,
    )


def finish(trainer: Trainer, seconds: float) -> None:
    """Mark a stage as finished: write its completion record and log the duration."""
    snapshots = trainer.run_dir.snapshots()
    waited = min(1.0, trainer.waited / seconds) if seconds > 0 else 0.0
    trainer.run_dir.mark_done(
        stage=trainer.config.STAGE.NAME,
        iterations=trainer.iteration,
        snapshot=snapshots[-1][1].name if snapshots else None,
        config=trainer.digest,
        seconds_of_last_start=round(seconds, 1),
        waited_for_data=round(waited, 4),
    )
    log.info("%s: finished in %.0f s, %.1f %% of it waiting for data", trainer.run_dir.path, seconds, 100 * waited)


def create_trainer(
    config: Config,
    method: Method,
    *,
    data: Mapping[str, StreetDataset],
    resume: bool,
    overwrite: bool,
    start: Path | None = None,
    inputs: Mapping[str, Path] | None = None,
) -> Trainer:
    """A seeded trainer of one stage: network, optimizers and locked run directory. All checks run before any write.

    `data`: role (source, target) -> data set. `start`: the trained checkpoint that a later stage starts from, with
    fresh optimizers; without it weights come from TRAIN.RESTORE_FROM (ImageNet) or are random. `inputs`: role ->
    further file to record in the provenance. A resumed run ignores `start` and `inputs`: its state is in its folder.
    """
    names = {role: dataset.names for role, dataset in data.items()}
    digests = {role: names_digest(image_names) for role, image_names in names.items()}
    distributed.require_same(config=config_digest(config), **{f"{role}'s images": d for role, d in digests.items()})
    sanity_check(data, config.DATA_CHECK)
    device = prepare_device(config)
    seed_everything(config.TRAIN.RANDOM_SEED, config.TRAIN.DETERMINISTIC)
    run_dir = RunDir.of(config)
    resumed, trained = is_resuming(config, resume), start is not None
    if resumed:
        net = find_network(config).build(config, build_encoder(config, weights=False))
    else:
        net = build_network(config, start)
        if not trained and config.TRAIN.RESTORE_FROM:
            load_pretrained(net, config.TRAIN.RESTORE_FROM, config.TRAIN.IMG_MEAN)
            start = None if config.TRAIN.RESTORE_FROM == TORCHVISION_WEIGHTS else Path(config.TRAIN.RESTORE_FROM)
    settle_precision(
        config,
        lambda: to_device(net, device),
        device,
        training_passes(config),
        resumed=run_dir.path if resumed else None,
        start=start,
    )
    if trained and not resumed:
        restore_statistics(net, config, device)
    learner = Learner(net, method, find_network(config).supervised, config.TRAIN, device)
    seed_rank(config.TRAIN.RANDOM_SEED)  # after the networks are built, so that all ranks start from the same weights
    trainer = Trainer(config, learner, run_dir, resume=resume, overwrite=overwrite, data=digests)
    if resumed:
        run_dir.record_resume(trainer.iteration, batch=effective_batch(config, method.uses_target))
    else:
        files = {**({"start": start} if start else {}), **(inputs or {})}
        record = {**provenance(config, files, names), "batch": effective_batch(config, method.uses_target)}
        run_dir.write_header(dump_config(config), record)
    return trainer


def is_resuming(config: Config, resume: bool) -> bool:
    """Whether `--resume` is given and the run directory holds a resume state."""
    return resume and RunDir.of(config).has_resume_state()


def resolve_seed(config: Config, resume: bool) -> None:
    """With TRAIN.RANDOM_TRAIN, replace the fixed seed by a random one (recorded); a resumed run keeps its seed."""
    if not config.TRAIN.RANDOM_TRAIN:
        return
    record = read_provenance(RunDir.of(config).path) if is_resuming(config, resume) else None
    drawn = distributed.broadcast_object(lambda: random.SystemRandom().randrange(2**31))
    config.TRAIN.RANDOM_SEED = record["seed"] if record else drawn
