"""Reading of single files. A file that cannot be read is a DataError naming it, never a half-decoded picture."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from advent.errors import DataError

IMG_MEAN = (104.00698793, 116.66876762, 122.67891434)  # BGR, of the released weights
MOST_PIXELS = 128_000_000  # three times the largest street photograph; a few kilobytes can claim to be terabytes
_PNG_MAGIC, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_LABEL_MODES = ("L", "P", "1", "I", "I;16", "I;16B")


def open_picture(path: Path) -> Image.Image:
    """The fully decoded picture in its own mode."""
    try:
        with Image.open(path) as picture:
            _refuse_huge(path, *picture.size)
            picture.load()
            return picture
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error, Image.DecompressionBombError) as error:
        known = isinstance(error, UnidentifiedImageError) or not str(error)
        reason = "unknown format" if known else str(error).splitlines()[0]
        raise DataError(f"{path}: cannot be read as a picture ({reason}); fetch or unpack it again") from None


def _refuse_huge(path: Path, width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise DataError(
            f"{path}: {width} x {height} pixels; more than {MOST_PIXELS:,} are refused unopened: scale it down"
        )


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height) of a picture, from its header alone."""
    try:
        with Image.open(path) as picture:
            return picture.size
    except (OSError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as a picture ({error}); fetch or unpack it again") from None


def read_image(path: Path) -> Image.Image:
    """An RGB picture, 8 bits per channel."""
    return open_picture(path).convert("RGB")


def read_ids(path: Path) -> np.ndarray:
    """A one-channel label file as it is: (H, W) uint8, a wider integer for 16-bit files; palettes give indices."""
    picture = open_picture(path)
    if picture.mode not in _LABEL_MODES:
        raise DataError(
            f"{path}: a label file has one channel of class ids, this one is {picture.mode} "
            f"(a colour or multi-channel picture); use the files with ids"
        )
    ids = np.asarray(picture)
    return ids.astype(np.uint8) if ids.dtype == bool else ids


def map_ids(ids: np.ndarray, table: np.ndarray, max_id: int, path: Path, what: str) -> np.ndarray:
    """Label ids -> uint8 train ids through `table`; 255 is always allowed. `what` ends the error on any other id."""
    wrong = (ids > max_id) & (ids != 255) if ids.dtype == np.uint8 else ((ids > max_id) & (ids != 255)) | (ids < 0)
    if wrong.any():
        raise DataError(f"{path}: label id {int(ids[wrong][0])} {what}")
    return table[ids]


def read_16bit(path: Path, what: str) -> np.ndarray:
    """A 16-bit PNG of one channel or of three equal ones -> (H, W) uint16.

    OpenCV, because Pillow cuts a three-channel 16-bit PNG to 8 bits without a word.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    # OpenCV may return the upper part of a truncated PNG as if all were well: look for its last chunk first.
    whole = data.startswith(_PNG_MAGIC) and _PNG_END in data[-64:]
    if whole:
        _refuse_huge(path, *struct.unpack(">II", data[16:24]))
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if whole else None
    if values is None:
        raise DataError(f"{path}: not a whole PNG; fetch or unpack it again")
    if values.dtype != np.uint16:
        raise DataError(f"{path}: {what} is a 16-bit PNG, this one has 8 bits; some tool cut it, use the original file")
    if values.ndim == 3:
        if values.shape[2] > 1 and (values[..., 1:3] != values[..., :1]).any():
            raise DataError(f"{path}: {what} has one channel or equal ones, these differ; use the original file")
        values = values[..., 0]
    return np.ascontiguousarray(values)


def network_input(rgb: np.ndarray, mean: Sequence[float] = IMG_MEAN) -> np.ndarray:
    """(H, W, 3) RGB -> (3, H, W) float32 BGR minus the mean: the convention of the released weights."""
    bgr = rgb[:, :, ::-1].astype(np.float32) - np.asarray(mean, np.float32)
    return np.ascontiguousarray(bgr.transpose(2, 0, 1))
