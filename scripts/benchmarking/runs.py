"""Benchmark runs: every cell, with a seed, writes one small results file.

A cell with a results file is not run again, also if another machine wrote it. Several processes may run one benchmark:
a cell that another process runs is waited for while there are other cells.
"""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from advent.build import evaluation_data
from advent.checkpoints.provenance import environment
from advent.checkpoints.run_dir import experiment_folder
from advent.errors import ConfigError, FolderInUse
from advent.evaluation.stage import ORACLE, Candidate, Scorer, evaluate_stage
from advent.methods.registry import find_network
from advent.runtime.device import device_facts, pick_device
from advent.runtime.lock import FolderLock
from advent.utils.serialization import read_json, write_json
from benchmarking.definition import DEVELOPMENT, Benchmark, Run, cell_stage, settings
from daf.depth_metrics import evaluate_depth
from ida.pipeline.label_quality import label_quality, ranking_quality
from ida.pipeline.lineage import check_finished
from ida.pipeline.run import run_stage
from ida.pipeline.stage import Stage

log = logging.getLogger(__name__)
SPENT = "spent.json"  # in a run directory: seconds of all starts of a cell's training
POLL = 5.0  # seconds between looks at cells that another process runs


def run_cells(benchmark: Benchmark, seeds: Sequence[int], names: Sequence[str], overrides: Sequence[str]) -> None:
    """Run every cell without results, cell by cell over all seeds, and write its results file when it is finished.

    Required cells without results are run and scored before. A required cell whose results exist but whose weights are
    missing is trained again, without evaluation. Cells that another process runs come last, when it is done with them.
    """
    runner = _Runner(benchmark, overrides)
    waiting = [(benchmark.by_name[name], seed) for name in names for seed in seeds]
    for run, seed in waiting:  # fails before hours of training
        if not runner.has_results(run, seed) and run.trains:
            for scored in (runner.stage(run, seed), *runner.also_scored(run, seed).values()):
                evaluation_data(scored.config)
    for run, seed in waiting:
        if runner.has_results(run, seed):
            log.info("seed %d, %s: its results exist, skipped", seed, run.name)
    while waiting:
        later = [(run, seed) for run, seed in waiting if not runner.run(run, seed)]
        if len(later) == len(waiting):  # another process works on every one of them
            _wait()
        waiting = later


def _wait() -> None:
    time.sleep(POLL)


class _Runner:
    """Runs the cells of a benchmark, each under a lock of its own."""

    def __init__(self, benchmark: Benchmark, overrides: Sequence[str]) -> None:
        self.benchmark, self.overrides = benchmark, overrides
        self._stages: dict[tuple[str, int], Stage] = {}
        self._announced: set[Path] = set()

    def stage(self, run: Run, seed: int) -> Stage:
        """The cell's stage; its config is loaded once."""
        key = run.name, seed
        if key not in self._stages:
            self._stages[key] = cell_stage(run, seed, self.overrides)
        return self._stages[key]

    def has_results(self, run: Run, seed: int) -> bool:
        """Whether the cell's results file exists. Raises ConfigError if it was made with other settings."""
        file = self.benchmark.file(run, seed)
        if not file.is_file():
            return False
        made, now = read_json(file).get("settings", {}), settings(self.stage(run, seed).config)
        differs = sorted(key for key in {**made, **now} if made.get(key) != now.get(key))
        if differs:
            raise ConfigError(
                f"{file}: was made with another {differs[0]} ({made.get(differs[0])}, now {now.get(differs[0])}); "
                "remove it to run the cell again, or use another results folder with --results DIR"
            )
        return True

    def run(self, run: Run, seed: int) -> bool:
        """Run a cell and the cells before it, as far as they are missing; False if another process runs one of them."""
        if self.has_results(run, seed):
            return True
        for before in self.benchmark.chain(run):
            done = self._train_again if self.has_results(before, seed) else self.run
            if not done(before, seed):
                return False
        with self._locked(run, seed) as ours:
            if not ours:
                return False
            if not self.has_results(run, seed):  # another process may have written them a moment ago
                log.info("seed %d, %s", seed, run.name)
                write_json(self.benchmark.file(run, seed), self._measured(run, seed))
        return True

    def _train_again(self, run: Run, seed: int) -> bool:
        """Train a cell whose weights are missing; False if another process does it."""
        stage = self.stage(run, seed)
        if check_finished(stage):
            return True
        with self._locked(run, seed) as ours:
            if ours:
                _run_if_needed(stage)
        return ours

    @contextmanager
    def _locked(self, run: Run, seed: int) -> Iterator[bool]:
        """Hold the cell's lock; yields False if another process holds it."""
        # Beside the run directory, whose own lock the training takes.
        lock = FolderLock(experiment_folder(self.stage(run, seed).config) / ".cells" / run.name)
        try:
            lock.acquire()
        except FolderInUse:
            if lock.path not in self._announced:
                log.info("seed %d, %s: another process runs it; other cells come first", seed, run.name)
            self._announced.add(lock.path)
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def also_scored(self, run: Run, seed: int) -> dict[str, Stage]:
        """The cell with the evaluation of each further score, in folders of their own."""
        stages = {}
        for name, keys in (self.benchmark.scores | run.scores).items():
            own = [*(f"{key}={value}" for key, value in keys.items()), f"STAGE.NAME={run.name}_{name}"]
            stages[name] = cell_stage(run, seed, [*self.overrides, *own])
        return stages

    def _measured(self, run: Run, seed: int) -> dict[str, Any]:
        stage = self.stage(run, seed)
        _run_if_needed(stage)
        file = stage.run_dir.path / SPENT
        spent = read_json(file) if file.is_file() else dict.fromkeys(("seconds", "core_seconds"))
        record = {
            "schema": 1,
            "cell": run.name,
            "seed": seed,
            "settings": settings(stage.config),
            **environment(),
            "processor": device_facts(pick_device(stage.config.DEVICE))["name"],
            "threads": torch.get_num_threads(),
            "command": _command(self.benchmark, run, seed),
            **spent,
        }
        if not stage.trains:
            return {**record, "ranking": ranking_quality(stage)}
        also = self.also_scored(run, seed)
        curve = self.benchmark.on_curve(run)
        return record | _scores(stage, also, curve) | self._depth(stage) | _labels(run, stage)

    def _depth(self, stage: Stage) -> dict[str, Any]:
        """Depth metrics of the last snapshot, if the benchmark asks for them and the network predicts depth."""
        scored = self.benchmark.depth_scores and find_network(stage.config).gives_depth
        return {"depth": evaluate_depth(stage.config)} if scored else {}


