"""Batch inference on files: images of any size, folders, videos. Unreadable files are reported and skipped."""

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

from advent.dataset.classes import ClassSet
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

THREADS = 2  # for reading, and as many for writing
EXAMPLES = "png, jpg, webp, tif, avif, heic, ... and mp4, mov, ..."
NAMED = 5  # skipped files that are listed by name; the rest are counted


@dataclass
class PredictionSummary:
    """Counts of predicted images and frames, reasons of skipped files, and files with other extensions."""

    images: int = 0
    frames: int = 0
    skipped: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def skip(self, reason: object) -> None:
        """Record a file that could not be read; the CLI lists it at the end."""
        self.skipped.append(str(reason))

    def left_out(self) -> str | None:
        """One line that lists the files with other extensions; None if there are none."""
        if not self.others:
            return None
        rest = f" and {len(self.others) - NAMED:,} more" if len(self.others) > NAMED else ""
        kinds = Counter(Path(name).suffix.lower() or "no suffix" for name in self.others)
        counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(NAMED))
        return f"ignored, neither image nor video by file extension ({counts}): {', '.join(self.others[:NAMED])}{rest}"


def predict_files(
    model: Model, source: Path, output: Path, options: OutputOptions, *, batch_size: int = 1, frames: bool = False
) -> PredictionSummary:
    """Predict an image, a video, or all of a folder (recursively); writes one subfolder of `output` per product.

    `frames`: also write the still images of every video frame. Raises ConfigError or DataError if there is nothing to
    predict, if the only input cannot be read, if two inputs would share an output file, or if an input would be
    overwritten.
    """
    options = options.of(model)
    keys, others = _keys(source, output)
    _refuse_to_overwrite(keys, output, options)
    summary = PredictionSummary(others=others)
    stills = {key: file for key, file in keys.items() if file.suffix.lower() not in VIDEOS}
    try:
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
    finally:  # also if interrupted, but not if nothing was predicted
        if summary.images or summary.frames:
            _write_classes(output / "classes.csv", model.classes)
    if summary.skipped and not (summary.images or summary.frames) and not source.is_dir():
        raise DataError(summary.skipped[0])
    return summary


def _write_classes(path: Path, classes: ClassSet) -> None:
    rows = [(i, name, *color) for i, (name, color) in enumerate(zip(classes.names, classes.colors, strict=True))]
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([("id", "name", "red", "green", "blue"), *rows])
    write_text(path, table.getvalue())


def _predict_stills(
    model: Model,
    files: dict[str, Path],
    output: Path,
    options: OutputOptions,
    batch_size: int,
    summary: PredictionSummary,
) -> None:
    """Predict still images; threads read ahead and write results while the network computes."""
    with (
        ThreadPoolExecutor(THREADS) as readers,
        Writer(THREADS, pending=2 * batch_size + THREADS) as writer,
        Progress("predict", len(files)) as progress,
    ):
        for batch in in_batches(_ahead(readers, files, 2 * batch_size + THREADS, summary, progress), batch_size):
            keys, photos = zip(*batch, strict=True)
            predictions = predict_batch(model, photos, maps=options.maps, names=keys)
            for (key, photo), prediction in zip(batch, predictions, strict=True):
                writer.submit(write_still, output, key, photo, prediction, Renderer(model, options))
                summary.images += 1
                progress.step()


def _ahead(
    readers: ThreadPoolExecutor, files: dict[str, Path], ahead: int, summary: PredictionSummary, progress: Progress
) -> Iterator[tuple[str, Image.Image]]:
    """(key, RGB image) of every readable file, in order; up to `ahead` files are prefetched."""
    waiting: deque[tuple[str, Future[Image.Image]]] = deque()
    remaining = iter(files.items())
    while True:
        while len(waiting) < ahead and (following := next(remaining, None)) is not None:
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
    """Output key -> input file, and the names of all other files.

    The key is the path relative to the source without extension; files that differ only in extension keep it.
    """
    known, others = {*picture_suffixes(), *VIDEOS}, list[str]()
    if source.is_dir():
        if source.resolve() == output.resolve():
            raise ConfigError(f"--output {output}: is the input folder; choose another folder")
        names = list(walk(source))
        own = output.resolve()  # an output folder inside the input contains earlier results, which are no inputs
        if source.resolve() in own.parents:
            names = [name for name in names if own not in (source / name).resolve().parents]
        others = sorted(name for name in names if os.path.splitext(name)[1].lower() not in known)
        files = {name: source / name for name in sorted(set(names) - set(others))}
        if not files:
            ignored = PredictionSummary(others=others).left_out()
            raise DataError(f"{source}: contains no image or video ({EXAMPLES}){f'; {ignored}' if ignored else ''}")
    elif source.exists():
        if source.suffix.lower() not in known:
            raise DataError(f"{source}: is neither an image nor a video by its file extension ({EXAMPLES})")
        files = {source.name: source}
    else:
        raise DataError(f"{source}: no such image, folder or video")
    short = [os.path.splitext(name)[0] for name in files]
    shared = Counter(short)
    keys = [name if shared[stem] > 1 else stem for stem, name in zip(short, files, strict=True)]
    if len(set(keys)) < len(keys):
        duplicate = next(key for key, count in Counter(keys).items() if count > 1)
        raise DataError(f"{source}: two of its files have the output name {duplicate}; rename one")
    return dict(zip(keys, files.values(), strict=True)), others


def _refuse_to_overwrite(keys: dict[str, Path], output: Path, options: OutputOptions) -> None:
    folders = {os.path.dirname(key) for key in keys}
    any_key = [os.path.join(folder, "x") for folder in folders]
    written = [path for key in any_key for make in (still_paths, video_paths) for path in make(output, key, options)]
    targets = {path.parent.resolve() for path in written}
    sources = {parent: parent.resolve() for parent in {file.parent for file in keys.values()}}
    if targets.isdisjoint(sources.values()):
        return  # shortcut: comparing every output path of 100,000 frames takes minutes
    # Links are not followed: an output file replaces the link, not the file that it points to.
    inputs = {sources[file.parent] / file.name for file in keys.values()}
    for key, file in keys.items():
        make = video_paths if file.suffix.lower() in VIDEOS else still_paths
        for path in make(output, key, options):
            if path.parent.resolve() / path.name in inputs:
                raise ConfigError(
                    f"--output {output}: {path} is an input and would be overwritten; name another folder"
                )
