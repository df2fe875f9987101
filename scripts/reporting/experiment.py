"""Experiment records: reads the files that scripts/pipeline.py wrote, without networks or data."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from advent.config.loading import default_config, flat
from advent.errors import ConfigError, DataError
from advent.evaluation.stage import ORACLE
from advent.utils.serialization import parse_yaml, read_json
from ida.pipeline.assets import FILE as GALLERY_FILE
from ida.pipeline.assets import FOLDER as GALLERY
from reporting.published import PROTOCOLS, Protocol, paper_rows

LABELS = {
    "source_only": "source only",
    "daf": "DAF, stage 0",
    "isl": "DAF, stage 1 (ISL)",
    "rank": "ranking",
    "ida": "DAF+IDA",
}
# Keys about the machine or bookkeeping, not about the experiment.
OMITTED_KEYS = (
    "CLASSES",
    "DATA_ROOT",
    "DATA_DIRECTORY_",
    "DATA_LIST_",
    "DATA_CACHE",
    "EXP_",
    "STAGE.",
    "TEST.SAVE",
    "TRAIN.TENSORBOARD",
    "TRAIN.PICTURES_EVERY",
    "MODEL.ENCODER_WEIGHTS",
    "GEOMETRY_TARGET",
)


@dataclass(frozen=True)
class StageRecord:
    """One stage's record: `results` are the rows of its results.json; missing files give empty values."""

    name: str
    script: str
    config: dict[str, Any]
    provenance: dict[str, Any]
    finished: dict[str, Any]
    metrics: list[dict[str, float]]
    results: list[dict[str, Any]]
    ranking: list[dict[str, Any]]
    labelled: dict[str, Any]
    seconds: float | None

    @property
    def label(self) -> str:
        """Display name."""
        return LABELS.get(self.name, self.name)

    @property
    def last(self) -> dict[str, Any] | None:
        """Scores of the last snapshot (no model selection)."""
        return next((row for row in self.results if row["selected"] == "last"), None)

    @property
    def oracle(self) -> dict[str, Any] | None:
        """Scores of the best snapshot, selected on the evaluation labels; None if only the last was scored."""
        return next((row for row in self.results if row["selected"] == ORACLE), None)

    def scores(self) -> list[tuple[int, float]]:
        """(iteration, mIoU), ascending, of every scored snapshot, else of the evaluations during training."""
        rows = [r for r in self.results if r["selected"] in ("snapshot", "last") and r["iteration"] is not None]
        rows = [row for row in rows if math.isfinite(row["miou"])]
        if len(rows) > 1:
            return sorted((row["iteration"], row["miou"]) for row in rows)
        evaluated = [row for row in self.metrics if math.isfinite(row.get("test_miou", math.nan))]
        during_training = [(int(row["iteration"]), row["test_miou"]) for row in evaluated]
        return during_training or [(row["iteration"], row["miou"]) for row in rows]

    def losses(self) -> dict[str, list[tuple[int, float]]]:
        """Name -> [(iteration, mean loss)] of every logged loss."""
        losses: dict[str, list[tuple[int, float]]] = {}
        for row in self.metrics:
            for name, value in row.items():
                if name.split("_")[0] in ("seg", "depth", "adv", "ent", "d"):
                    losses.setdefault(name, []).append((int(row["iteration"]), value))
        return losses

    def settings(self) -> dict[str, Any]:
        """Config keys that differ from the defaults, without machine-specific ones."""
        defaults = dict(flat(default_config()))
        return {
            key: value
            for key, value in flat(self.config)
            if value != defaults.get(key) and not key.startswith(OMITTED_KEYS)
        }


@dataclass(frozen=True)
class Experiment:
    """An experiment folder of scripts/pipeline.py: stages in order, and its gallery (images, label quality) if any.

    `name`: display name, unique within a report.
    """

    path: Path
    stages: tuple[StageRecord, ...]
    gallery: dict[str, Any]
    missing: tuple[str, ...]
    name: str

    @property
    def file_name(self) -> str:
        """Prefix of its figures' file names."""
        return self.name.replace("/", "_")

    @property
    def trained(self) -> list[StageRecord]:
        """The evaluated stages."""
        return [stage for stage in self.stages if stage.last is not None]

    @property
    def config(self) -> dict[str, Any]:
        """The config of its last stage."""
        return self.stages[-1].config

    @property
    def classes(self) -> list[str]:
        """Class names."""
        return list(self.trained[-1].last["iou"]) if self.trained else []  # type: ignore[index]

    @property
    def ranking(self) -> list[dict[str, Any]]:
        """Rows of ranking.csv (name, score, rank, half) of its ranking stage."""
        return next((stage.ranking for stage in self.stages if stage.ranking), [])

    @property
    def protocol(self) -> Protocol | None:
        """The paper's protocol of this experiment, if its classes match; else None."""
        for protocol in PROTOCOLS.values():
            if protocol.pipeline == self.config.get("EXP_NAME"):
                columns = next(iter(paper_rows(protocol).values()))
                return protocol if set(self.classes) <= set(columns) else None
        return None


