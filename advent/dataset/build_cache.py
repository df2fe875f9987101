"""Builds the cache of decoded images (scripts/prepare.py) that StreetDataset reads."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from advent.dataset.base_dataset import StreetDataset
from advent.dataset.cache import Cache
from advent.errors import ConfigError, DataError
from advent.runtime.lock import FolderLock
from advent.runtime.progress import in_threads
from advent.utils.serialization import is_temporary

log = logging.getLogger(__name__)
SPARE = 0.02  # fraction of the disk space that stays free


@dataclass(frozen=True)
class Filled:
    """Result of `fill_cache`: entries written, valid entries kept, and the folder's size in bytes."""

    folder: Path
    made: int
    kept: int
    bytes: int


def fill_cache(dataset: StreetDataset, workers: int = 0) -> Filled:
    """Write a cache entry for every image of a data set; valid entries are kept.

    It may be interrupted at any time and called again: entries are written atomically. Raises DataError before the
    first write if the disk is too small, and on the first image that cannot be read. Raises ConfigError without a
    cache folder.
    """
    cache = dataset.cache
    if cache is None:
        raise ConfigError("DATA_CACHE: null: no folder for decoded images; set DATA_CACHE=DIR")
    lock = FolderLock(cache.folder).acquire()
    try:
        for leftover in cache.folder.rglob(".*"):
            if is_temporary(leftover):
                leftover.unlink(missing_ok=True)
        missing = _missing(dataset, cache, workers)
        _check_room(dataset, cache, missing)
        cache.begin()
        in_threads(lambda index: _make(dataset, cache, index), missing, f"cache {cache.folder.name}", workers)
    finally:
        lock.release()
    size = sum(cache.path(name).stat().st_size for name in dataset.names)
    return Filled(cache.folder, len(missing), len(dataset) - len(missing), size)


def _make(dataset: StreetDataset, cache: Cache, index: int) -> bool:
    files = dataset.files(index)
    cache.write(dataset.names[index], files, dataset.decode(index))
    return True


def _missing(dataset: StreetDataset, cache: Cache, workers: int) -> list[int]:
    """Indices of images without a valid entry. Entries are read in full, which compares their checksums."""
    cached = [index for index, name in enumerate(dataset.names) if cache.path(name).is_file()]

    def is_valid(index: int) -> bool:
        return cache.read(dataset.names[index], dataset.files(index)) is not None

    checked = in_threads(is_valid, cached, f"check {cache.folder.name}", workers)
    return sorted(set(range(len(dataset))) - {index for index, valid in checked.items() if valid})


def _check_room(dataset: StreetDataset, cache: Cache, missing: list[int]) -> None:
    if not missing:
        return
    entry_bytes = sum(array.nbytes for array in dataset.decode(missing[0]).values())
    need = entry_bytes * len(missing)
    free = shutil.disk_usage(cache.base if cache.base.is_dir() else _parent(cache.base)).free
    log.info("%s: %d images, %.1f GiB (%.1f GiB are free)", cache.folder, len(missing), need / 2**30, free / 2**30)
    if need > free * (1 - SPARE):
        raise DataError(
            f"{cache.folder}: needs {need / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free; make room, or put the "
            "cache elsewhere with DATA_CACHE=DIR"
        )


def _parent(path: Path) -> Path:
    return next(parent for parent in path.absolute().parents if parent.is_dir())
