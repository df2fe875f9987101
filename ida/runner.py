"""The runner: all stages of a protocol in order, what is finished skipped, one results file and one table.

`scripts/pipeline.py` is a thin face of it. A pipeline is a config whose PIPELINE.STAGES lists
`{name, script, cfg}`; each stage has its own config and leaves its own folder, so any of them can also be run alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from advent.domain_adaptation.config import config_digest, plain
from advent.domain_adaptation.eval_UDA import evaluate_stage
from advent.domain_adaptation.train_UDA import train_stage
from advent.engine.build import evaluation_data
from advent.engine.checkpoint import digest
from advent.engine.runlog import StageFolder, experiment_folder
from advent.engine.tables import results_table
from advent.utils.serialization import read_json, write_json, write_text
from ida.isl import isl_stage
from ida.methods import intra_stage
from ida.origin import check_finished
from ida.rank_stage import rank_stage
from ida.stage import Stage

log = logging.getLogger(__name__)

RUNS: dict[str, Callable[..., StageFolder]] = {
    "train.py": train_stage,
    "train_isl.py": isl_stage,
    "train_intra.py": intra_stage,
}


def run_pipeline(stages: Sequence[Stage], evaluate: bool = True) -> dict[str, Any]:
    """Run what is not finished, score every trained stage on the target's labelled set, write and return the results.

    A stage that was stopped is continued from its last resume state.
    """
    for stage in stages:  # found now, not after days of the stages before
        check_finished(stage)
        if evaluate and stage.trains:
            evaluation_data(stage.config)
    rows: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    for stage in stages:
        started = time.monotonic()
        if check_finished(stage):
            log.info("%s: finished, skipped", stage.name)
        else:
            log.info("%s: %s", stage.name, stage.script)
            _run(stage)
        if evaluate and stage.trains:
            rows[stage.name] = _score(stage)[-1]
        seconds[stage.name] = round(time.monotonic() - started, 1)
    record = {"schema": 1, "results": rows, "seconds": seconds}
    if rows:
        folder = experiment_folder(stages[-1].config)
        write_json(folder / "results.json", record)
        write_text(folder / "results.md", results_table(rows) + "\n")
    return record


def _run(stage: Stage) -> None:
    if stage.trains:
        RUNS[stage.script](stage.config, resume=True)  # where nothing lies to resume, it starts at iteration 0
    else:
        rank_stage(stage.config)


def _score(stage: Stage) -> list[dict[str, Any]]:
    path: Path = stage.folder.path / "results.json"
    if path.is_file():
        record = read_json(path)
        same = record["config"] == config_digest(stage.config) and record["test"] == plain(stage.config.TEST)
        if same and record["results"][-1]["sha256"] == digest(stage.folder.snapshots()[-1][1]):
            return record["results"]
    return evaluate_stage(stage.config)
