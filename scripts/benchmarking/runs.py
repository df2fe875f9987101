"""Benchmark runs: cells (a method's stage, with a seed) that each write one small results file.

A YAML file defines the benchmark (configs/benchmarks/camvid_modern.yml). A cell is a stage's config with overrides; it
names the cells that it starts from. A cell with a results file is not run again, also if another machine wrote it.
Several processes may run one benchmark: a cell that another process runs is waited for while there are other cells.
"""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, Strict, model_validator

from advent.build import evaluation_data
from advent.checkpoints.provenance import environment
from advent.checkpoints.run_dir import experiment_folder
from advent.config.files import TRAINERS
from advent.config.loading import default_config, flat, load_config, plain, without_effect
from advent.config.schema import Config
from advent.errors import ConfigError, FolderInUse, hint
from advent.evaluation.stage import ORACLE, Candidate, Scorer, evaluate_stage
from advent.runtime.device import device_facts, pick_device
from advent.runtime.lock import FolderLock
from advent.utils.paths import CONFIGS, find_yaml
from advent.utils.serialization import read_json, read_yaml, write_json
from advent.utils.validation import Many, YamlModel, validated
from ida.pipeline.label_quality import label_quality, ranking_quality
from ida.pipeline.lineage import check_finished
from ida.pipeline.run import run_stage
from ida.pipeline.stage import SCRIPTS, Stage

log = logging.getLogger(__name__)
# Keys that locate data and outputs, without effect on results.
ELSEWHERE = (*without_effect(), "DATA_DIRECTORY_SOURCE", "DATA_DIRECTORY_TARGET", "GEOMETRY_TARGET", "CLASSES.")
DEVELOPMENT = "development"  # the score for choices; curves are measured with it
SPENT = "spent.json"  # in a run directory: seconds of all starts of a cell's training
POLL = 5.0  # seconds between looks at cells that another process runs


class Run(YamlModel):
    """One stage of one method. `after` and `ranking` name the cells that it starts from.

    `source: target` trains on the target's labelled images: an upper bound. `scores`: scores of this cell alone, as
    those of the benchmark.
    """

    name: str
    label: str
    script: str
    cfg: str
    after: str | None = None
    ranking: str | None = None
    source: Literal["target"] | None = None
    set: Many[str] = ()
    scores: dict[str, dict[str, str]] = Field(default_factory=dict)

    @property
    def trains(self) -> bool:
        """Whether the cell writes snapshots that can be scored."""
        return self.script in TRAINERS


class TableSpec(YamlModel):
    """Table of the page: its rows (cells), and pairs of cells (a, b) whose difference a - b is reported per seed.

    `classes`: classes with a column of their own, in tables that do not show all.
    """

    name: str
    rows: Many[str] = ()
    differences: Many[Annotated[tuple[str, str], Strict(False)]] = ()
    classes: Many[str] = ()


class Roles(YamlModel):
    """Cells with a role in docs/data/summary.json."""

    source_only: str
    upper_bound: str
    best_chain: str


class DepthPart(YamlModel):
    """A use of depth: the cell that has it, and its controls (name -> cell), which have everything but the depth."""

    label: str
    cell: str
    controls: Annotated[dict[str, str], Field(min_length=1)]


class Curve(YamlModel):
    """A chain whose development score is measured over its work: `last` is its last cell."""

    label: str
    last: str


