"""Video inference: predictions are written as videos of the same frame rate."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from advent.errors import DataError
from advent.runtime.progress import Progress
from daf.inference import Model, in_batches, predict_batch
from daf.visualization import OutputOptions, Renderer, write_still

log = logging.getLogger(__name__)
SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".mts", ".m2ts")
CODEC, SUFFIX = "mp4v", ".mp4"  # supported by every build of OpenCV
RATE = 25.0  # frames per second, for a file that does not specify it
LOST = 0.02  # tolerated share of missing frames: some containers only estimate their frame count


def video_paths(output: Path, key: str, options: OutputOptions) -> list[Path]:
    """Paths of all videos that `predict_video` writes."""
    products = ["color", "overlay", *["depth_color"] * bool(options.depth), *["entropy"] * options.entropy]
    return [output / product / f"{key}{SUFFIX}" for product in [*products, *["map"] * options.map]]


def predict_video(
    model: Model, file: Path, output: Path, key: str, options: OutputOptions, batch_size: int, stills: bool
) -> tuple[int, str | None]:
    """Write the predictions of a video as videos, and with `stills` as images per frame.

    Every file is written atomically. Returns the number of frames, and a warning if fewer could be read than the
    file declares. Raises DataError if no frame can be read.
    """
    capture = cv2.VideoCapture(str(file))
    sinks: dict[str, _Sink] = {}
    renderer, read = Renderer(model, options, video=True), 0
    try:
        declared = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        rate = capture.get(cv2.CAP_PROP_FPS)
        rate = rate if 0 < rate < 1000 else RATE
        with Progress(file.name, declared or 1) as progress:
            for batch in in_batches(_frames(capture), batch_size):
                for photo, prediction in zip(batch, predict_batch(model, batch, maps=options.maps), strict=True):
                    for product, picture in renderer.pictures(photo, prediction):
                        if product not in sinks:
                            sinks[product] = _Sink(output / product / f"{key}{SUFFIX}", rate, picture.size)
                        sinks[product].write(picture)
                    if stills:
                        write_still(output, f"{key}/{read:06d}", photo, prediction, renderer)
                    read += 1
                    progress.total = max(progress.total, read)
                    progress.step()
        if not read:
            raise DataError(f"{file}: no video frame can be read; download or convert it again")
        for sink in sinks.values():
            sink.finish()
    finally:
        capture.release()
        for sink in sinks.values():
            sink.drop()
    short = declared - read > max(1, LOST * declared)
    return read, f"{file}: only {read} of its {declared} frames can be read" if short else None


def _frames(capture: cv2.VideoCapture) -> Iterator[Image.Image]:
    while True:
        success, frame = capture.read()
        if not success:
            return
        yield Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))


class _Sink:
    """Video writer to a temporary file, which is renamed when finished and deleted otherwise."""

    def __init__(self, path: Path, rate: float, size_wh: tuple[int, int]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.temporary = path, path.with_name(f".{path.name}.{os.getpid()}{SUFFIX}")
        self.size = size_wh[0] // 2 * 2 or 2, size_wh[1] // 2 * 2 or 2  # the codec supports even sizes only
        code = cv2.VideoWriter.fourcc(*CODEC)
        self._writer = cv2.VideoWriter(str(self.temporary), code, rate, self.size)
        if not self._writer.isOpened():
            raise OSError(None, "OpenCV cannot write this video", str(path))

    def write(self, picture: Image.Image) -> None:
        rgb = np.asarray(picture.convert("RGB"))
        if (rgb.shape[1], rgb.shape[0]) != self.size:
            rgb = rgb[: self.size[1], : self.size[0]]
        self._writer.write(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))

    def finish(self) -> None:
        self._writer.release()
        os.replace(self.temporary, self.path)

    def drop(self) -> None:
        self._writer.release()
        self.temporary.unlink(missing_ok=True)
