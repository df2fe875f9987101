"""Stage lineage: whether a finished stage still matches its config and inputs, and the status table of a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advent.build import source_data, target_data
from advent.checkpoints.io import digest, peek
from advent.checkpoints.provenance import names_digest, read_provenance, require_match
from advent.checkpoints.run_dir import RESUME, RunDir, initial_checkpoint
from advent.config.schema import Config
from advent.errors import ConfigError, MissingStage, UserError
from advent.methods.registry import find_method
from advent.runtime.lock import holder
from advent.utils.tables import markdown_table
from ida.intra import check_ranking, ranking_folder
from ida.pipeline.stage import Stage


def check_finished(stage: Stage) -> bool:
    """Whether a stage is finished, with this config and from the current inputs; False if it is not finished.

    Raises ConfigError or StaleInput naming the difference.
    """
    facts = stage.run_dir.done_record()
    if facts is None:
        return False
    if not stage.run_dir.has_config(stage.config, facts["config"]):
        raise ConfigError(
            f"{stage.run_dir.path}: finished with another config (see config.yml there); choose another folder with "
            "--exp-suffix NAME, or remove this one"
        )
    record = read_provenance(stage.run_dir.path)
    if record is not None:
        _check_start(stage.config, stage.run_dir, record)
        _check_data(stage, record)
        if stage.script == "train_intra.py":
            _check_ranking(stage.config)
    return True


def _check_start(config: Config, run_dir: RunDir, record: dict[str, Any]) -> None:
    made = record["inputs"].get("start")
    if made is None:
        return
    try:
        start = initial_checkpoint(config)
        now = digest(start)
    except (MissingStage, OSError):
        return  # removed, for example to free disk space: the record cannot be checked
    message = f"{run_dir.path}: was made from {made['path']} as it was then; {start} is another network"
    require_match(made["sha256"], now, message, _suggested_fix(run_dir), config.STAGE.CHECK_PROVENANCE)


def _check_data(stage: Stage, record: dict[str, Any]) -> None:
    config = stage.config
    if stage.script == "train_intra.py":
        return  # its halves come from the ranking, which is checked
    now = {}
    if stage.script == "train.py":
        now["source"] = source_data(config).names
    if stage.script != "train.py" or find_method(config).uses_target:
        now["target"] = target_data(config).names
    for role, names in now.items():
        message = f"{stage.run_dir.path}: was made with other images than the {role} now has"
        current = names_digest(names)
        require_match(
            record["data"][role]["sha256"],
            current,
            message,
            _suggested_fix(stage.run_dir),
            config.STAGE.CHECK_PROVENANCE,
        )


def _check_ranking(config: Config) -> None:
    ranking = ranking_folder(config)
    if ranking.path.is_dir():
        check_ranking(config, ranking, None)


def _suggested_fix(run_dir: RunDir) -> str:
    return f"remove {run_dir.path} to run the stage again"


def status_table(stages: Sequence[Stage]) -> str:
    """Markdown table of a pipeline: each stage's state, newest snapshot and inputs."""
    rows = []
    for stage in stages:
        snapshots = stage.run_dir.snapshots()
        newest = f"{snapshots[-1][1].name} {digest(snapshots[-1][1])[:8]}" if snapshots else "-"
        rows.append([stage.name, _state(stage), newest, _made_from(stage.run_dir.path)])
    return markdown_table(["stage", "state", "newest snapshot", "made from"], rows)


def _state(stage: Stage) -> str:
    who = holder(stage.run_dir.path)
    if who:
        return f"running ({who})"
    try:
        if check_finished(stage):
            return "finished"
    except UserError as error:
        return str(error).split("; ")[0].removeprefix(f"{stage.run_dir.path}: ")
    if stage.run_dir.has_resume_state():
        return f"stopped before iteration {peek(stage.run_dir.path / RESUME)['iteration']}"
    return "started" if (stage.run_dir.path / "config.yml").is_file() else "not started"


def _made_from(folder: Path) -> str:
    record = read_provenance(folder)
    if record is None:
        return "-"
    inputs = [f"{Path(made['path']).name} {made['sha256'][:8]}" for made in record["inputs"].values()]
    data = [f"{facts['images']} {role} images" for role, facts in record["data"].items()]
    return ", ".join([*inputs, *data])
