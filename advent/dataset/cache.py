"""On-disk cache of decoded and resized images.

Each image has one .npz (uncompressed, each array with zip's CRC-32). The folder's name contains a digest of all
settings that the arrays depend on. An entry also stores sizes and modification times of its source files; an entry that
no longer matches them is not used.
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
FORMAT = 2  # format 1: images without EXIF orientation applied
MANIFEST = "cache.json"
STAMP = "stamp"

Arrays = dict[str, np.ndarray]


class Cache:
    """Cache entries of one data set under one set of settings. `used`: whether it has been built."""

    def __init__(self, base: Path, prefix: str, settings: Mapping[str, Any]) -> None:
        self.settings = json.loads(json.dumps({"format": FORMAT, **settings}))
        text = json.dumps(self.settings, sort_keys=True)
        self.base, self.prefix = base, prefix
        self.folder = base / f"{prefix}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
        self.used = (self.folder / MANIFEST).is_file()

    def begin(self) -> None:
        """Create the folder and write its manifest (the settings). From then on `used` is True."""
        write_json(self.folder / MANIFEST, self.settings)
        self.used = True

    def why_unused(self) -> str | None:
        """Why an existing cache of this data set does not match the settings, as text; None if there is none."""
        for manifest in sorted(self.base.glob(f"{self.prefix}-*/{MANIFEST}")):
            other = read_json(manifest)
            for key, value in self.settings.items():
                if other.get(key) != value:
                    return f"{manifest.parent}: made with {key} {other.get(key)}, this run has {value}"
        return None

    def holds(self, names: Sequence[str]) -> int:
        """Number of these images that have an entry, judged by file names."""
        entries = {
            os.path.relpath(os.path.join(where, f), self.folder)
            for where, _, files in os.walk(self.folder)
            for f in files
        }
        return sum(f"{name}.npz" in entries for name in names)

    def read(self, name: str, files: Sequence[Path]) -> Arrays | None:
        """Cached arrays of one image; None if there is no entry, or if `files` have changed since it was written."""
        path = self.path(name)
        try:
            with np.load(path, allow_pickle=False) as entry:
                if not np.array_equal(entry[STAMP], stamp(files)):
                    log.warning("%s: the image files have changed since; reading them instead", path)
                    return None
                return {key: entry[key] for key in entry.files if key != STAMP}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            log.warning("%s: damaged (%s); reading the image files instead", path, first_line(error))
            return None

    def write(self, name: str, files: Sequence[Path], arrays: Arrays) -> None:
        """Write the arrays of one image atomically."""
        entry: dict[str, Any] = {**arrays, STAMP: stamp(files)}
        write_atomically(self.path(name), lambda handle: np.savez(handle, **entry))

    def path(self, name: str) -> Path:
        """File of one entry."""
        return self.folder / f"{name}.npz"


def stamp(files: Sequence[Path]) -> np.ndarray:
    """Size in bytes and modification time in ns of every file, (n, 2) int64."""
    status = [os.stat(file) for file in files]
    return np.array([(entry.st_size, entry.st_mtime_ns) for entry in status], np.int64)
