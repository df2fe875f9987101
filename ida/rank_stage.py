"""Stage 2a, ranking: score every target image, write its pseudo label, split the target into easy and hard."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from advent.build import build_network, target_data
from advent.checkpoints.auto_precision import labelling_passes, settle_precision
from advent.checkpoints.io import digest
from advent.checkpoints.provenance import names_digest, provenance
from advent.checkpoints.run_dir import RunDir, initial_checkpoint
from advent.config.class_set import class_set
from advent.config.loading import config_digest, dump_config
from advent.config.schema import Config
from advent.dataset.classes import ClassSet
from advent.doctor.check import sanity_check
from advent.errors import ConfigError, MissingStage
from advent.evaluation.batch_norm import restore_statistics
from advent.methods.registry import find_network
from advent.model.outputs import NetworkOutputs
from advent.model.precision import to_device
from advent.runtime import distributed
from advent.runtime.device import prepare_device
from advent.runtime.lock import FolderLock
from advent.utils.serialization import write_text
from advent.utils.viz_segmask import colorize_mask
from advent.utils.writer import Writer
from ida.predictions import Predictions
from ida.pseudo_labels import find_threshold, pseudo_label, submit_depth, write_label, writes_depth
from ida.ranking import distance_scores, normaliser, random_score, ranking_scores, rare_classes, sort_by_score, split

EASY, HARD, MASKS = "easy_split.txt", "hard_split.txt", "color_masks"
DEPTH_MAPS = ("depth", "distance")  # values of RANK.MAP that need the network's depth


def rank_stage(config: Config, best_iter: int | None = None) -> RunDir:
    """Write `easy_split.txt`, `hard_split.txt`, `ranking.csv` and `color_masks/` into the stage's run directory.

    `best_iter` selects `model_{best_iter}.pth` of the previous stage instead of its last snapshot.
    """
    if config.RANK.MAP in DEPTH_MAPS and not find_network(config).gives_depth:
        raise ConfigError(
            f"MODEL.NAME: {config.MODEL.NAME} predicts no depth to rank by; use DeepLabv2_depth, or RANK.MAP=entropy"
        )
    writes_depth(config, "RANK")  # refuses a network without depth before anything is written
    classes = class_set(config)
    rare = rare_classes(config.RANK.NORMALIZE, classes)
    checkpoint = _checkpoint(config, best_iter)
    target = target_data(config)
    distributed.require_same(config=config_digest(config), images=names_digest(target.names))
    sanity_check({"target": target}, config.DATA_CHECK)
    split(((name, 0.0) for name in target.names), config.RANK.LAMBDA1)  # raises early if one half would be empty
    device = prepare_device(config)
    net = to_device(build_network(config, checkpoint), device)
    settle_precision(config, lambda: net, device, labelling_passes(config), start=checkpoint)
    restore_statistics(net, config, device)
    run_dir = RunDir.of(config)
    lock = FolderLock(run_dir.path).acquire()
    started = time.monotonic()
    try:
        _begin(config, run_dir, checkpoint, target)
        distributed.barrier()  # until rank 0 has prepared the run directory
        scores = _score_all(config, net, target, classes, rare, device, run_dir.path / MASKS)
        _finish(config, run_dir, scores, started)
    finally:
        lock.release()
    return run_dir


@distributed.main_only
def _begin(config: Config, run_dir: RunDir, checkpoint: Path, target: Any) -> None:
    (run_dir.path / "finished.json").unlink(missing_ok=True)
    run_dir.remove_leftovers()
    run_dir.write_header(dump_config(config), provenance(config, {"start": checkpoint}, {"target": target.names}))


@distributed.main_only
def _finish(config: Config, run_dir: RunDir, scores: list[tuple[str, float]], started: float) -> None:
    easy, hard = _write_split(run_dir.path, scores, config.RANK.LAMBDA1)
    splits = {file: digest(run_dir.path / file) for file in (EASY, HARD)}
    run_dir.mark_done(
        stage=config.STAGE.NAME,
        config=config_digest(config),
        easy=len(easy),
        hard=len(hard),
        **splits,
        seconds_of_last_start=round(time.monotonic() - started, 1),
    )


def _score_all(
    config: Config,
    net: nn.Module,
    target: Any,
    classes: ClassSet,
    rare: Sequence[int],
    device: torch.device,
    masks: Path,
) -> list[tuple[str, float]]:
    """(name, score) of every image; background threads write the pseudo labels, with RANK.PSEUDO_DEPTH also depth.

    The processes share the images; each returns the scores of all images, when its labels are written.
    """
    scores: list[tuple[str, float]] = []
    threshold, with_depth = None, writes_depth(config, "RANK")
    share = config.RANK.CLASS_SHARE if config.RANK.THRESHOLD else 0.0
    predictions = Predictions(net, target, config, device, again=share > 0)
    if config.RANK.THRESHOLD:
        threshold = find_threshold(predictions, "rank", config.RANK.THRESHOLD, share)
    write = partial(write_label, masks, colors=partial(colorize_mask, colors=classes.colors))
    with Writer() as writer:
        for names, prediction in predictions.read("rank"):
            labels = pseudo_label(prediction.main)
            plain = _scores(config, names, prediction)
            scores += [(n, s * normaliser(label, rare)) for n, s, label in zip(names, plain, labels, strict=True)]
            kept = labels if threshold is None else pseudo_label(prediction.main, threshold)
            for name, mask in zip(names, kept.cpu().numpy(), strict=True):
                writer.submit(write, name, mask)
            if with_depth:
                submit_depth(writer, masks, names, prediction)
    return [pair for part in distributed.all_gather(scores) for pair in part]


def _scores(config: Config, names: Sequence[str], prediction: NetworkOutputs) -> list[float]:
    if config.RANK.MAP == "random":
        return [random_score(name, config.TRAIN.RANDOM_SEED) for name in names]
    if config.RANK.MAP == "entropy":
        return ranking_scores(prediction.main, None)
    assert prediction.depth is not None, "rank_stage refuses a network without depth"
    if config.RANK.MAP == "distance":
        return distance_scores(prediction.main, prediction.depth)
    return ranking_scores(prediction.main, prediction.depth)


def _write_split(folder: Path, scores: list[tuple[str, float]], lambda1: float) -> tuple[list[str], list[str]]:
    easy, hard = split(scores, lambda1)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["name", "score", "rank", "half"])
    for position, (name, value) in enumerate(sort_by_score(scores)):
        writer.writerow([name, repr(value), position, "easy" if position < len(easy) else "hard"])
    write_text(folder / "ranking.csv", table.getvalue())
    for file, names in ((EASY, easy), (HARD, hard)):
        write_text(folder / file, "".join(f"{name}\n" for name in names))
    return easy, hard


def _checkpoint(config: Config, best_iter: int | None) -> Path:
    if best_iter is None:
        return initial_checkpoint(config)
    previous = RunDir.of(config, config.STAGE.AFTER)
    path = previous.path / f"model_{best_iter}.pth"
    if not path.is_file():
        available = ", ".join(str(iteration) for iteration, _ in previous.snapshots()) or "none"
        raise MissingStage(f"{path}: no such snapshot (available: {available}); choose another --best_iter")
    return path
