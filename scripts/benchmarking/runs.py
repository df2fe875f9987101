"""Benchmark runs: cells (a method's stage, with a seed) that each write one small results file.

A YAML file defines the benchmark (configs/benchmarks/camvid7.yml). A cell is a stage's config with overrides; it names
the cells that it starts from. A cell with a results file is not run again, also if another machine wrote it.
"""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, Strict, model_validator

from advent.build import evaluation_data
from advent.checkpoints.provenance import environment
from advent.config.loading import default_config, flat, load_config, plain, without_effect
from advent.config.schema import Config
from advent.errors import ConfigError, hint
from advent.evaluation.stage import ORACLE, evaluate_stage
from advent.runtime.device import device_facts, pick_device
from advent.utils.paths import find_yaml
from advent.utils.serialization import read_json, read_yaml, write_json
from advent.utils.validation import Many, YamlModel, validated
from ida.pipeline.label_quality import label_quality, ranking_quality
from ida.pipeline.lineage import check_finished
from ida.pipeline.run import run_stage
from ida.pipeline.stage import SCRIPTS, Stage

log = logging.getLogger(__name__)
# Keys that locate data and outputs, without effect on results.
ELSEWHERE = (*without_effect(), "DATA_DIRECTORY_SOURCE", "DATA_DIRECTORY_TARGET", "GEOMETRY_TARGET", "CLASSES.")


class Run(YamlModel):
    """One stage of one method. `after` and `ranking` name the cells that it starts from.

    `source: target` trains on the target's labelled images: an upper bound.
    """

    name: str
    label: str
    script: str
    cfg: str
    after: str | None = None
    ranking: str | None = None
    source: Literal["target"] | None = None
    set: Many[str] = ()


class TableSpec(YamlModel):
    """Table of the page: its rows (cells), and pairs of cells (a, b) whose difference a - b is reported per seed."""

    name: str
    rows: Many[str] = ()
    differences: Many[Annotated[tuple[str, str], Strict(False)]] = ()


class Benchmark(YamlModel):
    """Benchmark definition: all cells in dependency order, seeds, tables.

    `scores`: further scores of each cell's last checkpoint, by name: config keys of the evaluation. `development` is
    the one for choices.
    """

    results: Annotated[Path, Strict(False)]
    seeds: Annotated[Many[int], Field(min_length=1)]
    scores: dict[str, dict[str, str]] = Field(default_factory=dict)
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
        for table in self.tables:
            for name in (*table.rows, *(name for pair in table.differences for name in pair)):
                if name not in before:
                    raise ValueError(f"table {table.name}: there is no cell {name!r}; {hint(name, before)}")
        return self

    @cached_property
    def by_name(self) -> dict[str, Run]:
        """Cells by name."""
        return {run.name: run for run in self.cells}

    def file(self, run: Run, seed: int) -> Path:
        """A cell's results file."""
        return self.results / f"seed{seed}" / f"{run.name}.json"

    def results_of(self, name: str) -> dict[int, dict[str, Any]]:
        """The available results of a cell, by seed."""
        files = {seed: self.file(self.by_name[name], seed) for seed in self.seeds}
        return {seed: read_json(file) for seed, file in files.items() if file.is_file()}


def load_benchmark(path_or_name: str | Path) -> Benchmark:
    """Load a benchmark from a YAML file. Raises ConfigError naming file and key."""
    path = find_yaml(path_or_name, "benchmarks")
    return validated(Benchmark, read_yaml(path), path, "configs/benchmarks/camvid7.yml")


