"""Pipeline runner: runs all stages of a protocol in order, skips finished ones, writes one results file and one table.

Command: `scripts/pipeline.py`. A protocol file lists its stages under STAGES. Each stage has its own config and run
directory, so it can also be run alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from advent.build import evaluation_data
from advent.checkpoints.run_dir import RunDir, experiment_folder
from advent.errors import ConfigError
from advent.evaluation.stage import ORACLE, evaluate_stage
from advent.training.stage import train_stage
from advent.utils.serialization import write_json, write_text
from advent.utils.tables import results_table
from ida.intra import intra_stage
from ida.isl import isl_stage
from ida.pipeline.assets import export_assets
from ida.pipeline.lineage import check_finished
from ida.pipeline.stage import Stage
from ida.rank_stage import rank_stage

log = logging.getLogger(__name__)

RUNS: dict[str, Callable[..., RunDir]] = {
    "train.py": train_stage,
    "train_isl.py": isl_stage,
    "train_intra.py": intra_stage,
}


def run_pipeline(stages: Sequence[Stage], evaluate: bool = True) -> dict[str, Any]:
    """Run unfinished stages, score every trained stage on the target's labelled set, write and return the results.

    An interrupted stage resumes from its last resume state. `results` has the scores of each stage's last snapshot,
    `oracle` those of the best one if TEST.MODE is `best`, `stages` all stages in order with their scripts.
    """
    _refuse_one_folder(stages if evaluate else [])
    for stage in stages:  # fails now, not after days of earlier stages
        check_finished(stage)
        if evaluate and stage.trains:
            evaluation_data(stage.config)
    rows: dict[str, Any] = {}
    oracle: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    for stage in stages:
        started = time.monotonic()
        if check_finished(stage):
            log.info("%s: finished, skipped", stage.name)
        else:
            log.info("%s: %s", stage.name, stage.script)
            run_stage(stage)
        if evaluate and stage.trains:
            results = evaluate_stage(stage.config)
            rows[stage.name] = results[-1]
            if results[0]["selected"] == ORACLE:
                oracle[stage.name] = results[0]
        seconds[stage.name] = round(time.monotonic() - started, 1)
    listed = [{"name": stage.name, "script": stage.script, "folder": stage.config.STAGE.NAME} for stage in stages]
    record = {"schema": 1, "results": rows, "oracle": oracle, "seconds": seconds, "stages": listed}
    if rows:
        folder = experiment_folder(stages[-1].config)
        write_json(folder / "results.json", record)
        write_text(folder / "results.md", results_table(rows) + "\n")
    export_assets(stages)
    return record


def _refuse_one_folder(stages: Sequence[Stage]) -> None:
    """Raise ConfigError if several stages would write predictions to one folder and overwrite each other."""
    folders = [stage.config.TEST.SAVE_PREDS for stage in stages if stage.trains and stage.config.TEST.SAVE_PREDS]
    if len(set(folders)) < len(folders):
        last = next(stage.name for stage in reversed(stages) if stage.trains)
        raise ConfigError(
            f"TEST.SAVE_PREDS: {folders[-1]} is the output folder of {len(folders)} stages, and the last would "
            f"overwrite the others; set it for one stage only: {last}:TEST.SAVE_PREDS={folders[-1]}"
        )


def run_stage(stage: Stage) -> None:
    """Run one stage; an interrupted one resumes from its last resume state."""
    if stage.trains:
        RUNS[stage.script](stage.config, resume=True)  # without a resume state, it starts at iteration 0
    else:
        rank_stage(stage.config)
