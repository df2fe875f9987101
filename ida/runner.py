"""The runner: all stages of a protocol in order, what is finished skipped, one results file and one table.

`scripts/pipeline.py` is a thin face of it. A pipeline is a config whose PIPELINE.STAGES lists
`{name, script, cfg}`; each stage has its own config and leaves its own folder, so any of them can also be run alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advent.domain_adaptation.config import config_digest, load_config, plain
from advent.domain_adaptation.eval_UDA import evaluate_stage
from advent.domain_adaptation.train_UDA import train_stage
from advent.engine.checkpoint import digest
from advent.engine.runlog import RESUME, StageFolder, experiment_folder
from advent.engine.tables import results_table
from advent.errors import ConfigError
from advent.utils.serialization import read_json, write_json, write_text
from ida.isl import isl_stage
from ida.methods import intra_stage
from ida.rank_stage import rank_stage

log = logging.getLogger(__name__)

TRAINERS: dict[str, Callable[..., StageFolder]] = {
    "train.py": train_stage,
    "train_isl.py": isl_stage,
    "train_intra.py": intra_stage,
}


@dataclass(frozen=True)
class Stage:
    """One entry of PIPELINE.STAGES with its config loaded."""

    name: str
    script: str
    config: Any

    @property
    def folder(self) -> StageFolder:
        """Where it leaves its results."""
        return StageFolder.of(self.config)

    @property
    def trains(self) -> bool:
        """Whether it leaves snapshots that can be scored."""
        return self.script in TRAINERS

    def is_finished(self) -> bool:
        """Whether it ran to its end. Raises ConfigError when it did so under another config."""
        facts = self.folder.finished()
        if facts is None:
            return False
        if facts["config"] != config_digest(self.config):
            raise ConfigError(
                f"{self.folder.path}: finished under another config (see config.yml there); choose another folder "
                "with --exp-suffix NAME, or remove this one"
            )
        return True


def stages_of(pipeline: Any, overrides: Sequence[str] = ()) -> list[Stage]:
    """The pipeline's stages; every config is loaded, and so checked, before the first one runs."""
    if not pipeline.PIPELINE.STAGES:
        raise ConfigError("PIPELINE.STAGES: this config lists no stages; try --cfg quick or --cfg ep1")
    stages = []
    for entry in pipeline.PIPELINE.STAGES:
        if entry["script"] not in (*TRAINERS, "entropy.py"):
            raise ConfigError(
                f"PIPELINE.STAGES: {entry['script']} is no stage; use {', '.join((*TRAINERS, 'entropy.py'))}"
            )
        own = [o for o in overrides if not _is_for_another(o, entry["name"], pipeline.PIPELINE.STAGES)]
        own = [o.split(":", 1)[1] if _stage_prefix(o) == entry["name"] else o for o in own]
        stages.append(Stage(entry["name"], entry["script"], load_config(entry["cfg"], own)))
    return stages


def _stage_prefix(override: str) -> str | None:
    """`daf:TRAIN.EARLY_STOP=9` is meant for the stage `daf` alone."""
    before, colon, _ = override.partition(":")
    return before if colon and "=" not in before else None


def _is_for_another(override: str, name: str, stages: Sequence[Any]) -> bool:
    prefix = _stage_prefix(override)
    if prefix is not None and prefix not in {entry["name"] for entry in stages}:
        known = ", ".join(entry["name"] for entry in stages)
        raise ConfigError(f"{override}: there is no stage {prefix!r} in this pipeline; its stages are {known}")
    return prefix is not None and prefix != name


def run_pipeline(stages: Sequence[Stage], evaluate: bool = True) -> dict[str, Any]:
    """Run what is not finished, score every trained stage on the target's labelled set, write and return the results.

    A stage that was stopped is continued from its last resume state.
    """
    rows: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    for stage in stages:
        started = time.monotonic()
        if stage.is_finished():
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
        resume = (stage.folder.path / RESUME).is_file()
        # Without a resume state whatever lies there is the start of a run that left nothing to continue from.
        TRAINERS[stage.script](stage.config, resume=resume, overwrite=not resume)
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
