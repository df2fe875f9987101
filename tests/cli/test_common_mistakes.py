"""scripts/doctor.py detects common mistakes with the published data sets."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from helpers import tiny_data
from helpers.dataset_layouts import gray, make_cityscapes, make_mapillary, rgb, save
from helpers.doctor_cli import examine, on_dataset


def synthia(root: Path) -> Path:
    return tiny_data.make_source(root / "SYNTHIA")


def original_labels(root: Path) -> tuple[str, Path]:
    data = synthia(root)
    (data / "GT").mkdir()
    (data / "parsed_LABELS").rename(data / "GT/LABELS")
    return "synthia", data


def original_labels_renamed(root: Path) -> tuple[str, Path]:
    data = synthia(root)
    for file in (data / "parsed_LABELS").iterdir():
        ids = np.asarray(Image.open(file)).astype(np.uint16)
        cv2.imwrite(str(file), np.stack([0 * ids, 900 + ids, ids], axis=2))
    return "synthia", data


def sequences(root: Path) -> tuple[str, Path]:
    (root / "SYNTHIA/RGB").mkdir(parents=True)
    shutil.move(synthia(root / "x") / "RGB", root / "SYNTHIA/RGB/Stereo_Left")
    return "synthia", root / "SYNTHIA"


def another_split(root: Path) -> tuple[str, Path]:
    data = synthia(root)
    for file in (data / "RGB").iterdir():
        file.rename(file.with_name("ap_" + file.name))
    return "synthia", data


def colours(root: Path) -> tuple[str, Path]:
    data = synthia(root)
    for file in (data / "parsed_LABELS").iterdir():
        save(file, rgb(70, (64, 48)))
    return "synthia", data


def shallow_depth(root: Path) -> tuple[str, Path]:
    data = synthia(root)
    for file in (data / "Depth").iterdir():
        save(file, gray(70, (64, 48)))
    return "synthia", data


def too_deep(root: Path) -> tuple[str, Path]:
    synthia(root / "download")
    return "synthia", root / "download"


def too_far_in(root: Path) -> tuple[str, Path]:
    return "synthia", synthia(root) / "RGB"


def lower_case(root: Path) -> tuple[str, Path]:
    data = synthia(root)
    (data / "RGB").rename(data / "rgb")
    return "synthia", data


def other_suffix(root: Path) -> tuple[str, Path]:
    data = synthia(root)
    for file in (data / "RGB").iterdir():
        file.rename(file.with_suffix(".bmp"))
    return "synthia", data


def other_labels(root: Path, kind: str) -> tuple[str, Path]:
    data = make_cityscapes(root)
    for file in (data / "gtFine").rglob("*_labelIds.png"):
        file.rename(file.with_name(file.name.replace("labelIds", kind)))
    return "cityscapes", data


def train_ids(root: Path) -> tuple[str, Path]:
    return other_labels(root, "labelTrainIds")


def train_ids_renamed(root: Path) -> tuple[str, Path]:
    data = make_cityscapes(root)
    for value, file in zip((0, 13), (data / "gtFine").rglob("*_labelIds.png"), strict=True):
        ids = gray(value)
        ids[:2] = 255
        save(file, ids)
    return "cityscapes", data


def colour_files(root: Path) -> tuple[str, Path]:
    return other_labels(root, "color")


def only_instances(root: Path) -> tuple[str, Path]:
    data = make_mapillary(root)
    (data / "training/labels").rename(data / "training/instances")
    return "mapillary", data


MISTAKES = {
    original_labels: "prepare.py --synthia-labels",
    original_labels_renamed: "16 bits and several channels, as SYNTHIA's original GT/LABELS",
    sequences: "this is SYNTHIA-SEQS",
    another_split: "this is SYNTHIA-RAND-CVPR16",
    colours: "a label file has one channel of class ids, this one is RGB",
    shallow_depth: "a depth map is a 16-bit PNG, this one has 8 bits",
    too_deep: "unpacked one folder too deep",
    too_far_in: "is one folder too far in; the data set's folder is",
    lower_case: "rgb should be called RGB",
    other_suffix: "contains 8 .bmp, but image names must match *.png",
    train_ids: "these are labelTrainIds; the reader wants labelIds",
    train_ids_renamed: "the ids in the labelIds files are train ids",
    only_instances: "only instances are unpacked",
    colour_files: "colours and polygons are there, the labelIds are not",
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_common_mistakes_are_detected(mistake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, root = mistake(tmp_path)
    code, text = on_dataset(capsys, name, root)
    assert code == 1, text
    assert MISTAKES[mistake] in text


def test_original_labels_with_colour_files_are_one_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The download has GT/COLOR beside GT/LABELS; GT/COLOR alone is another mistake."""
    name, root = original_labels(tmp_path)
    (root / "GT/COLOR").mkdir()
    code, text = on_dataset(capsys, name, root)
    assert code == 1
    assert "result: 1 problem to fix" in text
    assert "prepare.py --synthia-labels" in text
    assert "GT/COLOR is for looking at" not in text
    shutil.rmtree(root / "GT/LABELS")
    code, text = on_dataset(capsys, name, root)
    assert "GT/COLOR is for looking at" in text


def test_wrong_label_files_of_the_target_are_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same data are valid as a target for training."""
    train_ids(tmp_path)
    shutil.copytree(tmp_path / "Cityscapes/leftImg8bit/train", tmp_path / "Cityscapes/leftImg8bit/val")
    tiny_data.make_source(tmp_path / "streets")
    code, text = examine(capsys, *tiny_data.command_line(tmp_path, "quick:daf", "TARGET=cityscapes"))
    assert code == 0
    assert "warning  these are labelTrainIds" in text
    assert "no labels: fine for training and ranking" in text


def test_mapillary_labels_of_version_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_mapillary(tmp_path)
    save(root / "training/labels/wide.png", gray(108, (40, 10)))
    code, text = on_dataset(capsys, "mapillary", root)
    assert code == 0
    assert "labels identified as Mapillary_v2 by their ids" in text
