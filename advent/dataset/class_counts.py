"""Pixel counts of every class in every label of a data set, cached on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
from pathlib import Path

import numpy as np

from advent.dataset.base_dataset import StreetDataset
from advent.dataset.cache import stamp
from advent.errors import first_line
from advent.runtime.progress import in_threads
from advent.utils.serialization import write_atomically

log = logging.getLogger(__name__)
FORMAT = 1


def class_counts(dataset: StreetDataset, folder: Path | None) -> np.ndarray:
    """(images, classes) int64: pixels of every class in the ground truth of a data set, at its label size.

    `folder`: the counts are stored there, under a name that depends on all that they depend on: classes, sizes,
    label files with their sizes and times. A folder that cannot be written is no error: the counts are made again.
    Raises DataError on a label that cannot be read.
    """
    file = folder / f"{dataset.spec.name}-{dataset.split}-class-counts-{_digest(dataset)}.npz" if folder else None
    counts = _read(file, (len(dataset), len(dataset.classes))) if file else None
    if counts is not None:
        return counts
    rows = in_threads(lambda index: _counted(dataset, index), range(len(dataset)), "count the labels' classes")
    counts = np.stack([rows[index] for index in range(len(dataset))])
    if file:
        try:
            write_atomically(file, lambda handle: np.savez(handle, counts=counts))
        except OSError as error:
            log.warning("%s: not written (%s); the next run counts the labels' classes again", file, first_line(error))
    return counts


def _counted(dataset: StreetDataset, index: int) -> np.ndarray:
    return np.bincount(dataset.label(index).ravel(), minlength=256)[: len(dataset.classes)]


def _read(file: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """Stored counts; None if there are none, or if the file is damaged."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            counts = stored["counts"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        log.warning("%s: damaged (%s); counting the labels' classes again", file, first_line(error))
        return None
    return counts if counts.shape == shape else None


def _digest(dataset: StreetDataset) -> str:
    """Digest of everything that the counts depend on."""
    spec, files = dataset.spec, dataset.label_files
    assert files is not None, "for a data set with_labels"
    assert dataset.table is not None
    settings = {
        "format": FORMAT,
        "table": dataset.table.tolist(),
        "classes": len(dataset.classes),
        "palette": sorted(spec.palette.items()) if spec.palette else None,
        "fill_label": spec.fill_label,
        "geometry": spec.geometry,
        "size": dataset.label_size,
        "names": dataset.names,
        "files": [os.path.relpath(file, dataset.resolved.root) for file in files],
        "stamps": stamp(files).tolist(),
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]
