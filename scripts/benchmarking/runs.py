"""Benchmark runs: cells (a method's stage, with a seed) that each write one small results file.

A YAML file defines the benchmark (configs/benchmarks/camvid7.yml). A cell is a stage's config with overrides; it names
the cells that it starts from. A cell with a results file is not run again, also if another machine wrote it.
"""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from advent.build.data import evaluation_data
from advent.checkpoints.provenance import environment
from advent.config.loading import default_config, flat, load_config, plain, without_effect
from advent.config.schema import Config
from advent.errors import ConfigError, hint
from advent.evaluation.stage import ORACLE, evaluate_stage
from advent.utils.paths import find_yaml
from advent.utils.serialization import read_json, read_yaml, write_json
from advent.utils.yaml_schema import fits
from ida.pipeline.label_quality import label_quality, ranking_quality
from ida.pipeline.lineage import check_finished
from ida.pipeline.run import run_stage
from ida.pipeline.stage import SCRIPTS, Stage

log = logging.getLogger(__name__)
SHAPES: dict[str, Any] = {
    "results": str,
    "seeds": [int],
    "development": {str: str},
    "cells": [{str: (str, [str])}],
    "tables": [{str: (str, [str], [[str]])}],
}
CELL = {
    "name": str,
    "label": str,
    "script": str,
    "cfg": str,
    "after": str,
    "ranking": str,
    "source": str,
    "set": [str],
}
# Keys that locate data and outputs, without effect on results.
ELSEWHERE = (*without_effect(), "DATA_DIRECTORY_SOURCE", "DATA_DIRECTORY_TARGET", "GEOMETRY_TARGET", "CLASSES.")


@dataclass(frozen=True)
class Run:
    """One stage of one method. `after` and `ranking` name the cells that it starts from.

    `source: target` trains on the target's labelled images: an upper bound.
    """

    name: str
    label: str
    script: str
    cfg: str
    after: str | None = None
    ranking: str | None = None
    source: str | None = None
    set: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableSpec:
    """Table of the page: its rows (cells), and pairs of cells (a, b) whose difference a - b is reported per seed."""

    name: str
    rows: tuple[str, ...]
    differences: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Benchmark:
    """Benchmark definition: all cells in dependency order, seeds, tables."""

    path: Path
    results: Path
    seeds: tuple[int, ...]
    development: dict[str, str]
    cells: tuple[Run, ...]
    tables: tuple[TableSpec, ...]

    @cached_property
    def by_name(self) -> dict[str, Run]:
        """Cells by name."""
        return {run.name: run for run in self.cells}

    def file(self, run: Run, seed: int) -> Path:
        """A cell's results file."""
        return self.results / f"seed{seed}" / f"{run.name}.json"

    def found(self, name: str) -> dict[int, dict[str, Any]]:
        """The available results of a cell, by seed."""
        files = {seed: self.file(self.by_name[name], seed) for seed in self.seeds}
        return {seed: read_json(file) for seed, file in files.items() if file.is_file()}


def load_benchmark(path_or_name: str | Path) -> Benchmark:
    """Load a benchmark from a YAML file. Raises ConfigError naming file and key."""
    path = find_yaml(path_or_name, "benchmarks")
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: a benchmark is a mapping with the keys {', '.join(SHAPES)}")
    for key, value in raw.items():
        if key not in SHAPES:
            raise ConfigError(f"{path}: unknown key {key!r}; {hint(str(key), SHAPES)}")
        if not fits(value, SHAPES[key]):
            raise ConfigError(f"{path}: {key}: {str(value)[:80]!r} is not of the right form")
    missing = [key for key in SHAPES if key not in raw]
    if missing:
        raise ConfigError(f"{path}: the key {missing[0]!r} is missing")
    empty = [key for key in ("seeds", "cells", "tables") if not raw[key]]
    if empty:
        raise ConfigError(f"{path}: {empty[0]}: is empty; give at least one")
    cells: dict[str, Run] = {}
    for entry in raw["cells"]:
        run = _cell(path, entry, cells)
        cells[run.name] = run
    tables = tuple(_table(path, entry, cells) for entry in raw["tables"])
    return Benchmark(path, Path(raw["results"]), tuple(raw["seeds"]), raw["development"], tuple(cells.values()), tables)


