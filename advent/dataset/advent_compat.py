"""Compatibility layer: ADVENT's data set classes, as thin wrappers around this package's readers.

The project itself uses StreetDataset. The classes here return tuples and can repeat the list to max_iters.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from advent.dataset import resize
from advent.dataset.classes import IGNORE, load_classes
from advent.dataset.file_lists import checked_names, read_list
from advent.dataset.image_io import map_ids, network_input, read_ids, read_image, require_same_turn, stored_turn
from advent.dataset.resize import Size
from advent.dataset.resolved_layout import resolve_layout
from advent.dataset.spec import load_spec
from advent.dataset.versions import detect_version
from advent.errors import DataError


class BaseDataset(Dataset[Any]):
    """ADVENT's base class: a list of names and their files.

    A subclass implements get_metadata(name) -> (image file, label file or None).
    root: the data set's folder. list_path: a list file; '{}' in it is replaced by `set_`. max_iters: the list is
    repeated to at least that length, None keeps it. image_size, labels_size: (width, height); labels_size None =
    image_size.
    """

    geometry = "stretch"

    def __init__(
        self,
        root: str | Path,
        list_path: str | Path,
        set_: str,
        max_iters: int | None,
        image_size: Size,
        labels_size: Size | None,
        mean: Sequence[float],
    ) -> None:
        self.root, self.set = Path(root), set_
        self.list_path = str(list_path).format(set_)
        self.image_size: Size = (int(image_size[0]), int(image_size[1]))
        self.labels_size: Size = (int(labels_size[0]), int(labels_size[1])) if labels_size else self.image_size
        self.mean = mean
        self.img_ids = read_list(Path(self.list_path))
        if max_iters is not None:
            self.img_ids = self.img_ids * -(-max_iters // len(self.img_ids))
        self.files = [(*self.get_metadata(name), name) for name in self.img_ids]

    def get_metadata(self, name: str) -> tuple[Path, Path | None]:
        """Image file and label file (or None) of one line of the list. Abstract."""
        raise NotImplementedError("a subclass must return the image and label file of a name")

    def __len__(self) -> int:
        return len(self.files)

    def get_image(self, file: str | Path) -> np.ndarray:
        """(H, W, 3) float32 RGB, 0..255, at image_size, EXIF orientation applied."""
        return resize.resize_image(read_image(Path(file)), self.image_size, self.geometry).astype(np.float32)

    def get_labels(self, file: str | Path) -> np.ndarray:
        """(H, W) uint8 label ids as stored in the file, at labels_size."""
        return resize.resize_label(read_ids(Path(file)), self.labels_size, self.geometry)

    def preprocess(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) RGB -> (3, H, W) float32 BGR minus the mean."""
        return network_input(image, self.mean)


class SpecDataSet(BaseDataset):
    """BaseDataset with files and label table from a spec in configs/datasets/. Items: (image, label, shape, name).

    label: (H, W) float32 train ids, 255 = ignored; all 255 if labels are not loaded. shape: the image's shape.
    """

    spec_name = ""
    load_labels = True

    def __init__(self, class_set: str, info_path: str | Path | None, *args: Any) -> None:
        spec = load_spec(self.spec_name)
        self.spec = detect_version(spec, Path(args[0]), args[2]) if self.load_labels else spec
        self.geometry = self.spec.geometry
        self.classes = load_classes(class_set)
        self.class_names: list[str] = list(self.classes.names)
        self.table = self.spec.table(self.classes)
        if info_path is not None:
            self.class_names, self.table = read_info(Path(info_path))
        self.max_id = IGNORE if info_path else self.spec.max_label_id
        self.resolved = resolve_layout(self.spec, Path(args[0]), args[2], ["labels"] * self.load_labels)
        super().__init__(*args)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def get_metadata(self, name: str) -> tuple[Path, Path | None]:
        name = checked_names([name], self.resolved.images, self.resolved.layout.names, self.list_path)[0]
        return self.resolved.images / name, self.resolved.path("labels", name) if self.load_labels else None

    def map_labels(self, ids: np.ndarray, file: Path) -> np.ndarray:
        """Label ids -> uint8 train ids."""
        return map_ids(ids, self.table, self.max_id, file, self.spec.wrong_id)

    def get_train_ids(self, file: Path | None) -> np.ndarray:
        """(H, W) float32 train ids at labels_size; all 255 if `file` is None."""
        if file is None:
            return np.full(self.labels_size[::-1], IGNORE, np.float32)
        label = self.map_labels(read_ids(file), file)
        return resize.resize_label(label, self.labels_size, self.geometry).astype(np.float32)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        image_file, label_file, name = self.files[index]
        if label_file is not None:
            require_same_turn(image_file, stored_turn(image_file), label_file, stored_turn(label_file), "label")
        image = self.preprocess(self.get_image(image_file))
        return image, self.get_train_ids(label_file), np.array(image.shape), name


def read_info(path: Path) -> tuple[list[str], np.ndarray]:
    """Class names and lookup table from ADVENT's info.json: 'label' (names), 'label2train' (pairs of ids)."""
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        table = np.full(IGNORE + 1, IGNORE, np.uint8)
        for label_id, train_id in info["label2train"]:
            if 0 <= int(label_id) <= IGNORE:
                table[int(label_id)] = int(train_id)
        return [str(name) for name in info["label"]], table
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, OverflowError):
        raise DataError(f"{path}: no class description; ADVENT's info.json has 'label' and 'label2train'") from None


def table_of(mappings: Any, class_list: Sequence[str]) -> np.ndarray:
    """Lookup table label id -> train id from a dict, or from a sequence indexed by label id."""
    pairs = mappings.items() if isinstance(mappings, dict) else enumerate(mappings)
    table = np.full(IGNORE + 1, IGNORE, np.uint8)
    for label_id, train_id in pairs:
        if int(train_id) != IGNORE and not 0 <= int(train_id) < len(class_list):
            raise DataError(f"class_mappings: label id {label_id} -> {train_id} with {len(class_list)} classes")
        table[int(label_id)] = int(train_id)
    return table