def cell_stage(run: Run, seed: int, overrides: Sequence[str] = ()) -> Stage:
    """The cell's stage with one seed; its experiment folder is the config's EXP_NAME with the seed as suffix."""
    own = [f"STAGE.NAME={run.name}", f"TRAIN.RANDOM_SEED={seed}", f"EXP_SUFFIX=seed{seed}", "TEST.MODE=best"]
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
    """Run every cell without results, seed by seed, and write its results file when it is finished.

    A required cell whose results exist but whose weights are missing is trained again, without evaluation.
    """
    stages = {(run.name, seed): cell_stage(run, seed, overrides) for seed in seeds for run in benchmark.cells}
    requested = [(seed, benchmark.by_name[name]) for seed in seeds for name in names]
    for seed, run in requested:  # fails before hours of training
        stage = stages[run.name, seed]
        if not _is_there(benchmark, run, seed, stage) and stage.trains:
            for scored in (stage, *_also_scored(benchmark, run, seed, overrides).values()):
                evaluation_data(scored.config)
    for seed, run in requested:
        if _is_there(benchmark, run, seed, stages[run.name, seed]):
            log.info("seed %d, %s: its results exist, skipped", seed, run.name)
            continue
        for before in _chain(benchmark, run):
            _run_if_needed(stages[before.name, seed])
        log.info("seed %d, %s", seed, run.name)
        record = _measured(run, seed, stages[run.name, seed], _also_scored(benchmark, run, seed, overrides))
        write_json(benchmark.file(run, seed), record)


def _is_there(benchmark: Benchmark, run: Run, seed: int, stage: Stage) -> bool:
    file = benchmark.file(run, seed)
    if not file.is_file():
        return False
    made, now = read_json(file).get("settings", {}), settings(stage.config)
    differs = sorted(key for key in {**made, **now} if made.get(key) != now.get(key))
    if differs:
        raise ConfigError(
            f"{file}: was made with another {differs[0]} ({made.get(differs[0])}, now {now.get(differs[0])}); remove "
            "it to run the cell again, or use another results folder with --results DIR"
        )
    return True


def _chain(benchmark: Benchmark, run: Run) -> Iterator[Run]:
    """The cells that a cell depends on, in order."""
    for name in (run.after, run.ranking):
        if name:
            required = benchmark.by_name[name]
            yield from _chain(benchmark, required)
            yield required


def _run_if_needed(stage: Stage) -> None:
    if not check_finished(stage):
        log.info("%s: %s", stage.name, stage.script)
        run_stage(stage)


def _measured(run: Run, seed: int, stage: Stage, also: Mapping[str, Stage]) -> dict[str, Any]:
    began, worked = time.monotonic(), _core_seconds()
    _run_if_needed(stage)
    record = {
        "schema": 1,
        "cell": run.name,
        "seed": seed,
        "settings": settings(stage.config),
        **environment(),
        "processor": device_facts(pick_device(stage.config.DEVICE))["name"],
        "threads": torch.get_num_threads(),
        "command": _command(run, seed),
        "seconds": round(time.monotonic() - began, 1),
        "core_seconds": round(_core_seconds() - worked, 1),
    }
    if not stage.trains:
        return {**record, "ranking": ranking_quality(stage)}
    results = evaluate_stage(stage.config)
    kept = ("iteration", "miou", "pixel_accuracy", "iou")
    record["last"] = {key: results[-1][key] for key in kept}
    record["oracle"] = {key: results[0][key] for key in kept} if results[0]["selected"] == ORACLE else record["last"]
    record["snapshots"] = {str(row["iteration"]): row["miou"] for row in results if row["selected"] != ORACLE}
    for name, scored in also.items():
        scored.config.TEST.RESTORE_FROM = str(stage.run_dir.snapshots()[-1][1])
        row = evaluate_stage(scored.config)[-1]
        record[name] = {key: row[key] for key in ("miou", "iou")}
    if run.script == "train_isl.py":
        record["labels"] = label_quality(stage)
    return record


def _also_scored(benchmark: Benchmark, run: Run, seed: int, overrides: Sequence[str]) -> dict[str, Stage]:
    """The cell with the evaluation of each further score, in folders of their own."""
    stages = {}
    for name, keys in benchmark.scores.items():
        own = [*(f"{key}={value}" for key, value in keys.items()), f"STAGE.NAME={run.name}_{name}"]
        stage = cell_stage(run, seed, [*overrides, *own])
        stage.config.TEST.MODE = "single"  # the checkpoint is set after training
        stages[name] = stage
    return stages


def _core_seconds() -> float:
    """CPU seconds of this process and its finished workers; unlike wall time, independent of other load."""
    return sum(os.times()[:4])


def _command(run: Run, seed: int) -> str:
    return shlex.join(["python", "scripts/benchmark.py", "--seeds", str(seed), "--only", run.name])
