"""Small folders in the published data sets' layouts, and the data sets that read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

import daf.dataset.depth  # noqa: F401  (registers the depth formats)
from advent.dataset.base_dataset import StreetDataset
from advent.dataset.classes import load_classes
from advent.dataset.spec import load_spec

C16, C7 = load_classes("street16"), load_classes("street7")
W, H = 24, 16


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if array.dtype == np.uint16:
        cv2.imwrite(str(path), array)
    else:
        Image.fromarray(array).save(path)
    return path


def rgb(value: int = 0, size: tuple[int, int] = (W, H)) -> np.ndarray:
    return np.full((size[1], size[0], 3), value, np.uint8)


def gray(value: int, size: tuple[int, int] = (W, H)) -> np.ndarray:
    return np.full((size[1], size[0]), value, np.uint8)


def make_synthia(tmp_path: Path) -> Path:
    root = tmp_path / "SYNTHIA"
    for index in range(3):
        save(root / "RGB" / f"{index:07d}.png", rgb(index))
        save(root / "parsed_LABELS" / f"{index:07d}.png", gray(3))
        save(root / "Depth" / f"{index:07d}.png", np.full((H, W), 65535 if index else 0, np.uint16))
    return root


def make_cityscapes(tmp_path: Path) -> Path:
    """Two cities with the same base name; the labels are road in aachen and sky in bonn."""
    root = tmp_path / "Cityscapes"
    for city, label in (("aachen", 7), ("bonn", 23)):
        save(root / "leftImg8bit" / "train" / city / "x_leftImg8bit.png", rgb(label))
        save(root / "gtFine" / "train" / city / "x_gtFine_labelIds.png", gray(label))
        save(root / "disparity" / "train" / city / "x_disparity.png", np.full((H, W), 257, np.uint16))
        camera = {"extrinsic": {"baseline": 0.2}, "intrinsic": {"fx": 2000.0}}
        (root / "camera" / "train" / city).mkdir(parents=True)
        (root / "camera" / "train" / city / "x_camera.json").write_text(json.dumps(camera))
    return root


def make_mapillary(tmp_path: Path) -> Path:
    root = tmp_path / "Mapillary"
    save(root / "training" / "images" / "wide.jpg", rgb(200, (40, 10)))
    save(root / "training" / "labels" / "wide.png", gray(13, (40, 10)))
    save(root / "training" / "images" / "tall.JPG", rgb(200, (10, 40)))
    save(root / "training" / "labels" / "tall.PNG", gray(27, (10, 40)))
    return root


def city_data(root: Path, **options: Any) -> StreetDataset:
    return StreetDataset(load_spec("Cityscapes"), root, "train", C16, **{"size": (12, 8), **options})


def synthia_data(root: Path, **options: Any) -> StreetDataset:
    return StreetDataset(load_spec("SYNTHIA"), root, "all", C16, **{"size": (12, 8), **options})


def map_data(root: Path, **options: Any) -> StreetDataset:
    return StreetDataset(
        load_spec("Mapillary"), root, "train", C7, **{"size": (20, 20), "with_labels": True, **options}
    )
