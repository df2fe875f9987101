"""ADVENT's Cityscapes data set class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from advent.dataset.advent_compat import SpecDataSet
from advent.dataset.resize import Size


class CityscapesDataSet(SpecDataSet):
    """Cityscapes under ADVENT's interface. Items: (image, label, shape, name).

    19 classes as in ADVENT, unless `info_path` gives another table. With load_labels=False no label file is needed and
    every label is 255.
    """

    spec_name = "cityscapes"

    def __init__(
        self,
        root: str | Path,
        list_path: str | Path,
        set: str = "val",  # ADVENT's name, though it hides the builtin
        max_iters: int | None = None,
        crop_size: Size = (321, 321),
        mean: Sequence[float] = (128, 128, 128),
        load_labels: bool = True,
        info_path: str | Path | None = None,
        labels_size: Size | None = None,
    ) -> None:
        self.load_labels = load_labels
        super().__init__("cityscapes19", info_path, root, list_path, set, max_iters, crop_size, labels_size, mean)
