"""Path lookup: YAML files in configs/ by name, and home folders."""

from __future__ import annotations

import os
from pathlib import Path

from advent.errors import ConfigError, hint

PROJECT = Path(__file__).resolve().parents[2]
# In a checkout configs/ is beside the packages; in an installed wheel it is inside this one (setup.py).
CONFIGS = PROJECT / "configs" if (PROJECT / "configs").is_dir() else PROJECT / "advent" / "configs"


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
            path = CONFIGS / kind / text
        if not path.is_file():
            raise ConfigError(f"{text}: no such file; use a path, or a bare name from {CONFIGS / kind}")
        return path
    files = {path.stem: path for path in sorted((CONFIGS / kind).glob("*.yml"))}
    if text.lower() not in files:
        raise ConfigError(f"{text!r} is not in {CONFIGS / kind}: {hint(text.lower(), files)}")
    return files[text.lower()]
