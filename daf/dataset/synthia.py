"""SYNTHIA with depth, compatible with DADA's `SYNTHIADataSetDepth`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from advent.dataset import resize
from advent.dataset.advent_compat import SpecDataSet
from advent.dataset.classes import classes_for
from advent.dataset.image_io import read_16bit
from advent.dataset.resize import Size
from advent.errors import DataError
from daf.dataset.depth import inverse_depth


class SYNTHIADataSetDepth(SpecDataSet):
    """Items (image, label, depth, shape, name) with use_depth, else (image, label, shape, name); 16 or 7 classes.

    depth: (H, W) float32 inverse depth at crop_size.
    """

    spec_name = "synthia"

    def __init__(
        self,
        root: str | Path,
        list_path: str | Path,
        set: str = "all",  # ADVENT's parameter name, though it shadows the builtin
        num_classes: int = 16,
        max_iters: int | None = None,
        crop_size: Size = (321, 321),
        mean: Sequence[float] = (128, 128, 128),
        use_depth: bool = False,
    ) -> None:
        super().__init__(classes_for(num_classes), None, root, list_path, set, max_iters, crop_size, None, mean)
        self.use_depth = use_depth

    def get_depth(self, name: str) -> np.ndarray:
        """(H, W) float32 inverse depth at crop_size."""
        file = self.resolved.path("depth", name)
        if file is None:
            raise DataError(f"data set {self.spec.name} has no depth pattern in its spec")
        return resize.resize_depth(inverse_depth(read_16bit(file, "a depth map")), self.labels_size)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        image, label, shape, name = super().__getitem__(index)
        return (image, label, self.get_depth(name), shape, name) if self.use_depth else (image, label, shape, name)
