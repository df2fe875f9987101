"""Trained networks that the demo page offers, found in folders without loading them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from advent.checkpoints.run_dir import SNAPSHOT
from advent.dataset.file_lists import walk
from advent.errors import CheckpointError, DataError
from advent.utils.paths import PROJECT
from daf.sharing import CONFIG, WEIGHTS

SUFFIXES = (".safetensors", ".pth")


@dataclass(frozen=True)
class Choice:
    """A checkpoint file and its config; `name` is shown on the page."""

    name: str
    checkpoint: Path
    config: Path


def default_folders() -> list[Path]:
    """`pretrained` of the checkout and `experiments` in the current folder."""
    return [PROJECT / "pretrained", Path("experiments")]


def find_choices(folders: Sequence[Path]) -> list[Choice]:
    """Checkpoints in `folders` and below, in the order of the folders, and of one folder the newest first.

    A checkpoint is a file NAME.safetensors or NAME.pth with NAME.yml beside it; or the `model.safetensors` of a shared
    folder, else the last snapshot of a stage's folder, with `config.yml` beside it.
    Raises CheckpointError if there is none, and DataError on a folder that cannot be listed.
    """
    choices: list[Choice] = []
    for folder in folders:
        if folder.is_dir():
            choices += sorted(_choices_below(folder), key=lambda choice: -_modified(choice.checkpoint))
        elif folder.exists():
            raise DataError(f"{folder}: is a file; --checkpoints takes the folder that contains it")
    if not choices:
        raise CheckpointError(
            f"no checkpoint in {' or '.join(map(shown, folders))}; train one: bash scripts/quickstart.sh, or name "
            "other folders: --checkpoints DIR"
        )
    return choices


def _choices_below(folder: Path) -> Iterator[Choice]:
    by_folder: dict[Path, list[str]] = {}
    for name in walk(folder):
        path = folder / name
        if path.suffix in (*SUFFIXES, ".yml"):
            by_folder.setdefault(path.parent, []).append(path.name)
    for parent, names in by_folder.items():
        yield from _choices_in(parent, names)


def _choices_in(folder: Path, names: Sequence[str]) -> Iterator[Choice]:
    """`names`: the checkpoints and configs among the files of `folder`."""
    checkpoints = [name for name in names if not name.endswith(".yml")]
    for name in checkpoints:
        own = f"{os.path.splitext(name)[0]}.yml"
        if own in names:
            yield Choice(shown(folder / name), folder / name, folder / own)
    if CONFIG in names:
        snapshots = {int(match[1]): name for name in checkpoints if (match := SNAPSHOT.fullmatch(name))}
        last = WEIGHTS if WEIGHTS in checkpoints else snapshots[max(snapshots)] if snapshots else None
        if last is not None:
            yield Choice(shown(folder), folder / last, folder / CONFIG)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # a link to a missing file; loading it says so
        return 0.0


def shown(path: Path) -> str:
    """A path as the page shows it: relative to the current folder or to the checkout, if inside one of them."""
    resolved = path.resolve()
    for base in (Path.cwd(), PROJECT):
        if resolved.is_relative_to(base):
            return resolved.relative_to(base).as_posix()
    return path.as_posix()
