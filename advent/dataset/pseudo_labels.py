"""Pseudo labels, and the depth predicted beside them, as files that a StreetDataset reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from advent.dataset.cache import Arrays
from advent.dataset.classes import IGNORE, ClassSet
from advent.dataset.depth_formats import DepthKind, depth_kind
from advent.dataset.image_io import map_ids, read_ids
from advent.dataset.resize import resize_depth, resize_label
from advent.dataset.spec import DepthFormat
from advent.errors import DataError

PSEUDO_DEPTH_SUFFIX = "_depth.png"
_FORMAT = DepthFormat(kind="synthia_cm")  # 16-bit PNG of centimetres


@dataclass(frozen=True)
class PseudoLabels:
    """The pseudo-label file of every image, and its depth file if depth is used."""

    label_files: Sequence[Path]
    depth_files: Sequence[Path] | None

    @classmethod
    def find(cls, folder: Path, names: Sequence[str], with_depth: bool) -> PseudoLabels:
        """The files in `folder` of the images `names`. Raises DataError if one is missing."""
        depth = collect_pseudo_labels(folder, names, PSEUDO_DEPTH_SUFFIX, "depth map") if with_depth else None
        return cls(collect_pseudo_labels(folder, names), depth)

    def read(self, index: int, classes: ClassSet, size: tuple[int, int] | None) -> Arrays:
        """label: (H, W) uint8 train ids; depth, with depth files: (H, W) uint16 as stored.

        `size`: (width, height), None for native. Both cover the network's input, padding included, so they are
        stretched, never padded. Raises DataError for ids outside `classes`.
        """
        file = self.label_files[index]
        last = len(classes) - 1
        wrong = f"is no train id of {classes.name} (0..{last}, or 255); these pseudo labels have other classes"
        label = map_ids(read_ids(file), np.arange(IGNORE + 1, dtype=np.uint8), last, file, wrong)
        arrays = {"label": resize_label(label, size) if size else label}
        if self.depth_files is not None:
            arrays["depth"] = resize_depth(_depth_kind().values(self.depth_files[index]), size)
        return arrays


def pseudo_depth_table() -> np.ndarray:
    """Inverse depth of every stored value, (65536,) float32."""
    table = _depth_kind().table
    assert table is not None
    return table(_FORMAT)


def _depth_kind() -> DepthKind:
    """Looked up late: `daf.dataset.depth` registers it."""
    return depth_kind(_FORMAT, "pseudo depth")


def collect_pseudo_labels(
    label_dir: Path, names: Sequence[str], suffix: str = ".png", what: str = "pseudo label"
) -> list[Path]:
    """Pseudo-label file of every image: a PNG of train ids in `label_dir`.

    The file is <name without suffix><suffix> with the image's subfolders, or else directly in `label_dir`. Raises
    DataError, which calls the file `what`, if one is missing, or if one without subfolder matches two images.
    """
    files: list[Path] = []
    owner: dict[Path, str] = {}
    for name in names:
        relative = Path(name).with_name(Path(name).stem + suffix)
        file = label_dir / relative
        if not file.is_file():
            file = label_dir / relative.name
            if not file.is_file():
                raise DataError(f"{label_dir}: no {what} {relative} for {name}; generate them again for this list")
            if owner.setdefault(file, name) != name:
                raise DataError(f"{file}: matches both {owner[file]} and {name}; store it as <folder>/<name>.png")
        files.append(file)
    return files
