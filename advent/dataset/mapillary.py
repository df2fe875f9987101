"""ADVENT's Mapillary Vistas v1.2 data set class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from advent.dataset import resize
from advent.dataset.advent_compat import SpecDataSet, table_of
from advent.dataset.classes import IGNORE
from advent.dataset.image_io import read_ids
from advent.dataset.resize import Size


class MapillaryDataSet(SpecDataSet):
    """Mapillary Vistas v1.2 under ADVENT's interface. Items: (image, label, shape, name).

    7 classes, unless a table is given. class_mappings: {label id: train id} or a sequence with one train id per label
    id. class_list: the class names.
    scale_label: True resizes the label to crop_size; False keeps its native size and pads it to crop_size's aspect.
    """

    spec_name = "mapillary"

    def __init__(
        self,
        root: str | Path,
        list_path: str | Path,
        set: str = "train",  # ADVENT's name, though it hides the builtin
        max_iters: int | None = None,
        crop_size: Size = (321, 321),
        mean: Sequence[float] = (128, 128, 128),
        info_path: str | Path | None = None,
        class_mappings: Any = None,
        class_list: Sequence[str] | None = None,
        scale_label: bool = True,
    ) -> None:
        self.scale_label = scale_label
        super().__init__("street7", info_path, root, list_path, set, max_iters, crop_size, None, mean)
        if class_list is not None:
            self.class_names = list(class_list)
        if class_mappings is not None:
            self.table, self.max_id = table_of(class_mappings, self.class_names), IGNORE

    def get_train_ids(self, file: Path | None) -> np.ndarray:
        """(H, W) float32 train ids, at crop_size or at native size with padding."""
        if self.scale_label or file is None:
            return super().get_train_ids(file)
        label = self.map_labels(read_ids(file), file)
        return resize.pad_label(label, self.image_size, self.geometry).astype(np.float32)
