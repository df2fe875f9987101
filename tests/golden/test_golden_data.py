"""Loading of images, labels and depth, and Mapillary's geometry, against golden values."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from advent.dataset.base_dataset import StreetDataset
from advent.dataset.classes import load_classes
from advent.dataset.image_io import network_input, read_16bit, read_ids, read_image
from advent.dataset.resize import pad_label, resize_depth, resize_image, resize_label
from advent.dataset.spec import load_spec
from daf.dataset.depth import inverse_depth
from golden.golden import load, probe

PREPROCESSING = load("preprocessing")
GEOMETRY = load("mapillary_geometry")
TARGET = tuple(GEOMETRY["target_size_wh"])
SIZE = (64, 32)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The three files of preprocessing.json, in SYNTHIA's layout."""
    for folder in ("RGB", "parsed_LABELS", "Depth"):
        (tmp_path / folder).mkdir()
    rgb = np.random.RandomState(30).randint(0, 256, (60, 120, 3)).astype(np.uint8)
    Image.fromarray(rgb).save(tmp_path / "RGB" / "0000000.png")
    label = np.random.RandomState(31).randint(0, 34, (60, 120)).astype(np.uint8)
    Image.fromarray(label).save(tmp_path / "parsed_LABELS" / "0000000.png")
    depth = np.random.RandomState(32).randint(0, 65536, (60, 120)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "Depth" / "0000000.png"), depth)
    cv2.imwrite(str(tmp_path / "Depth" / "three.png"), np.repeat(depth[..., None], 3, axis=2))
    return tmp_path


def test_image(files: Path) -> None:
    picture = read_image(files / "RGB" / "0000000.png")
    probe(network_input(resize_image(picture, SIZE)), PREPROCESSING["image_out"])


def test_label(files: Path) -> None:
    probe(resize_label(read_ids(files / "parsed_LABELS" / "0000000.png"), SIZE), PREPROCESSING["label_out"])


@pytest.mark.parametrize("name", ["0000000.png", "three.png"])
def test_depth(files: Path, name: str) -> None:
    """One 16-bit channel equals three identical channels. Inverting before the resize equals inverting after it."""
    depth = read_16bit(files / "Depth" / name, "depth")
    probe(inverse_depth(resize_depth(depth, SIZE)), PREPROCESSING["depth_out"])
    probe(resize_depth(inverse_depth(depth), SIZE), PREPROCESSING["depth_out"])


def test_reader_gives_the_same_image_and_depth(files: Path) -> None:
    data = StreetDataset(
        load_spec("SYNTHIA"), files, "all", load_classes("street16"), size=SIZE, with_depth=True, names=["0000000.png"]
    )
    item = data[0]
    probe(item["image"].numpy(), PREPROCESSING["image_out"])
    probe(item["depth"].numpy(), PREPROCESSING["depth_out"])


@pytest.mark.parametrize("case", GEOMETRY["cases"])
def test_mapillary_geometry(case: str) -> None:
    want = GEOMETRY["cases"][case]
    rows, columns = want["image_hw"]
    image = np.random.RandomState(40).randint(0, 256, (rows, columns, 3)).astype(np.uint8)
    label = np.random.RandomState(41).randint(0, 66, (rows, columns)).astype(np.uint8)
    fill = GEOMETRY["fill_label"]
    probe(resize_image(Image.fromarray(image), TARGET, "pad"), want["image_resize_with_pad"])
    probe(resize_label(label, TARGET, "pad", fill)[..., None], want["label_resize_with_pad"])
    probe(pad_label(label, TARGET, "pad", fill), want["label_pad_with_fixed_aspect"])
