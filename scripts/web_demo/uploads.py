"""Checks and reading of uploaded files: limits on size, length and pixels. No Gradio here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
from PIL import Image

from advent.dataset.formats import picture_suffixes
from advent.dataset.image_io import MOST_PIXELS
from advent.errors import DataError
from daf.inference import load_rgb
from daf.predict_files import EXAMPLES
from daf.video import RATE
from daf.video import SUFFIXES as VIDEOS

LARGEST_FILE = 100 * 2**20  # bytes
LONGEST_VIDEO = 20  # seconds
MOST_FRAMES = 48  # frames of a video that are predicted
LARGEST_SIDE = 2048  # pixels of the pictures that are predicted and shown


@dataclass(frozen=True)
class Video:
    """Frames to predict, evenly spaced over a video, and their rate when shown (per second)."""

    frames: list[Image.Image]
    rate: float
    seconds: float


def is_video(file: Path) -> bool:
    """Whether an uploaded file is a video, by its suffix. Raises DataError if it is neither an image nor a video."""
    suffix = file.suffix.lower()
    if suffix not in VIDEOS and suffix not in picture_suffixes():
        raise DataError(f"{file}: is neither an image nor a video by its file extension ({EXAMPLES})")
    return suffix in VIDEOS


def check_size(name: str, size: int) -> None:
    """Raise DataError if a file of `size` bytes is empty or larger than LARGEST_FILE."""
    if size > LARGEST_FILE:
        raise DataError(
            f"{name}: {size / 2**20:,.0f} MB exceed the limit of {LARGEST_FILE // 2**20} MB; scale or cut it first, or "
            "use scripts/predict.py"
        )
    if size == 0:
        raise DataError(f"{name}: the file is empty; download or export it again")


def read_picture(file: Path) -> Image.Image:
    """The upright RGB image, scaled down to LARGEST_SIDE.

    Raises DataError; an image of more than MOST_PIXELS is refused by its header, before it is decoded.
    """
    return _scaled_down(load_rgb(file))


def read_video(file: Path) -> Video:
    """Up to MOST_FRAMES evenly spaced frames, scaled down to LARGEST_SIDE.

    Raises DataError if no frame can be read, or the video is longer than LONGEST_VIDEO.
    """
    capture = cv2.VideoCapture(str(file), cv2.CAP_FFMPEG)
    try:
        width, height = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > MOST_PIXELS:
            raise DataError(f"{file}: {width} x {height} pixels exceed the limit of {MOST_PIXELS:,}; scale it down")
        rate = capture.get(cv2.CAP_PROP_FPS)
        rate = rate if 0 < rate < 1000 else RATE
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if count <= 0:  # some containers do not declare it
            count = _count_frames(file, math.ceil(LONGEST_VIDEO * rate) + 1)
        if count > LONGEST_VIDEO * rate:
            raise DataError(
                f"{file}: the video is longer than {LONGEST_VIDEO} seconds; cut it first, or use scripts/predict.py"
            )
        step = max(math.ceil(count / MOST_FRAMES), 1)
        frames = list(islice(_every(capture, step), MOST_FRAMES))
    finally:
        capture.release()
    if not frames:
        raise DataError(f"{file}: no video frame can be read; download or convert it again")
    return Video(frames, rate / step, count / rate)


def _every(capture: cv2.VideoCapture, step: int) -> Iterator[Image.Image]:
    """The first of every `step` frames."""
    while True:
        success, frame = capture.read()
        if not success:
            return
        yield _scaled_down(Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)))
        for _ in range(step - 1):
            if not capture.grab():
                return


def _count_frames(file: Path, most: int) -> int:
    """Number of frames that can be read, up to `most`."""
    capture, count = cv2.VideoCapture(str(file), cv2.CAP_FFMPEG), 0
    while count < most and capture.grab():
        count += 1
    capture.release()
    return count


def _scaled_down(picture: Image.Image) -> Image.Image:
    """The image with its aspect ratio, and no side longer than LARGEST_SIDE."""
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    return picture
