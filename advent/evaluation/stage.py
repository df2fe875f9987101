"""Evaluation stage: per-class IoU and mIoU of one checkpoint, an ensemble, the last snapshot, or every snapshot."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from advent.build import build_network, evaluation_data, target_data
from advent.checkpoints.auto_precision import scoring_passes, settle_precision
from advent.checkpoints.formats import open_checkpoint, warn_of_dilations
from advent.checkpoints.io import digest
from advent.checkpoints.provenance import environment, names_digest
from advent.checkpoints.run_dir import RunDir
from advent.config.class_set import class_set
from advent.config.loading import config_digest, plain
from advent.config.schema import Config
from advent.dataset.base_dataset import StreetDataset
from advent.doctor.check import sanity_check
from advent.errors import ConfigError, MissingStage, NotFinite
from advent.evaluation.batch_norm import TargetStatistics, applied_or_own
from advent.evaluation.evaluate import OnPrediction, confusion, mean_entropy, native_size, score
from advent.evaluation.predictor import Crops, Predictor
from advent.evaluation.results import PredictionFolder, summary, write_results
from advent.evaluation.score_key import setting_digest
from advent.model.precision import maybe_compile, to_device
from advent.runtime import distributed
from advent.runtime.device import device_facts, prepare_device
from advent.utils.paths import shipped_file
from advent.utils.serialization import read_json, write_json
from advent.utils.writer import Writer

log = logging.getLogger(__name__)
ORACLE = "best (oracle)"  # selected by its score on the labels that it is reported on
LABEL_FREE = "least entropy (no labels)"
CACHE = "scores.json"
WAIT_SECONDS = 30.0
OF_A_MACHINE = ("DEVICE", "NUM_WORKERS", "DATA_ROOT", "DATA_CACHE")  # config keys that may differ between machines


@dataclass(frozen=True)
class Candidate:
    """A model to score: a snapshot of an iteration, another checkpoint file, or an ensemble of files."""

    iteration: int | None
    files: tuple[Path, ...]
    weights: tuple[float, ...] = ()

    def __str__(self) -> str:
        return " + ".join(map(str, self.files))

    @property
    def sha256(self) -> str:
        """SHA-256 of the file; of an ensemble, the digests joined by `+`."""
        return "+".join(digest(file) for file in self.files)


def evaluate_stage(config: Config) -> list[dict[str, Any]]:
    """Score the TEST candidates on the target's labelled set; writes `results.json`, `.md`, `.csv`, `.tex`.

    TEST.MODE `single` scores TEST.RESTORE_FROM or TEST.ENSEMBLE, `last` the last snapshot, `best` all snapshots. The
    best one is marked as an oracle selection, since it is selected on the labels that it is scored on. TEST.SELECT
    `entropy` adds the snapshot that is selected without labels. Returns the results; the last snapshot is last.

    TEST.SAVE_PREDS stores the predictions of one candidate: with `best`, of the oracle selection.
    """
    scorer, models = Scorer(config), candidates(config)
    best = config.TEST.MODE == "best"
    results = [scorer.result(candidate, save=not best) for candidate in models]
    for result in results:
        result["selected"] = config.TEST.MODE if config.TEST.MODE == "single" else "snapshot"
    if config.TEST.MODE != "single":
        results[-1]["selected"] = "last"
    if best:
        oracle = max(range(len(results)), key=lambda index: results[index]["miou"])
        if config.TEST.SAVE_PREDS:  # the candidate whose predictions are stored is known only now
            scorer.result(models[oracle], save=True)
        selected = [results[oracle] | {"selected": ORACLE}]
        if config.TEST.SELECT == "entropy":
            selected.append(min(results, key=lambda result: result["entropy"]) | {"selected": LABEL_FREE})
        results = [*selected, *results]
    write_results(RunDir.of(config).path, scorer.record(results))
    return results


def predict_stage(config: Config) -> Path:
    """Write predictions of unlabelled images to TEST.SAVE_PREDS, without scores; returns the folder."""
    if config.TEST.MODE == "best":
        raise ConfigError(
            "TEST.MODE: best selects by scores on labels, and --no-labels has none; set it to last, or name a snapshot "
            "with TEST.MODE=single TEST.RESTORE_FROM=FILE"
        )
    assert config.TEST.SAVE_PREDS is not None, "the command line asks for a folder"
    scorer = Scorer(config, labelled=False)
    scorer.result(candidates(config)[-1], save=True)
    return Path(config.TEST.SAVE_PREDS)


class Scorer:
    """Scores candidates on one data set with one config; caches scores by everything that they depend on."""

    def __init__(self, config: Config, labelled: bool = True) -> None:
        self.config, self.device, self.classes = config, prepare_device(config), class_set(config)
        self.dataset: StreetDataset = evaluation_data(config, labelled)
        distributed.require_same(config=config_digest(config, OF_A_MACHINE), images=names_digest(self.dataset.names))
        sanity_check({"target": self.dataset}, config.DATA_CHECK)
        self.statistics = TargetStatistics.for_scoring(config, self.dataset)
        if self.statistics is not None:
            distributed.require_same(**{"target's training images": names_digest(self.statistics.dataset.names)})
        self.cache = RunDir.of(config).path / CACHE
        self._settled = False

    def result(self, candidate: Candidate, save: bool = False) -> dict[str, Any]:
        """The scores of one candidate, from the cache if everything that they depend on is unchanged.

        `save` also writes its predictions to TEST.SAVE_PREDS, if set; the cache is then not used.
        """
        self._settle(candidate.files[0])
        sha256 = candidate.sha256
        head = {"iteration": candidate.iteration, "snapshot": str(candidate), "sha256": sha256}
        key = self._key(sha256, candidate.weights)
        cached = distributed.broadcast_object(lambda: read_json(self.cache) if self.cache.is_file() else {})
        save = save and bool(self.config.TEST.SAVE_PREDS)
        if key not in cached or save:
            cached[key] = self._score(candidate, save)
            if self.dataset.label_files is not None and distributed.is_main():
                write_json(self.cache, cached)
        elif candidate.iteration is None:  # loading is skipped for a cached score, but its warning is not
            for file in candidate.files:
                warn_of_dilations(file, open_checkpoint(file), self.config.MODEL.DILATIONS)
        return head | cached[key]

    def record(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """The record of the results schema: experiment, data set, code, config and results."""
        config = self.config
        return {
            "schema": 1,
            "experiment": config.EXP_NAME,
            "stage": config.STAGE.NAME,
            "seed": config.TRAIN.RANDOM_SEED,
            "target": config.TARGET,
            "set": config.TEST.SET_TARGET,
            "images": len(self.dataset),
            **environment(),
            "names": names_digest(self.dataset.names),
            "config": config_digest(config),
            "test": plain(config.TEST),
            "device": device_facts(self.device),
            "precision": config.TRAIN.precision._asdict(),
            "results": results,
        }

    def _score(self, candidate: Candidate, save: bool) -> dict[str, Any]:
        config, test = self.config, self.config.TEST
        nets = [maybe_compile(self.network(file), config.TRAIN, self.device) for file in candidate.files]
        crops = Crops.of(test.CROP, test.STRIDE)
        predictor = Predictor(
            nets, candidate.weights, amp=config.TRAIN.precision.format, flip=test.FLIP, scales=test.SCALES, crops=crops
        )
        options = {"batch_size": test.BATCH_SIZE_TARGET, "workers": config.NUM_WORKERS}
        name = candidate.files[0].name
        with Writer() as writer:
            on_prediction = self._on_prediction(candidate, writer) if save else None
            hist = score(predictor, self.dataset, self.device, what=name, on_prediction=on_prediction, **options)
        scores = summary(hist, self.classes)
        if self._unlabelled is not None:
            label = f"{name} entropy"
            scores["entropy"] = mean_entropy(
                predictor, self._unlabelled, self.device, images=test.SELECT_IMAGES, what=label, **options
            )
        if self.statistics is not None:
            scores["batch_norm"] = self.statistics.record()
        return scores

    def network(self, file: Path) -> nn.Module:
        """The network that is scored for a checkpoint, with the batch-norm statistics of TEST.BN_STATISTICS."""
        self._settle(file)
        net = to_device(build_network(self.config, file), self.device)
        if self.statistics is not None:
            self.statistics.apply(net, file, self.device)
        return net

    def _settle(self, file: Path) -> None:
        """Choose the number format of TRAIN.AMP: auto by the first checkpoint; scores depend on it, cached ones too."""
        if not self._settled:
            settle_precision(
                self.config,
                lambda: to_device(build_network(self.config, file), self.device),
                self.device,
                scoring_passes(self.config),
                start=file,
            )
        self._settled = True

    def _on_prediction(self, candidate: Candidate, writer: Writer) -> OnPrediction:
        """A function that lets `writer` store each prediction in TEST.SAVE_PREDS."""
        assert self.config.TEST.SAVE_PREDS is not None
        folder = PredictionFolder(Path(self.config.TEST.SAVE_PREDS), self.dataset)
        log.info("%s: writing the predictions of %s", folder.folder, candidate)
        return lambda name, ids: writer.submit(folder.write, name, ids, native_size(self.dataset, name))

    @cached_property
    def _unlabelled(self) -> StreetDataset | None:
        """The target's training images, if TEST.SELECT is `entropy`, else None."""
        by_entropy = self.config.TEST.SELECT == "entropy"
        return target_data(self.config, size=self.config.TEST.INPUT_SIZE_TARGET) if by_entropy else None

    @cached_property
    def _setting(self) -> str:
        """Digest of everything but the checkpoint that a score depends on; rank 0's, which writes the cache."""
        on_train = self.statistics.dataset if self.statistics is not None else self._unlabelled
        datasets = [self.dataset, *([on_train] if on_train is not None else [])]
        return distributed.broadcast_object(lambda: setting_digest(self.config, self.device, datasets))

    def _key(self, sha256: str, weights: Sequence[float]) -> str:
        facts = {"checkpoint": sha256, "weights": list(weights), "setting": self._setting}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def evaluation_hook(config: Config, net: nn.Module, device: torch.device) -> Callable[[int], dict[str, float]]:
    """A trainer hook that scores the network every TRAIN.EVAL_EVERY iterations.

    Its values, in percent, are `test_miou` and `test_iou/<class>` for every class that occurs. If the network's outputs
    are not finite, it logs a warning and returns no values. TEST.CROP and TEST.BN_STATISTICS apply; afterwards the
    network has its own statistics again.
    """
    dataset, classes = evaluation_data(config), class_set(config)
    statistics = TargetStatistics.for_scoring(config, dataset)
    crops = Crops.of(config.TEST.CROP, config.TEST.STRIDE)
    amp = config.TRAIN.precision.format
    measure = partial(confusion, net, dataset, device, workers=0, amp=amp, crops=crops)

    def hook(iteration: int) -> dict[str, float]:
        if (iteration + 1) % config.TRAIN.EVAL_EVERY:
            return {}
        try:
            with applied_or_own(statistics, net, device):
                scores = summary(measure(), classes)
        except NotFinite as error:  # an early network may overflow in float16; training itself checks the losses
            log.warning("iteration %d is not evaluated: %s", iteration, error)
            return {}
        ious = {f"test_iou/{name}": value for name, value in scores["iou"].items() if value is not None}
        return {"test_miou": scores["miou"], **ious}

    return hook


