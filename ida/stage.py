"""One stage of a pipeline: which script runs it, with which config, and where it leaves its results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from advent.domain_adaptation.config import load_config
from advent.engine.runlog import StageFolder
from advent.errors import ConfigError

TRAINERS = ("train.py", "train_isl.py", "train_intra.py")
SCRIPTS = (*TRAINERS, "entropy.py")


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


def stages_of(pipeline: Any, overrides: Sequence[str] = ()) -> list[Stage]:
    """The pipeline's stages; every config is loaded, and so checked, before the first one runs."""
    if not pipeline.PIPELINE.STAGES:
        raise ConfigError("PIPELINE.STAGES: this config lists no stages; try --cfg quick or --cfg ep1")
    stages = []
    for entry in pipeline.PIPELINE.STAGES:
        if entry["script"] not in SCRIPTS:
            raise ConfigError(f"PIPELINE.STAGES: {entry['script']} is no stage; use {', '.join(SCRIPTS)}")
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
