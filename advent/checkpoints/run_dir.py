"""Run directory of one stage: config, metrics, snapshots, resume state, completion marker."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import torch

from advent.checkpoints import provenance
from advent.checkpoints.io import save
from advent.config.loading import config_digest, load_config, stage_command
from advent.config.schema import Config
from advent.errors import ConfigError, MissingStage
from advent.runtime.distributed import main_only
from advent.utils.serialization import is_temporary, read_json, write_json, write_text

log = logging.getLogger(__name__)
SNAPSHOT = re.compile(r"model_(\d+)\.pth")
RESUME = "resume.pth"


def experiment_folder(config: Config) -> Path:
    """EXP_ROOT/EXP_NAME[_EXP_SUFFIX]: all stages of one protocol."""
    name = config.EXP_NAME + (f"_{config.EXP_SUFFIX}" if config.EXP_SUFFIX else "")
    return Path(config.EXP_ROOT) / name


class RunDir:
    """Run directory of one stage, inside the experiment's folder. With several processes, rank 0 writes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, config: Config, stage: str | None = None) -> RunDir:
        """The run directory of the config's stage, or of another `stage` of the same experiment."""
        return cls(experiment_folder(config) / (stage or config.STAGE.NAME))

    def snapshots(self) -> list[tuple[int, Path]]:
        """(iteration, path) of every `model_{iteration}.pth`, ascending."""
        matches = ((SNAPSHOT.fullmatch(p.name), p) for p in self.path.glob("model_*.pth"))
        return sorted((int(match[1]), path) for match, path in matches if match)

    def save_snapshot(self, iteration: int, net: torch.nn.Module) -> Path:
        """Write `model_{iteration}.pth`, a plain state dict."""
        state = {name: tensor.detach().cpu() for name, tensor in net.state_dict().items()}
        return save(self.path / f"model_{iteration}.pth", state)

    def has_resume_state(self) -> bool:
        """Whether the folder holds a resume state."""
        return (self.path / RESUME).is_file()

    @main_only
    def write_header(self, config_text: str, record: dict[str, Any]) -> None:
        """Write config.yml and provenance.json."""
        write_text(self.path / "config.yml", config_text)
        write_json(self.path / provenance.FILE, record)

    def has_config(self, config: Config, digest: str) -> bool:
        """Whether the files here, recorded with the config of `digest`, were made with `config`.

        An earlier version may have written them with fewer config keys. Then config.yml is read again, which fills
        the missing keys with defaults, and compared.
        """
        if digest == config_digest(config):
            return True
        record, written = provenance.read_provenance(self.path), self.path / "config.yml"
        if record is None or record["config"] != digest or not written.is_file():
            return False
        try:
            return config_digest(load_config(written)) == config_digest(config)
        except ConfigError:
            return False

    @main_only
    def record_resume(self, iteration: int, **facts: Any) -> None:
        """Append to provenance.json that the run resumed at `iteration`, with code, libraries and further facts."""
        record = provenance.read_provenance(self.path)
        if record is not None:
            resumes = [*record.get("continued", []), {"iteration": iteration, **provenance.environment(), **facts}]
            write_json(self.path / provenance.FILE, {**record, "continued": resumes})

    @main_only
    def remove_leftovers(self) -> None:
        """Remove partly written files of a killed run. Only the holder of the folder's lock may call it."""
        for path in self.path.glob(".*"):
            if is_temporary(path):
                path.unlink(missing_ok=True)

    @main_only
    def prepare(self, overwrite: bool) -> None:
        """Prepare a new run: remove earlier results if `overwrite`, else raise ConfigError if there are any."""
        # Completion markers are removed first, in case the removal is interrupted.
        files = [self.path / name for name in ("finished.json", "results.json", RESUME, "metrics.jsonl")]
        ours = [p for p in files if p.exists()] + [path for _, path in self.snapshots()]
        if ours and not overwrite:
            raise ConfigError(
                f"{self.path}: holds the results of an earlier run; continue it with --resume, start anew with "
                "--overwrite, or choose another folder with --exp-suffix NAME"
            )
        for path in ours:
            path.unlink()

    def refuse_results_without_state(self) -> None:
        """Raise ConfigError if there are results but no resume state, instead of starting at iteration 0 over them."""
        if self.snapshots() or self.done_record():
            raise ConfigError(
                f"{self.path}: holds results but no {RESUME} to continue from; start anew with --overwrite, or choose "
                "another folder with --exp-suffix NAME"
            )

    @main_only
    def mark_done(self, **facts: Any) -> None:
        """Mark the stage as finished: write `facts` to finished.json."""
        write_json(self.path / "finished.json", facts)

    def done_record(self) -> dict[str, Any] | None:
        """The facts of `mark_done`, or None if the stage is not finished."""
        path = self.path / "finished.json"
        return read_json(path) if path.is_file() else None


class MetricsFile:
    """`metrics.jsonl`: one JSON object per line, ascending in `iteration`; no clock times, so that runs compare."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @main_only
    def append(self, row: dict[str, Any]) -> None:
        """Add one row."""
        with open(self.path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")

    def flush(self) -> int:
        """Flush all rows to disk; returns the file's size in bytes, for `truncate`."""
        if not self.path.exists():
            return 0
        with open(self.path, "r+b") as handle:  # Windows does not sync a file that is open for reading only
            os.fsync(handle.fileno())
            return handle.seek(0, os.SEEK_END)

    @main_only
    def truncate(self, size: int) -> None:
        """Cut the file to the `size` that `flush` returned; a resumed run writes the later rows again."""
        now = self.path.stat().st_size if self.path.exists() else 0
        if now > size:
            os.truncate(self.path, size)
        elif now < size:
            log.warning("%s: %d bytes, but %d when the run was interrupted: rows are missing", self.path, now, size)


def initial_checkpoint(config: Config) -> Path:
    """The checkpoint that a later stage starts from: TRAIN.RESTORE_FROM, else the last snapshot of STAGE.AFTER.

    Raises MissingStage, with the command that trains it, if there is none.
    """
    if config.TRAIN.RESTORE_FROM:
        return Path(config.TRAIN.RESTORE_FROM)
    previous = RunDir.of(config, config.STAGE.AFTER)
    snapshots = previous.snapshots()
    if not snapshots:
        command = stage_command(config, config.STAGE.AFTER)
        raise MissingStage(f"{previous.path}: no checkpoint of the previous stage yet. Run: {command}")
    return snapshots[-1][1]
