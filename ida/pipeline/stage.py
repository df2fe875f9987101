"""One stage of a pipeline: which script runs it, with which config, and where it leaves its results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from advent.checkpoints.run_dir import RunDir
from advent.config.files import KINDS, TRAINERS, find_config
from advent.config.loading import load_config, protocol_sections
from advent.config.schema import Config
from advent.errors import ConfigError

SCRIPTS = tuple(KINDS)


@dataclass(frozen=True)
class Stage:
    """One section of a protocol with its config loaded."""

    name: str
    script: str
    config: Config

    @property
    def run_dir(self) -> RunDir:
        """Where it leaves its results."""
        return RunDir.of(self.config)

    @property
    def trains(self) -> bool:
        """Whether it leaves snapshots that can be scored."""
        return self.script in TRAINERS


def stages_of(cfg: str | Path, overrides: Sequence[str] = ()) -> list[Stage]:
    """The stages of a protocol file; every config is loaded, and so checked, before the first one runs."""
    reference, sections = find_config(cfg), protocol_sections(cfg)
    if reference.section is not None:
        raise ConfigError(f"--cfg {cfg}: is one stage; a pipeline runs a whole protocol: --cfg {reference.name}")
    if not sections:
        raise ConfigError(f"--cfg {cfg}: lists no STAGES to run; try --cfg quick or --cfg ep1")
    names = [section.name for section in sections]
    for override in overrides:
        _check_stage_prefix(override, names)
    return [
        Stage(s.name, s.script, load_config(f"{reference.name}:{s.name}", _own_overrides(overrides, s.name)))
        for s in sections
    ]


def _own_overrides(overrides: Sequence[str], name: str) -> list[str]:
    """The overrides of one stage, without its prefix, and those of all stages."""
    own = [o for o in overrides if _stage_prefix(o) in (None, name)]
    return [o.split(":", 1)[1] if _stage_prefix(o) else o for o in own]


def _stage_prefix(override: str) -> str | None:
    """`daf:TRAIN.EARLY_STOP=9` is meant for the stage `daf` alone."""
    before, colon, _ = override.partition(":")
    return before if colon and "=" not in before else None


def _check_stage_prefix(override: str, names: Sequence[str]) -> None:
    prefix = _stage_prefix(override)
    if prefix is not None and prefix not in names:
        raise ConfigError(
            f"{override}: there is no stage {prefix!r} in this protocol; its stages are {', '.join(names)}"
        )
