"""Filling the cache of decoded images that scripts/prepare.py makes and the reader uses."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from advent.dataset.base_dataset import StreetDataset
from advent.dataset.cache import Cache
from advent.errors import ConfigError, DataError
from advent.runtime.lock import FolderLock
from advent.runtime.progress import Progress
from advent.utils.serialization import is_temporary

log = logging.getLogger(__name__)
SPARE = 0.02  # of the disk stays free


@dataclass(frozen=True)
class Filled:
    """What a filling did: entries made now, entries that were there and whole, and the folder's bytes."""

    folder: Path
    made: int
    kept: int
    bytes: int


def fill_cache(dataset: StreetDataset, workers: int = 0) -> Filled:
    """Leave an entry for every image of a data set; what is there and whole is kept.

    May be stopped at any moment and called again: every entry appears whole or not at all. Raises DataError before
    anything is written when the disk cannot hold it all, and on the first picture that cannot be read.
    """
    cache = dataset.cache
    if cache is None:
        raise ConfigError("DATA_CACHE: null: there is no folder to keep decoded images in; name one")
    lock = FolderLock(cache.folder).acquire()
    try:
        for leftover in cache.folder.rglob(".*"):
            if is_temporary(leftover):
                leftover.unlink(missing_ok=True)
        missing = _missing(dataset, cache, workers)
        _check_room(dataset, cache, missing)
        cache.begin()
        _each(lambda index: _make(dataset, cache, index), missing, f"cache {cache.folder.name}", workers)
    finally:
        lock.release()
    size = sum(cache.path(name).stat().st_size for name in dataset.names)
    return Filled(cache.folder, len(missing), len(dataset) - len(missing), size)


def _make(dataset: StreetDataset, cache: Cache, index: int) -> bool:
    files = dataset.files(index)
    cache.write(dataset.names[index], files, dataset.decode(index))
    return True


def _missing(dataset: StreetDataset, cache: Cache, workers: int) -> list[int]:
    """The images without a whole, fitting entry; entries are read in full, which compares their checksums."""
    there = [index for index, name in enumerate(dataset.names) if cache.path(name).is_file()]

    def whole(index: int) -> bool:
        return cache.read(dataset.names[index], dataset.files(index)) is not None

    good = _each(whole, there, f"check {cache.folder.name}", workers)
    return sorted(set(range(len(dataset))) - {index for index, one in good.items() if one})


def _check_room(dataset: StreetDataset, cache: Cache, missing: list[int]) -> None:
    if not missing:
        return
    one = sum(array.nbytes for array in dataset.decode(missing[0]).values())
    need, free = one * len(missing), shutil.disk_usage(cache.base if cache.base.is_dir() else _parent(cache.base)).free
    log.info("%s: %d images, %.1f GiB (%.1f GiB are free)", cache.folder, len(missing), need / 2**30, free / 2**30)
    if need > free * (1 - SPARE):
        raise DataError(
            f"{cache.folder}: needs {need / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free; make room, or put the "
            "cache elsewhere with DATA_CACHE=DIR"
        )


def _parent(path: Path) -> Path:
    return next(parent for parent in path.absolute().parents if parent.is_dir())


def _each(work: Callable[[int], bool], indices: list[int], what: str, workers: int) -> dict[int, bool]:
    """Run `work` over indices in threads, with progress; the first error ends it at once."""
    done: dict[int, bool] = {}
    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1)
    try:
        with Progress(what, len(indices)) as progress:
            jobs = {pool.submit(work, index): index for index in indices}
            for job in as_completed(jobs):
                done[jobs[job]] = job.result()
                progress.step()
    finally:
        pool.shutdown(cancel_futures=True)
    return done