def _cell(path: Path, entry: dict[str, Any], before: dict[str, Run]) -> Run:
    name = entry.get("name", "?")
    for key, value in entry.items():
        if key not in CELL or not fits(value, CELL[key]):
            raise ConfigError(f"{path}: cell {name}: {key}: {value!r} is not valid; {hint(str(key), CELL)}")
    missing = [key for key in ("name", "label", "script", "cfg") if key not in entry]
    if missing:
        raise ConfigError(f"{path}: cell {name}: the key {missing[0]!r} is missing")
    if name in before:
        raise ConfigError(f"{path}: cell {name}: is defined twice")
    if entry["script"] not in SCRIPTS:
        raise ConfigError(f"{path}: cell {name}: {entry['script']} is not a stage script; use {', '.join(SCRIPTS)}")
    if entry.get("source", "target") != "target":
        raise ConfigError(f"{path}: cell {name}: source: expected target or nothing, got {entry['source']!r}")
    for role in ("after", "ranking"):
        if role in entry and entry[role] not in before:
            raise ConfigError(f"{path}: cell {name}: {role}: no cell {entry[role]!r} before it")
    return Run(**{**entry, "set": tuple(entry.get("set", ()))})


def _table(path: Path, entry: dict[str, Any], cells: dict[str, Run]) -> TableSpec:
    if not fits(entry.get("name"), str) or not fits(entry.get("rows", []), [str]):
        raise ConfigError(f"{path}: tables: expected a name and a list of cells as rows, got {entry}")
    rows, listed = tuple(entry.get("rows", ())), entry.get("differences", [])
    if not fits(listed, [[str]]) or any(len(pair) != 2 for pair in listed):
        raise ConfigError(f"{path}: table {entry['name']}: differences: expected pairs [a, b], got {listed}")
    pairs = tuple((pair[0], pair[1]) for pair in listed)
    for name in [*rows, *[cell for pair in pairs for cell in pair]]:
        if name not in cells:
            raise ConfigError(f"{path}: table {entry.get('name')}: there is no cell {name!r}; {hint(name, cells)}")
    return TableSpec(entry["name"], rows, pairs)


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
        stage, on_clip = stages[run.name, seed], _on_dev_split(benchmark, run, seed, overrides)
        if not _is_there(benchmark, run, seed, stage) and stage.trains:
            for scored in (stage, on_clip):
                if scored is not None:
                    evaluation_data(scored.config)
    for seed, run in requested:
        if _is_there(benchmark, run, seed, stages[run.name, seed]):
            log.info("seed %d, %s: its results exist, skipped", seed, run.name)
            continue
        for before in _chain(benchmark, run):
            _run_if_needed(stages[before.name, seed])
        log.info("seed %d, %s", seed, run.name)
        on_clip = _on_dev_split(benchmark, run, seed, overrides)
        record = _measured(run, seed, stages[run.name, seed], on_clip)
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


def _measured(run: Run, seed: int, stage: Stage, on_clip: Stage | None) -> dict[str, Any]:
    began, worked = time.monotonic(), _cpu_seconds()
    _run_if_needed(stage)
    record = {
        "schema": 1,
        "cell": run.name,
        "seed": seed,
        "settings": settings(stage.config),
        **environment(),
        "threads": torch.get_num_threads(),
        "command": _command(run, seed),
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(_cpu_seconds() - worked, 1),
    }
    if not stage.trains:
        return {**record, "ranking": ranking_quality(stage)}
    results = evaluate_stage(stage.config)
    kept = ("iteration", "miou", "pixel_accuracy", "iou")
    record["last"] = {key: results[-1][key] for key in kept}
    record["oracle"] = {key: results[0][key] for key in kept} if results[0]["selected"] == ORACLE else record["last"]
    record["snapshots"] = {str(row["iteration"]): row["miou"] for row in results if row["selected"] != ORACLE}
    if on_clip is not None:
        on_clip.config.TEST.RESTORE_FROM = str(stage.run_dir.snapshots()[-1][1])
        chosen = evaluate_stage(on_clip.config)[-1]
        record["development"] = {key: chosen[key] for key in ("miou", "iou")}
    if run.script == "train_isl.py":
        record["labels"] = label_quality(stage)
    return record


def _on_dev_split(benchmark: Benchmark, run: Run, seed: int, overrides: Sequence[str]) -> Stage | None:
    """The cell evaluated on the development clip, in a folder of its own; None if the benchmark has no clip."""
    if not benchmark.development:
        return None
    clip = [f"{key}={value}" for key, value in benchmark.development.items()]
    stage = cell_stage(run, seed, [*overrides, *clip, f"STAGE.NAME={run.name}_development"])
    stage.config.TEST.MODE = "single"  # the checkpoint is set after training
    return stage


def _cpu_seconds() -> float:
    """CPU seconds of this process and its finished workers; unlike wall time, independent of other load."""
    return sum(os.times()[:4])


def _command(run: Run, seed: int) -> str:
    return shlex.join(["python", "scripts/benchmark.py", "--seeds", str(seed), "--only", run.name])
