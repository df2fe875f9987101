"""Image names of a data set: from a list file, from given names, or by scanning the image folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from advent.dataset.layout import NamePattern
from advent.errors import DataError


def scan(folder: Path, pattern: NamePattern) -> list[str]:
    """Names of all images in `folder` and its subfolders: relative, posix, sorted.

    Hidden files and folders are skipped. Symbolic links are followed, except to a parent folder. Raises DataError
    on an unreadable folder and if there is no image.
    """
    names = []
    for file in walk(folder):
        if pattern.fields(file):
            names.append(file)
    if not names:
        raise DataError(f"{folder}: contains no {pattern}; put the images of this split there")
    return sorted(names)


def walk(folder: Path) -> Iterable[str]:
    """All non-hidden files in `folder` and its subfolders: relative, posix. Raises DataError on unreadable folders."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be listed ({error.strerror}); make it readable or remove it")

    above: dict[str, frozenset[tuple[int, int]]] = {}  # folder -> (device, inode) of it and its parents
    for where, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        status = os.stat(where)
        path = above.get(os.path.dirname(where), frozenset()) | {(status.st_dev, status.st_ino)}
        above[where] = path
        folders[:] = [name for name in sorted(folders) if not name.startswith(".") and not _within(where, name, path)]
        relative = Path(where).relative_to(folder).as_posix()
        yield from (name if relative == "." else f"{relative}/{name}" for name in files if not name.startswith("."))


def _within(where: str, name: str, above: frozenset[tuple[int, int]]) -> bool:
    """Whether a folder is a symbolic link to one of its own parents, which would recurse without end."""
    path = os.path.join(where, name)
    if not os.path.islink(path):
        return False
    try:
        status = os.stat(path)
    except OSError:
        return True
    return (status.st_dev, status.st_ino) in above


def read_list(list_file: Path) -> list[str]:
    """Lines of a list file. Blank lines, Windows line endings and a byte-order mark are accepted. Raises DataError."""
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
    """Validated image names: relative to `folder`, posix, inside it, matching `pattern`, existing.

    `where` prefixes the error messages: the list file, or the source of the names. Raises DataError.
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
        raise DataError(f"{where}: contains no image name")
    return kept


def with_existing_suffix(path: Path) -> Path:
    """The path, or the same with an upper-case suffix if only that exists."""
    if not path.is_file():
        capital = path.with_suffix(path.suffix.upper())
        if capital.is_file():
            return capital
    return path
