"""Predictions for files: images of any size, folders of them, videos. What cannot be read is named and skipped."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from advent.dataset.listing import walk
from advent.engine.progress import Progress
from advent.engine.writer import Writer
from advent.errors import ConfigError, DataError
from advent.utils.serialization import write_text
from daf.inference import Model, in_batches, predict_batch, upright
from daf.products import Palette, Wanted, still_paths, write_still
from daf.video import SUFFIXES as VIDEOS
from daf.video import predict_video, video_paths

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
THREADS = 2  # that read, and as many that write


@dataclass
class Done:
    """What was predicted, and why which files were not."""

    images: int = 0
    frames: int = 0
    skipped: list[str] = field(default_factory=list)

    def skip(self, reason: object) -> None:
        """Remember a file that could not be read; the door names it at the end."""
        self.skipped.append(str(reason))


def predict_files(
    model: Model, source: Path, output: Path, wanted: Wanted, *, batch_size: int = 1, frames: bool = False
) -> Done:
    """Predict an image, a video, or all of them below a folder, into folders of products below `output`.

    `frames`: also leave the stills of every frame of a video. Raises ConfigError or DataError where there is nothing
    to predict, where two inputs would share an output, and before an input would be overwritten.
    """
    wanted = wanted.of(model)
    keys = _keys(source, output)
    _refuse_to_overwrite(keys, output, wanted)
    classes = model.classes
    rows = [(i, name, *color) for i, (name, color) in enumerate(zip(classes.names, classes.colors, strict=True))]
    sheet = io.StringIO()
    csv.writer(sheet, lineterminator="\n").writerows([("id", "name", "red", "green", "blue"), *rows])
    write_text(output / "classes.csv", sheet.getvalue())
    done = Done()
    stills = {key: file for key, file in keys.items() if file.suffix.lower() not in VIDEOS}
    if stills:
        _predict_stills(model, stills, output, wanted, batch_size, done)
    for key, file in keys.items():
        if file.suffix.lower() in VIDEOS:
            try:
                read, complaint = predict_video(model, file, output, key, wanted, batch_size, frames)
                done.frames += read
                if complaint:
                    done.skip(complaint)
            except DataError as error:
                done.skip(error)
    return done


def _predict_stills(
    model: Model, files: dict[str, Path], output: Path, wanted: Wanted, batch_size: int, done: Done
) -> None:
    """Threads read ahead and write behind, while the network works."""
    with (
        ThreadPoolExecutor(THREADS) as readers,
        Writer(THREADS, pending=2 * batch_size + THREADS) as writer,
        Progress("predict", len(files)) as progress,
    ):
        for batch in in_batches(_ahead(readers, files, 2 * batch_size + THREADS, done, progress), batch_size):
            found = predict_batch(model, [photo for _, photo in batch], maps=wanted.maps)
            for (key, photo), one in zip(batch, found, strict=True):
                writer.submit(write_still, output, key, photo, one, Palette(model, wanted))
                done.images += 1
                progress.step()


def _ahead(
    readers: ThreadPoolExecutor, files: dict[str, Path], ahead: int, done: Done, progress: Progress
) -> Iterator[tuple[str, Image.Image]]:
    """(key, RGB picture) of every readable file, in order, `ahead` of them read in advance."""
    waiting: deque[tuple[str, Future[Image.Image]]] = deque()
    left = iter(files.items())
    while True:
        while len(waiting) < ahead and (following := next(left, None)) is not None:
            waiting.append((following[0], readers.submit(upright, following[1])))
        if not waiting:
            return
        key, job = waiting.popleft()
        try:
            yield key, job.result()
        except DataError as error:
            done.skip(error)
            progress.step()


def _keys(source: Path, output: Path) -> dict[str, Path]:
    """What the products of each input are called: its path below the source without suffix, with it where two agree."""
    if source.is_dir():
        if source.resolve() == output.resolve():
            raise ConfigError(f"--output {output}: is the input's folder; name another one, it is made")
        names = [name for name in walk(source) if Path(name).suffix.lower() in (*IMAGES, *VIDEOS)]
        own = output.resolve()  # an output within the input holds an earlier run's products: no inputs
        if source.resolve() in own.parents:
            names = [name for name in names if own not in (source / name).resolve().parents]
        files = {name: source / name for name in sorted(names)}
        if not files:
            raise DataError(f"{source}: holds no image or video ({' '.join((*IMAGES, *VIDEOS))})")
    elif source.exists():
        if source.suffix.lower() not in (*IMAGES, *VIDEOS):
            raise DataError(f"{source}: is neither an image nor a video by its name ({' '.join((*IMAGES, *VIDEOS))})")
        files = {source.name: source}
    else:
        raise DataError(f"{source}: no such image, folder or video")
    short = [name[: -len(Path(name).suffix)] for name in files]
    keys = [one if short.count(one) == 1 else name for one, name in zip(short, files, strict=True)]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DataError(f"{source}: two of its files would leave products called {twice}; rename one")
    return dict(zip(keys, files.values(), strict=True))


def _refuse_to_overwrite(keys: dict[str, Path], output: Path, wanted: Wanted) -> None:
    inputs = {file.resolve() for file in keys.values()}
    for key, file in keys.items():
        video = file.suffix.lower() in VIDEOS
        paths: Sequence[Path] = video_paths(output, key, wanted) if video else still_paths(output, key, wanted)
        for path in paths:
            if path.resolve() in inputs:
                raise ConfigError(
                    f"--output {output}: {path} is an input and would be overwritten; name another folder"
                )
