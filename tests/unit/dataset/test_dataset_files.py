"""StreetDataset on small folders in the published layouts: file selection and refused files."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
from PIL import Image

from advent.dataset.base_dataset import StreetDataset
from advent.dataset.spec import load_spec
from advent.errors import DataError
from helpers.dataset_layouts import C16, H, W, city_data, gray, map_data, rgb, save, synthia_data

# --- lists


def test_list_files(cityscapes: Path, tmp_path: Path) -> None:
    lines = tmp_path / "list.txt"
    lines.write_bytes(b"\xef\xbb\xbfbonn/x_leftImg8bit.png\r\n\r\n  aachen\\x_leftImg8bit.png \r\n\r\n")
    assert city_data(cityscapes, list_file=lines).names == ["bonn/x_leftImg8bit.png", "aachen/x_leftImg8bit.png"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("../../secret_leftImg8bit.png", "leaves the images' folder"),
        ("/etc/x_leftImg8bit.png", "leaves the images' folder"),
        ("C:\\x_leftImg8bit.png", "leaves the images' folder"),
        ("ulm/x_leftImg8bit.png", "'ulm/x_leftImg8bit.png' is not below"),
        ("bonn/x_gtFine_labelIds.png", "is no image of this data set"),
        (".", "is no image of this data set"),
        ("", "is empty"),
    ],
)
def test_bad_list_lines(cityscapes: Path, tmp_path: Path, line: str, message: str) -> None:
    lines = tmp_path / "list.txt"
    lines.write_text(line + "\n")
    with pytest.raises(DataError) as error:
        city_data(cityscapes, list_file=lines)
    assert message in str(error.value)
    assert str(lines) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_list_file(cityscapes: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.txt: the list of images cannot be read"):
        city_data(cityscapes, list_file=Path("nowhere.txt"))


def test_scanning_leaves_out_hidden_and_other_files(cityscapes: Path) -> None:
    folder = cityscapes / "leftImg8bit" / "train"
    (folder / "bonn" / "._x_leftImg8bit.png").write_bytes(b"")
    (folder / "bonn" / "notes.txt").write_text("")
    assert len(city_data(cityscapes)) == 2


def test_loops_of_links_end_and_other_links_are_followed(cityscapes: Path) -> None:
    folder = cityscapes / "leftImg8bit" / "train"
    (folder / "bonn" / "up").symlink_to(folder)
    (folder / "bonn" / "self").symlink_to("self")
    (folder / "bonn_too").symlink_to(folder / "bonn")
    names = city_data(cityscapes).names
    assert names == ["aachen/x_leftImg8bit.png", "bonn/x_leftImg8bit.png", "bonn_too/x_leftImg8bit.png"]


# --- errors


def test_folders_and_files_without_permission_are_named(cityscapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The errors are injected because root may read everything."""
    data, locked, scandir = city_data(cityscapes), str(cityscapes / "leftImg8bit/train/bonn"), os.scandir

    def refuse(path: object) -> object:
        if str(path) == locked:
            raise PermissionError(errno.EACCES, "Permission denied", locked)
        return scandir(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"train/bonn: cannot be listed \(Permission denied\); make it readable"):
        city_data(cityscapes)
    monkeypatch.undo()
    monkeypatch.setattr(Image, "open", Mock(side_effect=PermissionError(errno.EACCES, "Permission denied")))
    with pytest.raises(DataError, match=r"x_leftImg8bit.png: cannot be read \(Permission denied\); make it readable"):
        data[0]


@pytest.mark.parametrize("channels", [(), (3,)])
def test_16_bit_images_are_refused(synthia: Path, channels: tuple[int, ...]) -> None:
    cv2.imwrite(str(synthia / "RGB" / "0000000.png"), np.full((H, W, *channels), 40000, np.uint16))
    with pytest.raises(DataError, match=r"0000000.png: an image has 8 bits per channel"):
        synthia_data(synthia)[0]


def test_missing_folders_and_splits_are_named(tmp_path: Path, cityscapes: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*RGB; unpack the images there"):
        synthia_data(tmp_path)
    with pytest.raises(DataError, match=r"Cityscapes has no split 'vall'; did you mean val"):
        StreetDataset(load_spec("Cityscapes"), cityscapes, "vall", C16, size=None)
    (cityscapes / "leftImg8bit" / "val").mkdir()
    with pytest.raises(DataError, match=r"val: contains no \*_leftImg8bit.png"):
        StreetDataset(load_spec("Cityscapes"), cityscapes, "val", C16, size=None)


@pytest.mark.parametrize("ending", ["png", "jpg"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9])
def test_truncated_and_empty_images_are_named(mapillary: Path, synthia: Path, ending: str, keep: float) -> None:
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    if ending == "png":
        file, data = save(synthia / "RGB" / "0000000.png", noise), synthia_data(synthia)
    else:
        file, data = save(mapillary / "training" / "images" / "tall.JPG", noise), map_data(mapillary)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * keep)])
    with pytest.raises(DataError) as error:
        data[0]
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_invalid_depth_files_are_named(synthia: Path) -> None:
    data = synthia_data(synthia, with_depth=True)
    file = synthia / "Depth" / "0000000.png"
    save(file, gray(9))
    with pytest.raises(DataError, match=r"0000000.png: a depth map is a 16-bit PNG, this one has 8 bits"):
        data[0]
    noise = np.random.RandomState(0).randint(0, 65536, (64, 64)).astype(np.uint16)
    save(file, noise)
    whole = file.read_bytes()
    for part in (whole[: len(whole) // 2], whole[:-20], b"", whole[:300] + bytes(500) + whole[800:]):
        file.write_bytes(part)
        with pytest.raises(DataError, match=r"0000000.png: truncated or not a PNG"):
            data[0]
    save(file, np.stack([noise, noise, noise + 1], axis=2))
    with pytest.raises(DataError, match=r"one channel or equal channels"):
        data[0]
    (synthia / "Depth" / "0000002.png").unlink()
    with pytest.raises(DataError, match=r"0000002.png: missing; expected the depth of 0000002.png"):
        synthia_data(synthia, with_depth=True)


def test_wrong_label_files_are_named(synthia: Path) -> None:
    data = synthia_data(synthia, with_labels=True)
    save(synthia / "parsed_LABELS" / "0000000.png", rgb(3))
    save(synthia / "parsed_LABELS" / "0000001.png", gray(23))
    save(synthia / "parsed_LABELS" / "0000002.png", np.full((H, W), 1000, np.uint16))
    for index, message in enumerate(["one channel of class ids", "label id 23 is not in SYNTHIA", "label id 1000 is"]):
        with pytest.raises(DataError, match=rf"000000{index}.png: .*{message}"):
            data[index]


def test_depth_is_refused_where_the_spec_has_none(mapillary: Path) -> None:
    with pytest.raises(DataError, match=r"data set Mapillary has no depth"):
        map_data(mapillary, with_depth=True)