class Benchmark(YamlModel):
    """Benchmark definition: all cells in dependency order, seeds, tables.

    `scores`: further scores of each cell's last checkpoint, by name: config keys of the evaluation. `development` is
    the one for choices. `target`: the benchmark's key in docs/data/summary.json, with the `roles` of its cells and its
    `depth` parts; without it the benchmark is not part of the summary. `curves`: chains whose snapshots are all scored.
    """

    name: str
    results: Annotated[Path, Strict(False)]
    seeds: Annotated[Many[int], Field(min_length=1)]
    scores: dict[str, dict[str, str]] = Field(default_factory=dict)
    target: str | None = None
    roles: Roles | None = None
    depth: dict[str, DepthPart] = Field(default_factory=dict)
    curves: dict[str, Curve] = Field(default_factory=dict)
    cells: Annotated[Many[Run], Field(min_length=1)]
    tables: Annotated[Many[TableSpec], Field(min_length=1)]

    @model_validator(mode="after")
    def _known_cells(self) -> Benchmark:
        before: list[str] = []
        for run in self.cells:
            if run.script not in SCRIPTS:
                raise ValueError(f"cell {run.name}: {run.script} is not a stage script; use {', '.join(SCRIPTS)}")
            if run.name in before:
                raise ValueError(f"cell {run.name}: is defined twice")
            for role, name in (("after", run.after), ("ranking", run.ranking)):
                if name is not None and name not in before:
                    raise ValueError(f"cell {run.name}: {role}: no cell {name!r} before it")
            before.append(run.name)
        if (self.target is None) != (self.roles is None):
            raise ValueError("target and roles belong together: set both or none")
        if self.curves and DEVELOPMENT not in self.scores:
            raise ValueError(f"curves need a score named {DEVELOPMENT} under scores")
        for where, name in self._references():
            if name not in before:
                raise ValueError(f"{where}: there is no cell {name!r}; {hint(name, before)}")
        return self

    def _references(self) -> Iterator[tuple[str, str]]:
        """(place, cell name) wherever a cell is named outside the cells."""
        for table in self.tables:
            for name in (*table.rows, *(name for pair in table.differences for name in pair)):
                yield f"table {table.name}", name
        if self.roles is not None:
            for role, name in self.roles.model_dump().items():
                yield f"roles: {role}", name
        for part, depth in self.depth.items():
            for name in (depth.cell, *depth.controls.values()):
                yield f"depth: {part}", name
        for key, curve in self.curves.items():
            yield f"curves: {key}", curve.last

    @cached_property
    def by_name(self) -> dict[str, Run]:
        """Cells by name."""
        return {run.name: run for run in self.cells}

    def file(self, run: Run, seed: int) -> Path:
        """A cell's results file."""
        return self.results / f"seed{seed}" / f"{run.name}.json"

    def results_of(self, name: str, seeds: Sequence[int] | None = None) -> dict[int, dict[str, Any]]:
        """The available results of a cell, by seed. `seeds`: only these; by default all that exist."""
        if seeds is None:
            folders = (folder.name.removeprefix("seed") for folder in self.results.glob("seed*"))
            seeds = sorted(int(number) for number in folders if number.isdecimal())
        files = {seed: self.file(self.by_name[name], seed) for seed in seeds}
        return {seed: read_json(file) for seed, file in files.items() if file.is_file()}

    def chain(self, run: Run) -> list[Run]:
        """The cells that a cell depends on, in order, each once."""
        required: dict[str, Run] = {}
        for name in (run.after, run.ranking):
            if name:
                before = self.by_name[name]
                required |= {other.name: other for other in (*self.chain(before), before)}
        return list(required.values())

    def on_curve(self, run: Run) -> bool:
        """Whether all snapshots of the cell are scored, because a curve passes through it."""
        ends = [self.by_name[curve.last] for curve in self.curves.values()]
        return run.trains and any(run in (*self.chain(end), end) for end in ends)


def load_benchmark(path_or_name: str | Path) -> Benchmark:
    """Load a benchmark from a YAML file; its name is the file's. Raises ConfigError naming file and key."""
    path = find_yaml(path_or_name, "benchmarks")
    content = read_yaml(path)
    named = {"name": path.stem, **content} if isinstance(content, dict) else content
    return validated(Benchmark, named, path, "configs/benchmarks/camvid_modern.yml")


def benchmarks_with_targets() -> list[Benchmark]:
    """The shipped benchmarks that docs/data/summary.json is made of, by name."""
    files = sorted((CONFIGS / "benchmarks").glob("*.yml"))
    return [benchmark for benchmark in map(load_benchmark, files) if benchmark.target is not None]


def cell_stage(run: Run, seed: int, overrides: Sequence[str] = ()) -> Stage:
    """The cell's stage with one seed; its experiment folder is the config's EXP_NAME with the seed as suffix."""
    own = [f"STAGE.NAME={run.name}", f"TRAIN.RANDOM_SEED={seed}", f"EXP_SUFFIX=seed{seed}"]
    own += [f"STAGE.AFTER={run.after}"] if run.after else []
    own += [f"STAGE.RANKING={run.ranking}"] if run.ranking else []
    given = [*own, *run.set, *overrides]
    config = load_config(run.cfg, given)
    if run.source == "target":
        config.SOURCE, config.TRAIN.SET_SOURCE = config.TARGET, config.TRAIN.SET_TARGET
        config.DATA_DIRECTORY_SOURCE, config.DATA_LIST_SOURCE = config.DATA_DIRECTORY_TARGET, config.DATA_LIST_TARGET
    return Stage(run.name, run.script, config)


def settings(config: Config) -> dict[str, Any]:
    """Settings that a cell's result depends on: non-default config keys, without paths and evaluation options."""
    defaults = dict(flat(default_config()))
    sections = tuple(key for key in ELSEWHERE if key.endswith("."))
    return {
        key: value
        for key, value in flat(plain(config))
        if value != defaults.get(key) and key not in ELSEWHERE and not key.startswith(sections)
    }


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
        return record | _scores(stage, also, curve) | _labels(run, stage)


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
