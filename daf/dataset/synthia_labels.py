"""Convert SYNTHIA's original labels (16-bit, several channels) to the 8-bit ids that ADVENT and its successors read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from advent.dataset.image_io import read_png
from advent.errors import DataError
from advent.runtime.lock import FolderLock
from advent.runtime.progress import Progress
from advent.utils.sampling import evenly_spaced
from advent.utils.serialization import is_temporary, write_atomically

ORIGINAL, PARSED = Path("GT/LABELS"), Path("parsed_LABELS")
MAX_ID = 22
SAMPLE = 24


def convert_labels(root: Path, workers: int = 0) -> int:
    """Write `parsed_LABELS/<name>.png` for every `GT/LABELS/<name>.png` under `root`; returns how many were written.

    Existing files are kept and files are written atomically, so an interrupted conversion resumes. Raises DataError on
    the first invalid file.
    """
    files = sorted(file for file in (root / ORIGINAL).glob("*.png") if not file.name.startswith("."))
    if not files:
        raise DataError(f"{root / ORIGINAL}: no PNG there; give the folder of SYNTHIA-RAND-CITYSCAPES that holds GT")
    channel = find_class_channel(files)
    lock = FolderLock(root / PARSED).acquire()
    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1)
    try:
        for leftover in (root / PARSED).glob(".*"):
            if is_temporary(leftover):
                leftover.unlink(missing_ok=True)
        missing = [file for file in files if not (root / PARSED / file.name).is_file()]
        with Progress("SYNTHIA's labels", len(missing)) as progress:
            for job in as_completed([pool.submit(_convert, file, channel, root / PARSED) for file in missing]):
                job.result()
                progress.step()
    finally:
        pool.shutdown(cancel_futures=True)
        lock.release()
    return len(missing)


def find_class_channel(files: Sequence[Path]) -> int:
    """Index of the class-id channel in OpenCV's order, detected from content: the channel order depends on the reader.

    In a sample of the files, all its values are ids and few are 0 (void: 1 % of SYNTHIA's pixels). An instance channel
    is 0 on classes without instances, most of a street, and exceeds the ids elsewhere. Raises DataError if no channel
    fits, or if two different channels fit equally well; of identical channels the first is taken.
    """
    if not files:
        raise DataError("no label files; give those of SYNTHIA's GT/LABELS")
    pictures = [_channels(files[index]) for index in evenly_spaced(len(files), SAMPLE)]
    depth = min(picture.shape[2] for picture in pictures)
    highest = [max(int(picture[..., c].max()) for picture in pictures) for c in range(depth)]
    zeros = [float(np.mean([np.mean(picture[..., c] == 0) for picture in pictures])) for c in range(depth)]
    fitting = [c for c in range(depth) if highest[c] <= MAX_ID and zeros[c] < 0.5]
    if not fitting:
        ranges = ", ".join(f"channel {c}: 0..{highest[c]}, {100 * zeros[c]:.0f} % zeros" for c in range(depth))
        raise DataError(
            f"{files[0].parent}: no channel holds class ids 0..{MAX_ID} ({ranges}); these are not the labels of "
            "SYNTHIA-RAND-CITYSCAPES"
        )
    best = min(fitting, key=lambda c: zeros[c])
    for rival in fitting:
        if np.isclose(zeros[rival], zeros[best]) and any((p[..., rival] != p[..., best]).any() for p in pictures):
            raise DataError(
                f"{files[0].parent}: channels {best} and {rival} differ, and either could hold the class ids; "
                "download the original files of SYNTHIA-RAND-CITYSCAPES again"
            )
    return best


def _channels(file: Path) -> np.ndarray:
    """Label file as (H, W, C), unchanged. Raises DataError on a colour image."""
    picture = read_png(file)
    if picture.ndim == 3 and picture.dtype == np.uint8:
        raise DataError(f"{file}: 8 bits and {picture.shape[2]} channels are colours; take GT/LABELS, not GT/COLOR")
    return picture if picture.ndim == 3 else picture[..., None]


def _convert(file: Path, channel: int, folder: Path) -> None:
    picture = _channels(file)
    if channel >= picture.shape[2]:
        raise DataError(
            f"{file}: has no channel {channel}, the class-id channel of the others (channels: {picture.shape[2]}); "
            "download it again"
        )
    value = int(picture[..., channel].max())
    if value > MAX_ID:
        raise DataError(
            f"{file}: holds {value} where others hold class ids 0..{MAX_ID} (channel {channel}); download it again"
        )
    success, data = cv2.imencode(".png", picture[..., channel].astype(np.uint8))
    assert success

    def write(handle: BinaryIO) -> None:
        handle.write(data.tobytes())

    write_atomically(folder / file.name, write)
