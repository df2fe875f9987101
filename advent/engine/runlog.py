"""The folder of one stage of one experiment: config, metrics, snapshots, and the word that it is finished."""

from __future__ import annotations

import json
import platform
import re
import time
from pathlib import Path
from typing import Any

import numpy
import torch

import advent
from advent.engine.checkpoint import digest, save
from advent.errors import ConfigError, MissingStage
from advent.utils.serialization import read_json, write_json, write_text

SNAPSHOT = re.compile(r"model_(\d+)\.pth")
RESUME = "resume.pth"


def experiment_folder(config: Any) -> Path:
    """EXP_ROOT/EXP_NAME[_EXP_SUFFIX]: all stages of one protocol."""
    name = config.EXP_NAME + (f"_{config.EXP_SUFFIX}" if config.EXP_SUFFIX else "")
    return Path(config.EXP_ROOT) / name


class StageFolder:
    """What one stage leaves behind, under the experiment's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, config: Any, stage: str | None = None) -> StageFolder:
        """The folder of the config's own stage, or of another one of the same experiment."""
        return cls(experiment_folder(config) / (stage or config.STAGE.NAME))

    def snapshots(self) -> list[tuple[int, Path]]:
        """(iteration, path) of every `model_{iteration}.pth`, ascending."""
        found = ((SNAPSHOT.fullmatch(p.name), p) for p in self.path.glob("model_*.pth"))
        return sorted((int(match[1]), path) for match, path in found if match)

    def save_snapshot(self, iteration: int, net: torch.nn.Module, keep: int = 0) -> Path:
        """Write `model_{iteration}.pth`, a plain state dict; keep only the last `keep` of ours (0 = all)."""
        state = {name: tensor.detach().cpu() for name, tensor in net.state_dict().items()}
        path = save(self.path / f"model_{iteration}.pth", state)
        if keep:
            for _, old in self.snapshots()[:-keep]:
                old.unlink()
        return path

    def begin(self, config_text: str, provenance: dict[str, Any]) -> None:
        """Write config.yml and provenance.json."""
        write_text(self.path / "config.yml", config_text)
        write_json(self.path / "provenance.json", provenance)

    def refuse_or_clear(self, overwrite: bool) -> None:
        """Make room for a run from the start: refuse where results lie, unless told to overwrite our own files."""
        ours = [path for _, path in self.snapshots()]
        ours += [
            p for p in (self.path / n for n in (RESUME, "metrics.jsonl", "finished.json", "results.json")) if p.exists()
        ]
        if ours and not overwrite:
            raise ConfigError(
                f"{self.path}: holds the results of an earlier run; continue it with --resume, start anew with "
                "--overwrite, or choose another folder with --exp-suffix NAME"
            )
        for path in ours:
            path.unlink()

    def finish(self, **facts: Any) -> None:
        """Say that the stage is complete; `facts` go into finished.json."""
        write_json(self.path / "finished.json", facts)

    def finished(self) -> dict[str, Any] | None:
        """The facts of `finish`, or None while the stage is not complete."""
        path = self.path / "finished.json"
        return read_json(path) if path.is_file() else None


class MetricsFile:
    """`metrics.jsonl`: one JSON object a line, ascending in `iteration`. Holds no clock times, so runs compare."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def truncate(self, iteration: int) -> None:
        """Drop rows of `iteration` and later, and a half-written last line: what a continued run writes again."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text().splitlines():
            try:
                row = json.loads(line)
                before = row["iteration"] < iteration
            except (ValueError, TypeError, KeyError):
                continue
            if before:
                kept.append(line)
        write_text(self.path, "".join(f"{line}\n" for line in kept))

    def append(self, row: dict[str, Any]) -> None:
        """Add one row."""
        with open(self.path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")


def provenance(config: Any, config_digest: str, inputs: dict[str, Path]) -> dict[str, Any]:
    """What an artefact was made by and from: versions, seed, config digest, and the digest of every input file."""
    return {
        "code": advent.__version__,
        "config": config_digest,
        "seed": config.TRAIN.RANDOM_SEED,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__},
        "inputs": {name: {"path": str(path), "sha256": digest(path)} for name, path in inputs.items()},
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def starting_snapshot(config: Any) -> Path:
    """The checkpoint that a later stage starts from: TRAIN.RESTORE_FROM, else the last one of STAGE.AFTER.

    Raises MissingStage with the command that makes it.
    """
    if config.TRAIN.RESTORE_FROM:
        return Path(config.TRAIN.RESTORE_FROM)
    before = StageFolder.of(config, config.STAGE.AFTER)
    found = before.snapshots()
    if not found:
        command = f"python {config.STAGE.SCRIPT_AFTER or 'train.py'} --cfg {config.STAGE.CONFIG_AFTER or 'dg.yml'}"
        raise MissingStage(f"{before.path}: no snapshot yet of the stage before this one. Run: {command}")
    return found[-1][1]
