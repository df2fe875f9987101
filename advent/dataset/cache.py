"""Decoded and resized items on disk, so that a run need not decode and resize them again.

One .npz per image (uncompressed, each array with the CRC-32 that zip keeps), in a folder whose name holds the digest of
everything that the arrays depend on. An entry also holds sizes and times of the files that it was made of: one that no
longer fits them is not used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from advent.errors import first_line
from advent.utils.serialization import read_json, write_atomically, write_json

log = logging.getLogger(__name__)
FORMAT = 2  # 1 held images that were not turned as their files say (EXIF)
MANIFEST = "cache.json"
STAMP = "stamp"

Arrays = dict[str, np.ndarray]


class Cache:
    """The entries of one data set under one setting. `used` says whether there is anything to read."""

    def __init__(self, base: Path, prefix: str, settings: Mapping[str, Any]) -> None:
        self.settings = json.loads(json.dumps({"format": FORMAT, **settings}))
        text = json.dumps(self.settings, sort_keys=True)
        self.base, self.prefix = base, prefix
        self.folder = base / f"{prefix}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
        self.used = (self.folder / MANIFEST).is_file()

    def begin(self) -> None:
        """Make the folder and say what it holds; from now on entries are read, too."""
        write_json(self.folder / MANIFEST, self.settings)
        self.used = True

    def why_unused(self) -> str | None:
        """In words, why the caches of this data set that lie here do not fit; None where there are none."""
        for manifest in sorted(self.base.glob(f"{self.prefix}-*/{MANIFEST}")):
            other = read_json(manifest)
            for key, value in self.settings.items():
                if other.get(key) != value:
                    return f"{manifest.parent}: made with {key} {other.get(key)}, this run has {value}"
        return None

    def holds(self, names: Sequence[str]) -> int:
        """How many of these images have an entry, as far as file names tell."""
        there = {
            os.path.relpath(os.path.join(where, f), self.folder)
            for where, _, files in os.walk(self.folder)
            for f in files
        }
        return sum(f"{name}.npz" in there for name in names)

    def read(self, name: str, files: Sequence[Path]) -> Arrays | None:
        """The arrays of one image made of `files`; None where there are none, or they do not fit."""
        path = self.path(name)
        try:
            with np.load(path, allow_pickle=False) as entry:
                if not np.array_equal(entry[STAMP], stamp(files)):
                    log.warning("%s: its picture has changed since; the picture is read instead", path)
                    return None
                return {key: entry[key] for key in entry.files if key != STAMP}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            log.warning("%s: damaged (%s); the picture is read instead", path, first_line(error))
            return None

    def write(self, name: str, files: Sequence[Path], arrays: Arrays) -> None:
        """Leave the arrays of one image, whole or not at all."""
        entry: dict[str, Any] = {**arrays, STAMP: stamp(files)}
        write_atomically(self.path(name), lambda handle: np.savez(handle, **entry))

    def path(self, name: str) -> Path:
        """The file of one entry."""
        return self.folder / f"{name}.npz"


def stamp(files: Sequence[Path]) -> np.ndarray:
    """Size and time of change of every file, (n, 2) int64."""
    status = [os.stat(file) for file in files]
    return np.array([(one.st_size, one.st_mtime_ns) for one in status], np.int64)
