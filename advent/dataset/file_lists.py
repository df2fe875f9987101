"""Which images a data set has: from a list, from a list file, or by looking into the folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from advent.dataset.layout import NamePattern
from advent.errors import DataError


def scan(folder: Path, pattern: NamePattern) -> list[str]:
    """Names of all images below `folder`: relative, posix, sorted. Hidden files and folders are left out.

    Links are followed, but never into a folder that holds them. Raises DataError on a folder that may not be read.
    """
    found = []
    for file in walk(folder):
        if pattern.fields(file):
            found.append(file)
    if not found:
        raise DataError(f"{folder}: holds no {pattern}; the images of this split belong there")
    return sorted(found)


def walk(folder: Path) -> Iterable[str]:
    """Every file below `folder`, relative and posix, without hidden ones. Raises DataError where it may not look."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be looked into ({error.strerror}); make it readable or take it away")

    above: dict[str, frozenset[tuple[int, int]]] = {}  # folder -> itself and all folders it was reached through
    for where, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        status = os.stat(where)
        path = above.get(os.path.dirname(where), frozenset()) | {(status.st_dev, status.st_ino)}
        above[where] = path
        folders[:] = [name for name in sorted(folders) if not name.startswith(".") and not _within(where, name, path)]
        relative = Path(where).relative_to(folder).as_posix()
        yield from (name if relative == "." else f"{relative}/{name}" for name in files if not name.startswith("."))


def _within(where: str, name: str, above: frozenset[tuple[int, int]]) -> bool:
    """Whether a folder is a link back to one that it was reached through: such a loop has no end."""
    path = os.path.join(where, name)
    if not os.path.islink(path):
        return False
    try:
        status = os.stat(path)
    except OSError:
        return True
    return (status.st_dev, status.st_ino) in above


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


def checked_names(names: Iterable[str], folder: Path, pattern: NamePattern, where: str) -> list[str]:
    """Names as they are kept: relative to `folder`, posix, inside it, of the images' form, existing.

    `where` opens the error: the list file, or what gave the names.
    """
    kept = []
    for raw in names:
        name = PurePosixPath(raw.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or raw[1:3] in (":/", ":\\"):
            raise DataError(f"{where}: {raw!r} leaves the images' folder; names are relative to {folder}")
        if not pattern.fields(str(name)):
            raise DataError(f"{where}: {raw!r} is no image of this data set; names look like {pattern}")
        if not (folder / name).is_file():
            raise DataError(f"{where}: {raw!r} is not below {folder}; names are relative to that folder")
        kept.append(str(name))
    if not kept:
        raise DataError(f"{where}: no image is named")
    return kept


def with_existing_suffix(path: Path) -> Path:
    """The path, or the same with its suffix in capitals where only that exists."""
    if not path.is_file():
        capital = path.with_suffix(path.suffix.upper())
        if capital.is_file():
            return capital
    return path
