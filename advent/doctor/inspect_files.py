"""Inspects one image's files (image, label, depth) and collects problems instead of raising."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from advent.dataset.depth_formats import depth_kind
from advent.dataset.exif import Turn
from advent.dataset.image_io import png_bits, read_label, read_photo, require_same_turn
from advent.dataset.spec import DatasetSpec
from advent.errors import DataError

Size = tuple[int, int]
DEPTH_SAMPLE = 96  # rows and columns sampled from a depth map to guess its meaning
LOSSY = (".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Files:
    """Files of one image; None if not requested or missing."""

    name: str
    image: Path
    label: Path | None = None
    depth: Path | None = None
    camera: Path | None = None


@dataclass
class Facts:
    """Contents of one image's files. Sizes are (width, height); `troubles` are problems, one line each.

    ids: label id -> number of pixels. depth_range: minimum and maximum of the stored values; depth_values: a sample of
    them, float32, which takes memory. published_unequal: image and label differ in size, as in the published set.
    """

    name: str
    digest: str = ""
    image: tuple[Size, str] | None = None
    turn: Turn = field(default_factory=Turn)
    label: tuple[Size, str] | None = None
    ids: dict[int, int] | None = None
    published_unequal: bool = False
    depth: Size | None = None
    depth_range: tuple[float, float] | None = None
    depth_values: np.ndarray | None = None
    troubles: list[str] = field(default_factory=list)


def inspect_files(files: Files, spec: DatasetSpec) -> Facts:
    """Read all files of one image. Never raises DataError: problems go to `troubles`."""
    facts = Facts(files.name)
    readers = [(_image, files.image), (_label, files.label), (_depth, files.depth)]
    for read, file in readers:
        if file is not None:
            try:
                read(facts, files, spec)
            except DataError as error:
                facts.troubles.append(str(error))
    return facts


def _image(facts: Facts, files: Files, spec: DatasetSpec) -> None:
    photo, facts.turn = read_photo(files.image)
    facts.image = photo.size, _mode(files.image)
    facts.digest = hashlib.sha256(files.image.read_bytes()).hexdigest()


def _label(facts: Facts, files: Files, spec: DatasetSpec) -> None:
    file = files.label
    assert file is not None
    if file.suffix.lower() in LOSSY:
        raise DataError(f"{file}: a label in a lossy format, which changes ids; use PNG")
    ids, turn = read_label(file, spec.palette)
    facts.label = (ids.shape[1], ids.shape[0]), _mode(file)
    if ids.min() < 0 or ids.max() > 65535:
        raise DataError(f"{file}: values {ids.min()}..{ids.max()} are not label ids; use the files with class ids")
    counts = np.bincount(ids.ravel())
    facts.ids = {int(i): int(counts[i]) for i in np.flatnonzero(counts)}
    wrong = [i for i in facts.ids if i > spec.max_label_id and i != 255]
    if wrong:
        raise DataError(f"{file}: label id {wrong[0]} {spec.wrong_id}")
    if facts.image is None:
        return
    require_same_turn(files.image, facts.turn, file, turn, "label")
    if str(PurePosixPath(files.name).with_suffix("")) in spec.unequal and facts.image[0] != facts.label[0]:
        facts.published_unequal = True
    elif _aspects_differ(facts.image[0], facts.label[0]):
        raise DataError(
            f"{file}: {_x(facts.label[0])}, its image is {_x(facts.image[0])}: different aspect ratios, so they are "
            "not a pair; check the file names"
        )


def _depth(facts: Facts, files: Files, spec: DatasetSpec) -> None:
    file = files.depth
    assert file is not None
    assert spec.depth is not None
    kind = depth_kind(spec.depth, spec.name)
    values = kind.values(file)
    facts.depth = (values.shape[1], values.shape[0])
    finite = values[np.isfinite(values)]
    if finite.size == 0 or not finite.any():
        raise DataError(f"{file}: the depth is 0 or not a number everywhere; use the original file")
    facts.depth_range = float(finite.min()), float(finite.max())
    step_y, step_x = (max(1, side // DEPTH_SAMPLE) for side in values.shape)
    facts.depth_values = values[::step_y, ::step_x].astype(np.float32)
    kind.read(spec.depth, file, files.camera)  # raises DataError on impossible depths
    if facts.image is None:
        return
    require_same_turn(files.image, facts.turn, file, Turn(), "depth file")
    if _aspects_differ(facts.image[0], facts.depth):
        raise DataError(
            f"{file}: {_x(facts.depth)}, its image is {_x(facts.image[0])}: different aspect ratios, so they are "
            "not a pair; check the file names"
        )


def _mode(file: Path) -> str:
    with Image.open(file) as picture:
        mode = {"L": "gray", "P": "palette"}.get(picture.mode, picture.mode)
    return f"{mode} 16-bit" if file.suffix.lower() == ".png" and png_bits(file) == 16 else f"{mode} 8-bit"


def _aspects_differ(first: Size, second: Size) -> bool:
    """Whether two sizes differ in aspect ratio by more than rounding explains."""
    expected = first[0] * second[1] / first[1]
    return abs(expected - second[0]) > 1 + 0.02 * second[0]


def _x(size: Size) -> str:
    return f"{size[0]} x {size[1]}"