def candidates(config: Config) -> list[Candidate]:
    """The candidates that TEST selects; the last snapshot is last. Raises MissingStage if there is none."""
    if config.TEST.WAIT_MODEL and not config.TEST.ENSEMBLE and not config.TEST.RESTORE_FROM:
        _wait_for(RunDir.of(config))
    return distributed.broadcast_object(lambda: _candidates(config))


def _wait_for(run_dir: RunDir) -> None:
    """Wait until a stage is finished. All processes sleep, since one that waits for a message would time out."""
    while not distributed.broadcast_object(lambda: run_dir.done_record() is not None):
        log.info("%s: TEST.WAIT_MODEL is set and the stage is not finished; waiting", run_dir.path)
        time.sleep(WAIT_SECONDS)


def _candidates(config: Config) -> list[Candidate]:
    test, run_dir = config.TEST, RunDir.of(config)
    if test.ENSEMBLE:
        return [Candidate(None, tuple(map(shipped_file, test.ENSEMBLE)), tuple(test.WEIGHTS))]
    if test.RESTORE_FROM:
        return [Candidate(None, (shipped_file(test.RESTORE_FROM),))]
    snapshots = run_dir.snapshots()
    if not snapshots:
        raise MissingStage(
            f"{run_dir.path}: no snapshot to test. Run its training first, with the same --cfg and "
            "--exp-root, or name a checkpoint: TEST.RESTORE_FROM=FILE"
        )
    selected = snapshots if test.MODE == "best" else snapshots[-1:]
    return [Candidate(iteration, (path,)) for iteration, path in selected]
