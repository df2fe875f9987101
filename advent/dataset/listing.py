"""Which images a data set has: from a list, from a list file, or by looking into the folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from advent.errors import DataError

Ending = tuple[str, str]  # what a file's name has before and after the part that images, labels and depth share


def is_image(file: str, ending: Ending) -> bool:
    """Whether a file's name fits; the suffix in any case, since some archives hold .PNG or .JPG."""
    return file.startswith(ending[0]) and file.lower().endswith(ending[1].lower()) and not file.startswith(".")


def scan(folder: Path, ending: Ending) -> list[str]:
    """Names of all images below `folder`: relative, posix, sorted. Hidden files and folders are left out."""
    found = []
    for where, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        relative = Path(where).relative_to(folder).as_posix()
        for name in files:
            if is_image(name, ending):
                found.append(name if relative == "." else f"{relative}/{name}")
    if not found:
        raise DataError(f"{folder}: holds no {ending[0]}*{ending[1]}; the images of this split belong there")
    return sorted(found)


def read_list(list_file: Path) -> list[str]:
    """The lines of a list file; blank lines, Windows line ends and a byte-order mark do no harm."""
    try:
        lines = list_file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{list_file}: the list of images cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise DataError(f"{list_file}: a list of images is a text file with one name per line") from None
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise DataError(f"{list_file}: the list of images is empty")
    return names


def checked_names(names: Iterable[str], folder: Path, ending: Ending, where: str) -> list[str]:
    """Names as they are kept: relative to `folder`, posix, inside it, with the images' ending, existing.

    `where` opens the error: the list file, or what gave the names.
    """
    kept = []
    for raw in names:
        name = PurePosixPath(raw.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or raw[1:3] in (":/", ":\\"):
            raise DataError(f"{where}: {raw!r} leaves the images' folder; names are relative to {folder}")
        if not is_image(name.name, ending):
            raise DataError(f"{where}: {raw!r} is no image of this data set; names look like {ending[0]}*{ending[1]}")
        if not (folder / name).is_file():
            raise DataError(f"{where}: {raw!r} is not below {folder}; names are relative to that folder")
        kept.append(str(name))
    if not kept:
        raise DataError(f"{where}: no image is named")
    return kept


def existing(path: Path) -> Path:
    """The path, or the same with its suffix in capitals where only that exists."""
    if not path.is_file():
        capital = path.with_suffix(path.suffix.upper())
        if capital.is_file():
            return capital
    return path
