"""Where specs, class sets and data folders are found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from advent.errors import ConfigError, DataError, hint

if TYPE_CHECKING:
    from advent.dataset.spec import DatasetSpec

CONFIGS = Path(__file__).resolve().parents[2] / "configs"  # the packages are installed in place (pip install -e)


def find_yaml(name_or_path: str | Path, kind: str) -> Path:
    """configs/<kind>/<name>.yml for a bare name in any case, or the file itself if a path is given."""
    text = str(name_or_path)
    if "/" in text or text.lower().endswith((".yml", ".yaml")):
        path = Path(text)
        if not path.is_file():
            path = CONFIGS / kind / text
        if not path.is_file():
            raise ConfigError(f"{text}: no such file; give a path, or a bare name from {CONFIGS / kind}")
        return path
    found = {path.stem: path for path in sorted((CONFIGS / kind).glob("*.yml"))}
    if text.lower() not in found:
        raise ConfigError(f"{text!r} is not in {CONFIGS / kind}: {hint(text.lower(), found)}")
    return found[text.lower()]


def resolve_root(data_root: str | Path, directory: str | Path | None, spec: DatasetSpec) -> Path:
    """The folder of a data set: `directory`, relative ones under `data_root`; None is the spec's own folder.

    Raises DataError that says where it looked and which keys move it.
    """
    root = Path(data_root).expanduser() / (Path(directory).expanduser() if directory else spec.folder)
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder for {spec.name}; say where the data lie with --data-root FOLDER, "
            f"or with DATA_DIRECTORY_SOURCE / DATA_DIRECTORY_TARGET for this data set alone"
        )
    return root
