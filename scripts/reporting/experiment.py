"""An experiment as the runner left it: its results files, read and nothing computed."""

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
# What tells of a machine or of bookkeeping, not of an experiment.
UNTOLD = (
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
    """One stage: `results` are the rows of its results.json; files that are not there are empty."""

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
        """What people call it."""
        return LABELS.get(self.name, self.name)

    @property
    def last(self) -> dict[str, Any] | None:
        """The last snapshot's scores: nobody chose it."""
        return next((row for row in self.results if row["selected"] == "last"), None)

    @property
    def oracle(self) -> dict[str, Any] | None:
        """The best snapshot's, chosen on the labels that it is scored on; None where only the last was scored."""
        return next((row for row in self.results if row["selected"] == ORACLE), None)

    def scores(self) -> list[tuple[int, float]]:
        """(iteration, mIoU) ascending: of every snapshot scored, else of the evaluations while it trained."""
        rows = [r for r in self.results if r["selected"] in ("snapshot", "last") and r["iteration"] is not None]
        rows = [row for row in rows if math.isfinite(row["miou"])]
        if len(rows) > 1:
            return sorted((row["iteration"], row["miou"]) for row in rows)
        evaluated = [row for row in self.metrics if math.isfinite(row.get("test_miou", math.nan))]
        found = [(int(row["iteration"]), row["test_miou"]) for row in evaluated]
        return found or [(row["iteration"], row["miou"]) for row in rows]

    def losses(self) -> dict[str, list[tuple[int, float]]]:
        """Name -> (iteration, mean loss) of every loss that was logged."""
        found: dict[str, list[tuple[int, float]]] = {}
        for row in self.metrics:
            for name, value in row.items():
                if name.split("_")[0] in ("seg", "depth", "adv", "ent", "d"):
                    found.setdefault(name, []).append((int(row["iteration"]), value))
        return found

    def settings(self) -> dict[str, Any]:
        """The config's keys that differ from the defaults, without those that tell of a machine."""
        defaults = dict(flat(default_config()))
        return {
            key: value for key, value in flat(self.config) if value != defaults.get(key) and not key.startswith(UNTOLD)
        }


@dataclass(frozen=True)
class Experiment:
    """A folder of scripts/pipeline.py: stages in order, and its gallery (pictures, label quality), if there is one.

    `name`: what it is called beside others.
    """

    path: Path
    stages: tuple[StageRecord, ...]
    gallery: dict[str, Any]
    missing: tuple[str, ...]
    name: str

    @property
    def file_name(self) -> str:
        """What the names of its figures' files begin with."""
        return self.name.replace("/", "_")

    @property
    def trained(self) -> list[StageRecord]:
        """The stages that were scored."""
        return [stage for stage in self.stages if stage.last is not None]

    @property
    def config(self) -> dict[str, Any]:
        """The config of its last stage."""
        return self.stages[-1].config

    @property
    def classes(self) -> list[str]:
        """The classes' names."""
        return list(self.trained[-1].last["iou"]) if self.trained else []  # type: ignore[index]

    @property
    def ranking(self) -> list[dict[str, Any]]:
        """Rows of ranking.csv (name, score, rank, half) of its ranking stage."""
        return next((stage.ranking for stage in self.stages if stage.ranking), [])

    @property
    def protocol(self) -> Protocol | None:
        """The paper's protocol that it ran, with the paper's classes."""
        for protocol in PROTOCOLS.values():
            if protocol.pipeline == self.config.get("EXP_NAME"):
                columns = next(iter(paper_rows(protocol).values()))
                return protocol if set(self.classes) <= set(columns) else None
        return None


def read_experiments(paths: Sequence[Path]) -> list[Experiment]:
    """Read the folders that stand side by side, under names of their own.

    Raises DataError as `read_experiment` does, ConfigError where a folder is given twice.
    """
    experiments = [read_experiment(path) for path in paths]
    names = distinct_names(paths)
    return [replace(experiment, name=name) for experiment, name in zip(experiments, names, strict=True)]


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Each folder's name; where names agree, with as many of the folders above as tell them apart: a/ep1, b/ep1.

    Names differ as file names too ("/" becomes "_", and a disk may not tell capitals). Raises ConfigError where they
    cannot.
    """
    parts = [path.resolve().parts[1:] for path in paths]
    depths = [1] * len(paths)
    while True:
        names = ["/".join(own[-depth:]) for own, depth in zip(parts, depths, strict=True)]
        files = [name.replace("/", "_").casefold() for name in names]
        same = [index for index, file in enumerate(files) if files.count(file) > 1]
        if not same:
            return names
        if all(depths[index] >= len(parts[index]) for index in same):
            raise ConfigError(f"{paths[same[0]]}: is given twice, or another folder has the same name; give it once")
        for index in same:
            depths[index] += 1


def read_experiment(path: Path) -> Experiment:
    """Read a pipeline's folder. Raises DataError where there is none, or a file of it is damaged."""
    if not path.is_dir():
        raise DataError(
            f"{path}: no such folder; name one that scripts/pipeline.py left, for example experiments/quick"
        )
    summary = read_json(path / "results.json") if (path / "results.json").is_file() else {}
    listed = summary.get("stages") or [{"name": folder.name} for folder in _stage_folders(path)]
    seconds = summary.get("seconds", {})
    stages = [_stage(path, entry, seconds.get(entry["name"])) for entry in listed]
    stages = [stage for stage in stages if stage.config]
    if not stages:
        raise DataError(f"{path}: holds no stage of an experiment; name a folder that scripts/pipeline.py left")
    there = (path / GALLERY / GALLERY_FILE).is_file()
    gallery = read_json(path / GALLERY / GALLERY_FILE) if there else {}
    missing = [] if there else ["no gallery: pictures and label quality are left by scripts/pipeline.py; run it again"]
    missing += [f"{stage.label}: not finished" for stage in stages if not stage.finished]
    missing += [f"{s.label}: not scored" for s in stages if s.finished and not s.results and s.script != "entropy.py"]
    return Experiment(path, tuple(stages), gallery, (*missing, *gallery.get("missing", [])), path.resolve().name)


def _stage_folders(path: Path) -> list[Path]:
    """Folders of stages where no runner listed them, in the order in which they began."""
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
        found = parse_yaml(file.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError):
        found = None
    if not isinstance(found, dict):
        raise DataError(f"{file}: damaged, it is no config; put the original back")
    return found


def _metrics(file: Path) -> list[dict[str, float]]:
    if not file.is_file():
        return []
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except ValueError:
        raise DataError(f"{file}: damaged, a line of it is no JSON; cut that line") from None


def _ranking(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    with open(file, newline="", encoding="utf-8") as handle:
        try:
            rows: list[dict[str, Any]] = [{**row, "score": float(row["score"])} for row in csv.DictReader(handle)]
        except (KeyError, ValueError, TypeError):
            raise DataError(f"{file}: damaged, it is no ranking; rank again (entropy.py)") from None
    wrong = next((row["name"] for row in rows if not math.isfinite(row["score"])), None)
    if wrong is not None:
        raise DataError(f"{file}: the score of {wrong} is not finite: nothing is sorted; rank again (entropy.py)")
    return rows


def _labelled(folder: Path) -> dict[str, Any]:
    """What the newest round of pseudo labels records of itself."""
    rounds = list((folder / "pseudo_labels").glob("round_*/complete.json"))
    return read_json(max(rounds, key=lambda file: int(file.parent.name.split("_")[1]))) if rounds else {}
