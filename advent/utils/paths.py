"""Path lookup: YAML files of configs/ by name, shipped checkpoints, and home folders."""

from __future__ import annotations

import os
from pathlib import Path

from advent.errors import ConfigError, hint

PROJECT = Path(__file__).resolve().parents[2]
_PACKAGED = PROJECT / "advent" / "configs"
# A wheel has the configs inside this package (setup.py); a checkout has them beside the packages.
CHECKOUT = not _PACKAGED.is_dir()
CONFIGS = PROJECT / "configs" if CHECKOUT else _PACKAGED
# Likewise the shipped checkpoints, with their configs and cards.
PRETRAINED = PROJECT / "pretrained" if CHECKOUT else PROJECT / "advent" / "pretrained"


def config_folders() -> list[Path]:
    """Folders that names of configs are looked up in: `configs` in the current folder, then the shipped one."""
    own = Path.cwd() / "configs"
    return [own, CONFIGS] if own.is_dir() and own.resolve() != CONFIGS.resolve() else [CONFIGS]


def find_in_configs(relative: str) -> Path:
    """The first `configs/<relative>` that exists, else its path in the shipped folder."""
    paths = [folder / relative for folder in config_folders()]
    return next((path for path in paths if path.is_file()), paths[-1])


def shipped_file(path: str | Path) -> Path:
    """The path; `pretrained/NAME` that does not exist in the current folder is looked up among the shipped files."""
    given = Path(path)
    if given.parent == Path("pretrained") and not given.is_file() and (PRETRAINED / given.name).is_file():
        return PRETRAINED / given.name
    return given


def named_files(kind: str) -> dict[str, Path]:
    """Name -> file of every configs/<kind>/<name>.yml."""
    folders = [folder / kind for folder in reversed(config_folders())]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yml"))}


def searched(kind: str = "") -> str:
    """The folders of `config_folders`, for messages."""
    return " or ".join(str(folder / kind) for folder in config_folders())


def expand_user(path: str) -> str:
    """A path with a leading `~` or `~user` replaced by that home folder. Raises ConfigError if it does not exist."""
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        home = Path(path).parts[0]
        raise ConfigError(f"{path}: unknown home folder {home}; for a folder of that name use ./{path}")
    return expanded


def find_yaml(name_or_path: str | Path, kind: str) -> Path:
    """Find configs/<kind>/<name>.yml by bare name in any case, or a file by path. Raises ConfigError if missing."""
    text = str(name_or_path)
    if "/" in text or text.lower().endswith((".yml", ".yaml")):
        path = Path(text)
        if not path.is_file():
            path = find_in_configs(f"{kind}/{text}")
        if not path.is_file():
            raise ConfigError(f"{text}: no such file; use a path, or a bare name from {searched(kind)}")
        return path
    files = named_files(kind)
    if text.lower() not in files:
        raise ConfigError(f"{text!r} is not in {searched(kind)}: {hint(text.lower(), files)}")
    return files[text.lower()]
