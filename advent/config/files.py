"""Config files: what a name stands for, BASE files, and the sections of a protocol file."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from advent.errors import ConfigError, hint, hints
from advent.utils.paths import (
    CONFIGS,
    config_folders,
    expand_user,
    find_in_configs,
    named_files,
    searched,
    shipped_file,
)
from advent.utils.serialization import read_yaml

log = logging.getLogger(__name__)

# Stage script -> its kind; all sections of a kind build on configs/stages/<kind>.yml, where there is one.
KINDS = {"train.py": "daf", "train_isl.py": "isl", "entropy.py": "rank", "train_intra.py": "ida"}
TRAINERS = ("train.py", "train_isl.py", "train_intra.py")
NOT_CONFIGS = ("datasets/", "classes/", "stages/", "methods/", "benchmarks/", "aliases.yml")

Tree = dict[str, Any]


@dataclass(frozen=True)
class ConfigReference:
    """What `--cfg` names: a file, perhaps one of its sections, and what an alias sets besides."""

    path: Path
    name: str
    section: str | None = None
    method: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StageSection:
    """One section of a protocol file: the stage's name, its script, and the keys that differ."""

    name: str
    script: str
    method: str | None
    values: Mapping[str, Any]

    @property
    def trains(self) -> bool:
        """Whether the stage leaves checkpoints."""
        return self.script in TRAINERS


def find_config(path_or_name: str | Path) -> ConfigReference:
    """A config file, by path or by name with or without `.yml`, perhaps with `:SECTION`.

    A name is looked up in the current folder, in its `configs`, and among the shipped configs; `pretrained/NAME.yml`
    also among the shipped checkpoints. Published and earlier
    names are announced aliases (configs/aliases.yml). Raises ConfigError with the folders and similar names.
    """
    text = expand_user(str(path_or_name))
    file, colon, section = (text, "", "") if Path(text).is_file() else text.rpartition(":")
    if not colon:
        file, section = text, ""
    given = shipped_file(file)
    if given.is_file():
        return ConfigReference(given, file, section or None)
    shown = given.as_posix().removeprefix("./")
    while shown.startswith("configs/"):
        shown = shown.removeprefix("configs/")
    shown = shown.removesuffix(".yml")
    inside = bool(shown) and not given.is_absolute() and ".." not in given.parts
    if inside and given.suffix != ".yml" and (beside := Path(f"{file}.yml")).is_file():
        return ConfigReference(beside, file, section or None)
    candidate = find_in_configs(f"{shown}.yml")
    if inside and candidate.is_file() and not f"{shown}.yml".startswith(NOT_CONFIGS):
        return ConfigReference(candidate, shown, section or None)
    if inside and not section and shown in aliases():
        return _aliased(text, aliases()[shown])
    raise ConfigError(
        f"{path_or_name}: no such config in {Path.cwd()} or {searched()}; "
        f"{hints(given.with_suffix('').name, [*_names(), *aliases()])}"
    )


def _names() -> list[str]:
    """Names of all configs that are no part of others."""
    names = [path.relative_to(folder).as_posix() for folder in config_folders() for path in folder.rglob("*.yml")]
    return sorted({name.removesuffix(".yml") for name in names if not name.startswith(NOT_CONFIGS)})


@cache
def aliases() -> dict[str, Any]:
    """Published and earlier names of configs -> what they stand for (configs/aliases.yml)."""
    return dict(read_yaml(CONFIGS / "aliases.yml"))


def _aliased(given: str, entry: Any) -> ConfigReference:
    entry = {"cfg": entry} if isinstance(entry, str) else entry
    log.info("%s: an alias of --cfg %s (configs/aliases.yml)", given, entry["cfg"])
    reference = find_config(entry["cfg"])
    return replace(reference, method=entry.get("method"), values=entry.get("set", {}))


def read_layers(path: Path, seen: tuple[Path, ...]) -> tuple[list[tuple[str, Tree]], dict[str, StageSection]]:
    """(file, keys) of a file's BASE files and itself, in order, and the sections of the last one that has STAGES."""
    path = path.resolve()
    if path in seen:
        raise ConfigError(f"{path}: BASE leads back to itself ({' -> '.join(p.name for p in (*seen, path))})")
    content = read_content(path)
    layers: list[tuple[str, Tree]] = []
    sections: dict[str, StageSection] = {}
    bases = content.pop("BASE", [])
    for base in [bases] if isinstance(bases, str) else bases:
        if not isinstance(base, str):
            raise ConfigError(f"{path}: BASE: want names of configs, got {base!r}")
        beside = path.parent / base
        inherited, stages = read_layers(beside if beside.is_file() else find_config(base).path, (*seen, path))
        layers, sections = [*layers, *inherited], stages or sections
    own = content.pop("STAGES", None)
    return [*layers, (str(path), content)], sections if own is None else _sections(path, own)


def read_content(path: Path) -> Tree:
    content = read_yaml(path)
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: want a mapping of keys, got {type(content).__name__}")
    return dict(content)


def _sections(path: Path, raw: Any) -> dict[str, StageSection]:
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: STAGES: want a section for each stage, got {str(raw)[:80]!r}")
    sections = {}
    for name, content in raw.items():
        content = dict(content) if isinstance(content, dict) else {}
        script, method = content.pop("SCRIPT", None), content.pop("METHOD", None)
        if script not in KINDS:
            raise ConfigError(f"{path}: STAGES.{name}: SCRIPT: {script!r} is no stage; use {', '.join(KINDS)}")
        sections[str(name)] = StageSection(str(name), script, method, content)
    return sections


def named_file(kind: str, name: str) -> Path:
    files = named_files(kind)
    if name not in files:
        raise ConfigError(f"{name!r} is not in {searched(kind)}: {hint(name, sorted(files))}")
    return files[name]