def read_experiments(paths: Sequence[Path]) -> list[Experiment]:
    """Read several experiment folders and give them distinct names.

    Raises DataError as `read_experiment` does, ConfigError if a folder is given twice.
    """
    experiments = [read_experiment(path) for path in paths]
    names = distinct_names(paths)
    return [replace(experiment, name=name) for experiment, name in zip(experiments, names, strict=True)]


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Folder names, prefixed with as many parent folders as needed to make them unique: a/ep1, b/ep1.

    They are also unique as file names ("/" becomes "_", compared case-insensitively). Raises ConfigError if that is
    impossible.
    """
    parts = [path.resolve().parts[1:] for path in paths]
    depths = [1] * len(paths)
    while True:
        names = ["/".join(own[-depth:]) for own, depth in zip(parts, depths, strict=True)]
        files = [name.replace("/", "_").casefold() for name in names]
        duplicates = [index for index, file in enumerate(files) if files.count(file) > 1]
        if not duplicates:
            return names
        if all(depths[index] >= len(parts[index]) for index in duplicates):
            raise ConfigError(
                f"{paths[duplicates[0]]}: is given twice, or another folder has the same name; give it once"
            )
        for index in duplicates:
            depths[index] += 1


def read_experiment(path: Path) -> Experiment:
    """Read an experiment folder. Raises DataError if it is missing or one of its files is damaged."""
    if not path.is_dir():
        raise DataError(
            f"{path}: no such folder; name one that scripts/pipeline.py wrote, for example experiments/quick"
        )
    summary = read_json(path / "results.json") if (path / "results.json").is_file() else {}
    listed = summary.get("stages") or [{"name": folder.name} for folder in _stage_folders(path)]
    seconds = summary.get("seconds", {})
    stages = [_stage(path, entry, seconds.get(entry["name"])) for entry in listed]
    stages = [stage for stage in stages if stage.config]
    if not stages:
        raise DataError(f"{path}: contains no stage of an experiment; name a folder that scripts/pipeline.py wrote")
    has_gallery = (path / GALLERY / GALLERY_FILE).is_file()
    gallery = read_json(path / GALLERY / GALLERY_FILE) if has_gallery else {}
    missing = [] if has_gallery else ["no gallery: run scripts/pipeline.py again to export images and label quality"]
    missing += [f"{stage.label}: not finished" for stage in stages if not stage.finished]
    missing += [f"{s.label}: not scored" for s in stages if s.finished and not s.results and s.script != "entropy.py"]
    return Experiment(path, tuple(stages), gallery, (*missing, *gallery.get("missing", [])), path.resolve().name)


def _stage_folders(path: Path) -> list[Path]:
    """Stage folders by start time, for experiments without a list of stages."""
    folders = [folder for folder in path.iterdir() if (folder / "config.yml").is_file()]
    return sorted(folders, key=lambda folder: str(_json(folder / "provenance.json").get("time", "")))


def _stage(path: Path, entry: dict[str, Any], seconds: float | None) -> StageRecord:
    folder = path / entry.get("folder", entry["name"])
    finished = _json(folder / "finished.json")
    seconds = finished.get("seconds_of_last_start", seconds)
    ranking = _ranking(folder / "ranking.csv")
    script = entry.get("script", "entropy.py" if ranking else "train.py")
    return StageRecord(
        entry["name"],
        script,
        _config(folder / "config.yml"),
        _json(folder / "provenance.json"),
        finished,
        _metrics(folder / "metrics.jsonl"),
        _json(folder / "results.json").get("results", []),
        ranking,
        _labelled(folder),
        seconds,
    )


def _json(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}


def _config(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        config = parse_yaml(file.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError):
        config = None
    if not isinstance(config, dict):
        raise DataError(f"{file}: damaged: not a config; restore the original")
    return config


def _metrics(file: Path) -> list[dict[str, float]]:
    if not file.is_file():
        return []
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except ValueError:
        raise DataError(f"{file}: damaged: contains a line that is not JSON; remove that line") from None


def _ranking(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    with open(file, newline="", encoding="utf-8") as handle:
        try:
            rows: list[dict[str, Any]] = [{**row, "score": float(row["score"])} for row in csv.DictReader(handle)]
        except (KeyError, ValueError, TypeError):
            raise DataError(f"{file}: damaged: not a ranking; rank again (entropy.py)") from None
    wrong = next((row["name"] for row in rows if not math.isfinite(row["score"])), None)
    if wrong is not None:
        raise DataError(f"{file}: the score of {wrong} is not finite, so the order is invalid; rank again (entropy.py)")
    return rows


def _labelled(folder: Path) -> dict[str, Any]:
    """Record (complete.json) of the newest round of pseudo labels."""
    rounds = list((folder / "pseudo_labels").glob("round_*/complete.json"))
    return read_json(max(rounds, key=lambda file: int(file.parent.name.split("_")[1]))) if rounds else {}
