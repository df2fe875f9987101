"""Stage 1, iterative self-learning (ISL): cross entropy on thresholded pseudo labels of the target, in rounds."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path
from typing import Any

from advent.build import target_data
from advent.checkpoints.io import state_digest
from advent.checkpoints.provenance import environment, names_digest, require_match
from advent.checkpoints.run_dir import RunDir, initial_checkpoint
from advent.config.schema import Config
from advent.errors import DataError
from advent.methods.steps import Method, supervised_step
from advent.runtime import distributed
from advent.training.stage import create_trainer, finish, is_resuming, resolve_seed, run_to_end
from advent.training.trainer import Trainer
from advent.utils.serialization import read_json, write_json
from ida.pseudo_labels import label_dataset, writes_depth

log = logging.getLogger(__name__)
RECORD = "complete.json"


def isl_method() -> Method:
    """ISL's step: supervised, on the pseudo labels."""
    return Method("ISL", supervised_step, include_last_iter=True, multi_level=True)


def isl_stage(config: Config, *, resume: bool = False, overwrite: bool = False) -> RunDir:
    """Train on pseudo labels of the target, regenerated before iterations 0, REFRESH + 1, 2 * REFRESH + 1, ..."""
    start = None if is_resuming(config, resume) else initial_checkpoint(config)
    target, with_depth = target_data(config), writes_depth(config, "ISL")
    resolve_seed(config, resume)
    method = isl_method()
    started = time.monotonic()
    with create_trainer(
        config, method, data={"target": target}, resume=resume, overwrite=overwrite, start=start
    ) as trainer:
        while not trainer.done:
            first, last = current_round(min(trainer.iteration, trainer.end - 1), config.ISL.REFRESH_EVERY)
            labels = pseudo_labels(trainer, target, first)
            labelled = target_data(config, label_dir=labels, with_pseudo_depth=with_depth)
            run_to_end(trainer, labelled, None, until=last, final=False)
        finish(trainer, time.monotonic() - started)
    return trainer.run_dir


def pseudo_labels(trainer: Trainer, target: Any, first: int) -> Path:
    """Folder of the pseudo labels for the round that begins at iteration `first`; generated if missing.

    Raises StaleInput if existing labels were made by another network than this run's.
    """
    folder = trainer.run_dir.path / "pseudo_labels" / f"round_{first}"
    if trainer.iteration == first:
        trainer.notes["labels_by"] = state_digest(trainer.learner.net)
        if first:
            trainer.checkpoint()  # saves the labelling network: an interrupted run regenerates the same labels
        record = label_record(trainer, target)
        if not distributed.broadcast_object(lambda: _made_by(folder, record)):
            relabel(trainer, target, folder)
    elif distributed.broadcast_object((folder / RECORD).is_file):
        made, check = read_json(folder / RECORD).get("weights", ""), trainer.config.STAGE.CHECK_PROVENANCE
        message = f"{folder}: was made by another network than this run's at iteration {first}"
        require_match(
            made,
            trainer.notes["labels_by"],
            message,
            "restore this run's labels, or start over with --overwrite",
            check,
        )
    else:
        log.warning(
            "%s: missing; regenerated with the current network, so this run differs from an uninterrupted one", folder
        )
        trainer.notes["labels_by"] = state_digest(trainer.learner.net)
        relabel(trainer, target, folder)
    return folder


def label_record(trainer: Trainer, target: Any) -> dict[str, Any]:
    """Provenance of pseudo labels: digests of the network's weights and image names, config, thresholds."""
    return {
        "weights": trainer.notes["labels_by"],
        "images": len(target),
        "names": names_digest(target.names),
        "config": trainer.digest,
        "threshold": trainer.config.ISL.THRESHOLD,
        "class_share": trainer.config.ISL.CLASS_SHARE,
    }


def _made_by(folder: Path, record: dict[str, Any]) -> bool:
    path = folder / RECORD
    return path.is_file() and record.items() <= read_json(path).items()


def current_round(iteration: int, refresh_every: int) -> tuple[int, int]:
    """(first iteration, first of the next round); the authors' code labels at 0, 10,001, 20,001, ... for 10,000."""
    index = max(0, iteration - 1) // refresh_every
    return (index * refresh_every + 1 if index else 0), (index + 1) * refresh_every + 1


def relabel(trainer: Trainer, target: Any, folder: Path) -> None:
    """Generate one round of pseudo labels with the current network.

    Each process writes its share to a temporary folder. Rank 0 clears the folder before, renames it when complete, and
    deletes older rounds.
    """
    unfinished = folder.with_name(folder.name + ".unfinished")
    _make_room(folder, unfinished)
    distributed.barrier()
    share = label_dataset(trainer.learner.net, target, trainer.config, trainer.learner.device, unfinished, folder.name)
    log.info("%s: %.1f %% of the pixels keep a label", folder, 100 * share)
    if share == 0:
        raise DataError(
            f"{folder}: no pixel reaches ISL.THRESHOLD {trainer.config.ISL.THRESHOLD}; lower it, or start "
            "from a better network"
        )
    record = {**label_record(trainer, target), **environment(), "iteration": trainer.iteration, "kept": share}
    _publish(unfinished, folder, record)
    distributed.barrier()


@distributed.main_only
def _make_room(folder: Path, unfinished: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    shutil.rmtree(unfinished, ignore_errors=True)


@distributed.main_only
def _publish(unfinished: Path, folder: Path, record: dict[str, Any]) -> None:
    write_json(unfinished / RECORD, record)
    unfinished.rename(folder)
    for other in folder.parent.glob("round_*"):
        if other != folder:
            shutil.rmtree(other)
