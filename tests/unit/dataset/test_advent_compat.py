"""ADVENT's data set classes keep their signatures and items."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from advent.dataset.base_dataset import BaseDataset
from advent.dataset.cityscapes import CityscapesDataSet
from advent.dataset.gta5 import GTA5DataSet
from advent.dataset.mapillary import MapillaryDataSet
from advent.errors import DataError
from daf.dataset.synthia import SYNTHIADataSetDepth

RGB = np.zeros((10, 20, 3), np.uint8)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def gray(value: int) -> np.ndarray:
    return np.full((10, 20), value, np.uint8)


@pytest.fixture
def city(tmp_path: Path) -> Path:
    save(tmp_path / "leftImg8bit" / "val" / "ulm" / "a_leftImg8bit.png", RGB)
    save(tmp_path / "gtFine" / "val" / "ulm" / "a_gtFine_labelIds.png", gray(33))
    (tmp_path / "val.txt").write_text("ulm/a_leftImg8bit.png\n")
    return tmp_path


def test_cityscapes(city: Path) -> None:
    data = CityscapesDataSet(city, city / "{}.txt", "val", crop_size=(8, 4), mean=(1, 2, 3), labels_size=(6, 5))
    image, label, shape, name = data[0]
    assert image.shape == (3, 4, 8)
    assert image.dtype == np.float32
    assert image[:, 0, 0].tolist() == [-1, -2, -3]
    assert label.shape == (5, 6)
    assert (label == 18).all()
    assert label.dtype == np.float32
    assert shape.tolist() == [3, 4, 8]
    assert name == "ulm/a_leftImg8bit.png"
    assert len(data) == 1
    assert data.num_classes == 19


def test_lists_repeat_to_max_iters(city: Path) -> None:
    assert len(CityscapesDataSet(city, city / "val.txt", max_iters=5)) == 5


def test_labels_need_not_exist(city: Path) -> None:
    (city / "gtFine" / "val" / "ulm" / "a_gtFine_labelIds.png").unlink()
    label = CityscapesDataSet(city, city / "val.txt", crop_size=(8, 4), load_labels=False)[0][1]
    assert label.shape == (4, 8)
    assert (label == 255).all()


def test_info_path_replaces_the_table(city: Path) -> None:
    info = {"classes": 2, "label": ["bike", "rest"], "palette": [], "label2train": [[33, 0], [-1, 255], [7, 1]]}
    (city / "info.json").write_text(json.dumps(info))
    data = CityscapesDataSet(city, city / "val.txt", info_path=city / "info.json")
    assert data.class_names == ["bike", "rest"]
    assert (data[0][1] == 0).all()
    (city / "info.json").write_text("{}")
    with pytest.raises(DataError, match=r"info.json: no class description"):
        CityscapesDataSet(city, city / "val.txt", info_path=city / "info.json")


def test_gta5(tmp_path: Path) -> None:
    save(tmp_path / "images" / "00001.png", RGB)
    save(tmp_path / "labels" / "00001.png", gray(26))
    (tmp_path / "all.txt").write_text("00001.png\n")
    _image, label, _shape, name = GTA5DataSet(tmp_path, tmp_path / "{}.txt", crop_size=(8, 4))[0]
    assert (label == 13).all()
    assert label.shape == (4, 8)
    assert name == "00001.png"


def test_mapillary(tmp_path: Path) -> None:
    save(tmp_path / "training" / "images" / "a.jpg", RGB)
    save(tmp_path / "training" / "labels" / "a.png", gray(27))
    (tmp_path / "train.txt").write_text("a.jpg\n")
    label = MapillaryDataSet(tmp_path, tmp_path / "{}.txt", crop_size=(10, 10))[0][1]
    assert label.shape == (10, 10)
    assert (label[:5] == 4).all()
    assert (label[5:] == 255).all()
    native = MapillaryDataSet(tmp_path, tmp_path / "{}.txt", crop_size=(10, 10), scale_label=False)[0][1]
    assert native.shape == (20, 20)
    assert (native[:10] == 4).all()
    assert (native[10:] == 255).all()
    classes: dict[str, Any] = {"class_mappings": {27: 1}, "class_list": ["ground", "sky"]}
    assert (MapillaryDataSet(tmp_path, tmp_path / "{}.txt", crop_size=(10, 5), **classes)[0][1] == 1).all()
    with pytest.raises(DataError, match=r"label id 27 -> 2 with 2 classes"):
        MapillaryDataSet(tmp_path, tmp_path / "{}.txt", class_mappings={27: 2}, class_list=["ground", "sky"])


@pytest.mark.parametrize(("num_classes", "want"), [(16, 11), (7, 255)])
def test_synthia_with_depth(tmp_path: Path, num_classes: int, want: int) -> None:
    save(tmp_path / "RGB" / "0000000.png", RGB)
    save(tmp_path / "parsed_LABELS" / "0000000.png", gray(17))  # rider
    (tmp_path / "Depth").mkdir()
    cv2.imwrite(str(tmp_path / "Depth" / "0000000.png"), np.full((10, 20), 1, np.uint16))
    (tmp_path / "all.txt").write_text("0000000.png\n")
    options: dict[str, Any] = {"num_classes": num_classes, "crop_size": (8, 4)}
    data = SYNTHIADataSetDepth(tmp_path, tmp_path / "{}.txt", use_depth=True, **options)
    _image, label, depth, _shape, _name = data[0]
    assert (label == want).all()
    assert (depth == 32768).all()
    assert depth.shape == (4, 8)
    assert len(SYNTHIADataSetDepth(tmp_path, tmp_path / "{}.txt", **options)[0]) == 4


def test_a_subclass_of_base_dataset(city: Path) -> None:
    class Mine(BaseDataset):
        def get_metadata(self, name: str) -> tuple[Path, None]:
            return self.root / "leftImg8bit" / self.set / name, None

    data = Mine(city, city / "{}.txt", "val", None, (8, 4), None, (0, 0, 0))
    file, label_file, _name = data.files[0]
    assert data.preprocess(data.get_image(file)).shape == (3, 4, 8)
    assert label_file is None
    assert data.get_labels(city / "gtFine" / "val" / "ulm" / "a_gtFine_labelIds.png").tolist() == [[33] * 8] * 4


def test_a_list_that_names_a_missing_image(city: Path) -> None:
    (city / "val.txt").write_text("ulm/b_leftImg8bit.png\n")
    with pytest.raises(DataError, match=r"val.txt: 'ulm/b_leftImg8bit.png' is not below"):
        CityscapesDataSet(city, city / "val.txt")
