"""Predictions for files: images of any size, folders of them, videos. What cannot be read is named and skipped."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from advent.dataset.file_lists import walk
from advent.dataset.formats import picture_suffixes
from advent.errors import ConfigError, DataError
from advent.runtime.progress import Progress
from advent.utils.serialization import write_text
from advent.utils.writer import Writer
from daf.inference import Model, in_batches, load_rgb, predict_batch
from daf.video import SUFFIXES as VIDEOS
from daf.video import predict_video, video_paths
from daf.visualization import OutputOptions, Renderer, still_paths, write_still

THREADS = 2  # that read, and as many that write
EXAMPLES = "png, jpg, webp, tif, avif, heic, ... and mp4, mov, ..."
NAMED = 5  # of the files that are left out, so many are named and the others counted


@dataclass
class PredictionSummary:
    """What was predicted, why which files were not, and the files that are no images or videos by their suffix."""

    images: int = 0
    frames: int = 0
    skipped: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def skip(self, reason: object) -> None:
        """Remember a file that could not be read; the door names it at the end."""
        self.skipped.append(str(reason))

    def left_out(self) -> str | None:
        """One line that names the files of other kinds; None where there are none."""
        if not self.others:
            return None
        more = f" and {len(self.others) - NAMED:,} more" if len(self.others) > NAMED else ""
        kinds = Counter(Path(name).suffix.lower() or "no suffix" for name in self.others)
        counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(NAMED))
        return f"left out, neither image nor video by their suffix ({counts}): {', '.join(self.others[:NAMED])}{more}"


def predict_files(
    model: Model, source: Path, output: Path, options: OutputOptions, *, batch_size: int = 1, frames: bool = False
) -> PredictionSummary:
    """Predict an image, a video, or all of them below a folder, into folders of products below `output`.

    `frames`: also leave the stills of every frame of a video. Raises ConfigError or DataError where there is nothing
    to predict, where two inputs would share an output, and before an input would be overwritten.
    """
    options = options.of(model)
    keys, others = _keys(source, output)
    _refuse_to_overwrite(keys, output, options)
    classes = model.classes
    rows = [(i, name, *color) for i, (name, color) in enumerate(zip(classes.names, classes.colors, strict=True))]
    sheet = io.StringIO()
    csv.writer(sheet, lineterminator="\n").writerows([("id", "name", "red", "green", "blue"), *rows])
    write_text(output / "classes.csv", sheet.getvalue())
    summary = PredictionSummary(others=others)
    stills = {key: file for key, file in keys.items() if file.suffix.lower() not in VIDEOS}
    if stills:
        _predict_stills(model, stills, output, options, batch_size, summary)
    for key, file in keys.items():
        if file.suffix.lower() in VIDEOS:
            try:
                read, complaint = predict_video(model, file, output, key, options, batch_size, frames)
                summary.frames += read
                if complaint:
                    summary.skip(complaint)
            except DataError as error:
                summary.skip(error)
    return summary


def _predict_stills(
    model: Model,
    files: dict[str, Path],
    output: Path,
    options: OutputOptions,
    batch_size: int,
    summary: PredictionSummary,
) -> None:
    """Threads read ahead and write behind, while the network works."""
    with (
        ThreadPoolExecutor(THREADS) as readers,
        Writer(THREADS, pending=2 * batch_size + THREADS) as writer,
        Progress("predict", len(files)) as progress,
    ):
        for batch in in_batches(_ahead(readers, files, 2 * batch_size + THREADS, summary, progress), batch_size):
            keys, photos = zip(*batch, strict=True)
            found = predict_batch(model, photos, maps=options.maps, names=keys)
            for (key, photo), one in zip(batch, found, strict=True):
                writer.submit(write_still, output, key, photo, one, Renderer(model, options))
                summary.images += 1
                progress.step()


def _ahead(
    readers: ThreadPoolExecutor, files: dict[str, Path], ahead: int, summary: PredictionSummary, progress: Progress
) -> Iterator[tuple[str, Image.Image]]:
    """(key, RGB picture) of every readable file, in order, `ahead` of them read in advance."""
    waiting: deque[tuple[str, Future[Image.Image]]] = deque()
    left = iter(files.items())
    while True:
        while len(waiting) < ahead and (following := next(left, None)) is not None:
            waiting.append((following[0], readers.submit(load_rgb, following[1])))
        if not waiting:
            return
        key, job = waiting.popleft()
        try:
            yield key, job.result()
        except DataError as error:
            summary.skip(error)
            progress.step()


def _keys(source: Path, output: Path) -> tuple[dict[str, Path], list[str]]:
    """What the products of each input are called, and the names of all other files.

    That is its path below the source without suffix, or with it where two agree.
    """
    known, others = {*picture_suffixes(), *VIDEOS}, list[str]()
    if source.is_dir():
        if source.resolve() == output.resolve():
            raise ConfigError(f"--output {output}: is the input's folder; name another one, it is made")
        names = list(walk(source))
        own = output.resolve()  # an output within the input holds an earlier run's products: no inputs
        if source.resolve() in own.parents:
            names = [name for name in names if own not in (source / name).resolve().parents]
        others = sorted(name for name in names if os.path.splitext(name)[1].lower() not in known)
        files = {name: source / name for name in sorted(set(names) - set(others))}
        if not files:
            held = PredictionSummary(others=others).left_out()
            raise DataError(f"{source}: holds no image or video ({EXAMPLES}){f'; {held}' if held else ''}")
    elif source.exists():
        if source.suffix.lower() not in known:
            raise DataError(f"{source}: is neither an image nor a video by its suffix ({EXAMPLES})")
        files = {source.name: source}
    else:
        raise DataError(f"{source}: no such image, folder or video")
    short = [os.path.splitext(name)[0] for name in files]
    shared = Counter(short)
    keys = [name if shared[stem] > 1 else stem for stem, name in zip(short, files, strict=True)]
    if len(set(keys)) < len(keys):
        twice = next(key for key, count in Counter(keys).items() if count > 1)
        raise DataError(f"{source}: two of its files would leave products called {twice}; rename one")
    return dict(zip(keys, files.values(), strict=True)), others


def _refuse_to_overwrite(keys: dict[str, Path], output: Path, options: OutputOptions) -> None:
    folders = {os.path.dirname(key) for key in keys}
    any_key = [os.path.join(folder, "x") for folder in folders]
    written = [path for key in any_key for make in (still_paths, video_paths) for path in make(output, key, options)]
    targets = {path.parent.resolve() for path in written}
    sources = {parent: parent.resolve() for parent in {file.parent for file in keys.values()}}
    if targets.isdisjoint(sources.values()):
        return  # paths of 100,000 frames, each with its products, take minutes to compare
    # A link itself is not followed: a product replaces the link, not what it leads to.
    inputs = {sources[file.parent] / file.name for file in keys.values()}
    for key, file in keys.items():
        make = video_paths if file.suffix.lower() in VIDEOS else still_paths
        for path in make(output, key, options):
            if path.parent.resolve() / path.name in inputs:
                raise ConfigError(
                    f"--output {output}: {path} is an input and would be overwritten; name another folder"
                )
