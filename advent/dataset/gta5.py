"""ADVENT's GTA5 data set class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from advent.dataset.advent_compat import SpecDataSet
from advent.dataset.resize import Size


class GTA5DataSet(SpecDataSet):
    """GTA5 under ADVENT's interface, 19 classes. Items: (image, label, shape, name)."""

    spec_name = "gta5"

    def __init__(
        self,
        root: str | Path,
        list_path: str | Path,
        set: str = "all",  # ADVENT's name, though it hides the builtin
        max_iters: int | None = None,
        crop_size: Size = (321, 321),
        mean: Sequence[float] = (128, 128, 128),
    ) -> None:
        super().__init__("cityscapes19", None, root, list_path, set, max_iters, crop_size, None, mean)
