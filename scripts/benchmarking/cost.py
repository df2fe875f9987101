"""Work units: what a training step of each cell costs, in steps of source only, and the work of cells and chains.

Seconds change with the processor, so rows are compared at equal work: iterations x cost of a step, summed over the
training cells of a chain. Scoring, ranking and rendering are not counted.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from advent.config.schema import Config
from advent.errors import ConfigError
from advent.runtime.device import device_facts
from advent.utils.serialization import read_json, write_json
from benchmarking.definition import Benchmark, Run, cell_stage, settings
from performance.cost import method_of, one_thread, stage_bench
from performance.timing import alternate

log = logging.getLogger(__name__)
FILE = "cost.json"
STEP = ["TRAIN.RESTORE_FROM=null", "TRAIN.AMP=off"]  # random weights, one precision
# Settings without effect on a step. A key that is missing here only costs another measurement.
NOT_OF_A_STEP = (
    *("SOURCE", "TARGET", "DATA_", "STAGE.", "ISL.", "RANK.", "TRAIN.RANDOM_SEED", "TRAIN.MAX_ITERS"),
    *("TRAIN.EARLY_STOP", "TRAIN.SAVE_", "TRAIN.KEEP", "TRAIN.LEARNING_RATE", "TRAIN.WARMUP", "TRAIN.LOG_EVERY"),
    *("TRAIN.RESTORE_", "TRAIN.RARE_CLASS_", "TRAIN.SET_", "AUGMENT.FLIP", "AUGMENT.SCALE"),
)


def write_costs(
    benchmark: Benchmark, names: Sequence[str] | None = None, rounds: int = 7, overrides: Sequence[str] = ()
) -> Path:
    """Measure the cost of each training cell's step, fp32 on one thread of the CPU; writes cost.json, returns its path.

    Each step alternates with the step of the benchmark's source-only cell, so that a processor that changes its speed
    meanwhile favours neither. Cells whose steps are the same are measured once. `names`: only these cells, added to
    the file, which then names every processor that they were measured on. Raises ConfigError for a benchmark without
    roles.
    """
    if benchmark.roles is None:
        raise ConfigError(f"{benchmark.name}: has no roles, so no cell is the unit of work; add target and roles")
    device, file = torch.device("cpu"), benchmark.results / FILE
    unit = benchmark.by_name[benchmark.roles.source_only]
    chosen = [run for run in benchmark.cells if run.trains and (names is None or run.name in names)]
    earlier: dict[str, Any] = {"steps": {}, "processor": ""}
    if names is not None and file.is_file():
        earlier = read_json(file)
    steps: dict[str, float] = earlier["steps"]
    measured: dict[str, float] = {_facts(unit, overrides): 1.0}
    base = stage_bench(_config(unit, overrides), unit.script, device)
    with one_thread():
        for run in chosen:
            facts = _facts(run, overrides)
            if facts not in measured:
                setup = stage_bench(_config(run, overrides), run.script, device)
                times = alternate({"base": base.step, "cell": setup.step}, rounds)
                measured[facts] = round(times["cell"].seconds / times["base"].seconds, 3)
                log.info("%s: %.2f s, %.2f source-only steps", run.name, times["cell"].seconds, measured[facts])
            steps[run.name] = measured[facts]
    processors = [*filter(None, earlier["processor"].split("; ")), device_facts(device)["name"]]
    record = {
        "schema": 1,
        "unit": f"a step of {unit.name}, fp32, one thread",
        "processor": "; ".join(dict.fromkeys(processors)),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "rounds": rounds,
        "steps": {run.name: steps[run.name] for run in benchmark.cells if run.name in steps},
    }
    return write_json(file, record)


def _config(run: Run, overrides: Sequence[str]) -> Config:
    return cell_stage(run, 1, [*STEP, *overrides]).config


def _facts(run: Run, overrides: Sequence[str]) -> str:
    """What the cost of the cell's step depends on, as text."""
    config = _config(run, overrides)
    kept = {key: value for key, value in settings(config).items() if not key.startswith(NOT_OF_A_STEP)}
    return json.dumps([run.script, kept], sort_keys=True)


class Work:
    """Work of a benchmark's cells by the costs in its results folder; None where a cost is not measured yet."""

    def __init__(self, benchmark: Benchmark) -> None:
        self.benchmark = benchmark

    @cached_property
    def costs(self) -> dict[str, float]:
        """Cell -> cost of its step in source-only steps."""
        file = self.benchmark.results / FILE
        return dict(read_json(file)["steps"]) if file.is_file() else {}

    def iterations(self, run: Run) -> int:
        """Iterations of a training cell."""
        config = cell_stage(run, self.benchmark.seeds[0]).config
        return config.TRAIN.EARLY_STOP + (1 if method_of(config, run.script).include_last_iter else 0)

    def of_cell(self, run: Run) -> float | None:
        """Work of one training cell, without the cells before it."""
        cost = self.costs.get(run.name)
        return None if cost is None else self.iterations(run) * cost

    def of_chain(self, run: Run) -> float | None:
        """Work of a training cell and of all training cells before it."""
        parts = [self.of_cell(other) for other in (*self.benchmark.chain(run), run) if other.trains]
        return None if None in parts else sum(part for part in parts if part is not None)
