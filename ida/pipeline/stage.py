"""One stage of a pipeline: its script, config and run directory."""

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
        """The stage's run directory."""
        return RunDir.of(self.config)

    @property
    def trains(self) -> bool:
        """Whether the stage writes snapshots that can be scored."""
        return self.script in TRAINERS


def stages_of(cfg: str | Path, overrides: Sequence[str] = ()) -> list[Stage]:
    """The stages of a protocol file; every config is loaded and validated before the first stage runs."""
    reference, sections = find_config(cfg), protocol_sections(cfg)
    if reference.section is not None:
        raise ConfigError(f"--cfg {cfg}: is a single stage; a pipeline needs a protocol: --cfg {reference.name}")
    if not sections:
        raise ConfigError(f"--cfg {cfg}: has no STAGES to run; try --cfg quick or --cfg ep1")
    names = [section.name for section in sections]
    for override in overrides:
        _check_stage_prefix(override, names)
    return [
        Stage(s.name, s.script, load_config(f"{reference.name}:{s.name}", _own_overrides(overrides, s.name)))
        for s in sections
    ]


def _own_overrides(overrides: Sequence[str], name: str) -> list[str]:
    """Overrides for one stage: its prefixed ones, without the prefix, and the unprefixed ones."""
    own = [o for o in overrides if _stage_prefix(o) in (None, name)]
    return [o.split(":", 1)[1] if _stage_prefix(o) else o for o in own]


def _stage_prefix(override: str) -> str | None:
    """Stage name of a prefixed override: `daf:TRAIN.EARLY_STOP=9` applies to the stage `daf` only."""
    prefix, colon, _ = override.partition(":")
    return prefix if colon and "=" not in prefix else None


def _check_stage_prefix(override: str, names: Sequence[str]) -> None:
    prefix = _stage_prefix(override)
    if prefix is not None and prefix not in names:
        raise ConfigError(
            f"{override}: there is no stage {prefix!r} in this protocol; its stages are {', '.join(names)}"
        )