def _scores(stage: Stage, also: Mapping[str, Stage], curve: bool) -> dict[str, Any]:
    """Scores of a trained stage.

    last: the last snapshot. With TEST.MODE best also `oracle`, the best one, and `snapshots`, the mIoU of all. One
    entry for each of `also`. curve: [iterations done, development mIoU] of every snapshot.
    """
    results = evaluate_stage(stage.config)
    kept = ("iteration", "miou", "pixel_accuracy", "iou")
    record: dict[str, Any] = {"last": {key: results[-1][key] for key in kept}}
    if results[0]["selected"] == ORACLE:
        record["oracle"] = {key: results[0][key] for key in kept}
        record["snapshots"] = {str(row["iteration"]): row["miou"] for row in results if row["selected"] != ORACLE}
    snapshots = [(iteration + 1, Candidate(iteration, (path,))) for iteration, path in stage.run_dir.snapshots()]
    for name, scored in also.items():
        scorer = Scorer(scored.config)
        row = scorer.result(snapshots[-1][1])
        record[name] = {key: row[key] for key in ("miou", "iou")}
        if curve and name == DEVELOPMENT:
            record["curve"] = [[done, scorer.result(candidate)["miou"]] for done, candidate in snapshots]
    return record


def _labels(run: Run, stage: Stage) -> dict[str, Any]:
    return {"labels": label_quality(stage)} if run.script == "train_isl.py" else {}


def _run_if_needed(stage: Stage) -> None:
    """Train a stage that is not finished. Its time is added to that of earlier, interrupted starts in SPENT."""
    if check_finished(stage):
        return
    log.info("%s: %s", stage.name, stage.script)
    began, worked = time.monotonic(), _core_seconds()
    try:
        run_stage(stage)
    finally:
        file = stage.run_dir.path / SPENT
        before = read_json(file) if file.is_file() else {}
        now = {"seconds": time.monotonic() - began, "core_seconds": _core_seconds() - worked}
        if file.parent.is_dir():
            write_json(file, {key: round(before.get(key, 0) + value, 1) for key, value in now.items()})


def _core_seconds() -> float:
    """CPU seconds of this process and its finished workers; unlike wall time, independent of other load."""
    return sum(os.times()[:4])


def _command(benchmark: Benchmark, run: Run, seed: int) -> str:
    options = ["--benchmark", benchmark.name, "--seeds", str(seed), "--only", run.name]
    return shlex.join(["python", "scripts/benchmark.py", *options])
