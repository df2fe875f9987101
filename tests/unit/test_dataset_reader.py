"""StreetDataset on small folders in the published layouts: what it opens, what it gives, what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, default_collate

from advent.dataset.base_dataset import StreetDataset
from advent.dataset.classes import load_classes
from advent.dataset.geometry import pad_label
from advent.dataset.reading import IMG_MEAN
from advent.dataset.spec import load_spec
from advent.errors import DataError
from daf.dataset.depth import disparity_to_metres, inverse_depth, read_depth_metres

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


@pytest.fixture
def synthia(tmp_path: Path) -> Path:
    root = tmp_path / "SYNTHIA"
    for index in range(3):
        save(root / "RGB" / f"{index:07d}.png", rgb(index))
        save(root / "parsed_LABELS" / f"{index:07d}.png", gray(3))
        save(root / "Depth" / f"{index:07d}.png", np.full((H, W), 65535 if index else 0, np.uint16))
    return root


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    """Two cities that share a base name; labels road in the one, sky in the other."""
    root = tmp_path / "Cityscapes"
    for city, label in (("aachen", 7), ("bonn", 23)):
        save(root / "leftImg8bit" / "train" / city / "x_leftImg8bit.png", rgb(label))
        save(root / "gtFine" / "train" / city / "x_gtFine_labelIds.png", gray(label))
        save(root / "disparity" / "train" / city / "x_disparity.png", np.full((H, W), 257, np.uint16))
        camera = {"extrinsic": {"baseline": 0.2}, "intrinsic": {"fx": 2000.0}}
        (root / "camera" / "train" / city).mkdir(parents=True)
        (root / "camera" / "train" / city / "x_camera.json").write_text(json.dumps(camera))
    return root


def city_data(root: Path, **more: Any) -> StreetDataset:
    return StreetDataset(load_spec("Cityscapes"), root, "train", C16, **{"size": (12, 8), **more})


def synthia_data(root: Path, **more: Any) -> StreetDataset:
    return StreetDataset(load_spec("SYNTHIA"), root, "all", C16, **{"size": (12, 8), **more})


# --- what it gives


def test_items_are_plain_and_collate(synthia: Path) -> None:
    data = synthia_data(synthia, label_size=(12, 8), with_labels=True, with_depth=True)
    assert data.names == ["0000000.png", "0000001.png", "0000002.png"]
    batch = default_collate([data[0], data[1]])
    assert batch["name"] == ["0000000.png", "0000001.png"]
    assert batch["image"].shape == (2, 3, 8, 12)
    assert batch["image"].dtype == torch.float32
    torch.testing.assert_close(batch["image"][1, :, 0, 0], 1 - torch.tensor(IMG_MEAN))
    assert batch["label"].shape == (2, 8, 12)
    assert batch["label"].dtype == torch.uint8
    assert (batch["label"] == 0).all()
    assert batch["depth"].dtype == torch.float32
    assert batch["depth"][:, 3, 5].tolist() == [65536, 1]  # nearest possible and farthest possible
    assert type(data[0]) is dict
    assert set(synthia_data(synthia)[0]) == {"name", "image"}


def test_channels_are_blue_green_red(synthia: Path) -> None:
    picture = rgb()
    picture[..., 0] = 200  # red
    save(synthia / "RGB" / "0000000.png", picture)
    got = synthia_data(synthia, mean=(1, 2, 3))[0]["image"][:, 0, 0]
    assert got.tolist() == [-1, -2, 197]


def test_workers_do_not_change_items(synthia: Path) -> None:
    data = synthia_data(synthia, with_depth=True)
    for alone, worked in zip(DataLoader(data), DataLoader(data, num_workers=2), strict=True):
        assert alone["name"] == worked["name"]
        assert torch.equal(alone["image"], worked["image"])


def test_cityscapes_is_scored_at_its_own_size_whatever_the_input(cityscapes: Path) -> None:
    item = city_data(cityscapes, with_labels=True)[1]
    assert item["image"].shape == (3, 8, 12)
    assert item["label"].shape == (1024, 2048)
    assert item["name"] == "bonn/x_leftImg8bit.png"
    assert (item["label"] == 9).all()
    assert city_data(cityscapes, with_labels=True, label_size=(12, 8))[0]["label"].shape == (8, 12)
    real = StreetDataset(load_spec("streets_real"), cityscapes, "train", C16, size=(12, 8), with_labels=True)
    assert real[0]["label"].shape == (H, W)


def test_official_zips(cityscapes: Path) -> None:
    for part in ("leftImg8bit", "gtFine", "disparity", "camera"):
        shutil.move(cityscapes / part, cityscapes / f"{part}_trainvaltest" / part)
    data = city_data(cityscapes, with_labels=True, with_depth=True)
    assert len(data) == 2
    assert (data[0]["label"] == 0).all()
    assert data[0]["depth"].shape == (8, 12)


def test_training_never_opens_target_labels(cityscapes: Path) -> None:
    shutil.rmtree(cityscapes / "gtFine")
    assert set(city_data(cityscapes)[0]) == {"name", "image"}
    with pytest.raises(DataError, match=r"gtFine.*missing"):
        city_data(cityscapes, with_labels=True)


def test_native_sizes(synthia: Path) -> None:
    item = synthia_data(synthia, size=None, with_labels=True, with_depth=True)[0]
    assert item["image"].shape == (3, H, W)
    assert item["label"].shape == item["depth"].shape == (H, W)


def test_label_of_another_size_than_its_image(synthia: Path) -> None:
    save(synthia / "parsed_LABELS" / "0000000.png", gray(4, (7, 9)))
    label = synthia_data(synthia, with_labels=True, label_size=(12, 8))[0]["label"]
    assert label.shape == (8, 12)
    assert (label == 1).all()


def test_labels_may_be_palette_or_16_bit_and_255_is_ignored(synthia: Path) -> None:
    labels = synthia / "parsed_LABELS"
    palette = Image.fromarray(gray(8)).convert("P")
    palette.putdata([8] * (W * H))
    palette.save(labels / "0000000.png")
    save(labels / "0000001.png", np.full((H, W), 22, np.uint16))
    save(labels / "0000002.png", gray(255))
    data = synthia_data(synthia, with_labels=True)
    assert [int(data[i]["label"].unique()) for i in range(3)] == [12, 255, 255]


# --- Mapillary: aspect kept, padding ignored


@pytest.fixture
def mapillary(tmp_path: Path) -> Path:
    root = tmp_path / "Mapillary"
    save(root / "training" / "images" / "wide.jpg", rgb(200, (40, 10)))
    save(root / "training" / "labels" / "wide.png", gray(13, (40, 10)))
    save(root / "training" / "images" / "tall.JPG", rgb(200, (10, 40)))
    save(root / "training" / "labels" / "tall.PNG", gray(27, (10, 40)))
    return root


def map_data(root: Path, **more: Any) -> StreetDataset:
    return StreetDataset(load_spec("Mapillary"), root, "train", C7, **{"size": (20, 20), "with_labels": True, **more})


def test_padding_is_black_before_the_mean_and_ignored(mapillary: Path) -> None:
    data = map_data(mapillary, label_size=(20, 20))
    assert data.names == ["tall.JPG", "wide.jpg"]
    tall, wide = data[0], data[1]
    black = -torch.tensor(IMG_MEAN)[:, None, None]
    assert (wide["image"][:, 5:] == black).all()
    assert (wide["image"][:, :5] > 0).all()
    assert (tall["image"][:, :, 5:] == black).all()
    assert (tall["image"][:, :, :5] > 0).all()
    assert (wide["label"][:5] == 0).all()
    assert (wide["label"][5:] == 255).all()
    assert (tall["label"][:, :5] == 4).all()
    assert (tall["label"][:, 5:] == 255).all()


def test_at_test_time_the_label_stays_native_and_takes_the_inputs_aspect(mapillary: Path) -> None:
    data = map_data(mapillary, size=(20, 10))
    assert data[0]["label"].shape == (40, 80)
    assert data[1]["label"].shape == (20, 40)
    assert (data[1]["label"][:10] == 0).all()
    assert (data[1]["label"][10:] == 255).all()


@pytest.mark.parametrize("size", [(1024, 768), (640, 320), (1024, 512), (192, 752), (16, 107)])
def test_a_label_is_never_cut_by_rounding(size: tuple[int, int]) -> None:
    """Native sizes with exactly the input's aspect, where int(W / H * h) falls one short for the last two."""
    for factor in (1, 2, 3):
        label = np.zeros((size[1] * factor, size[0] * factor), np.uint8)
        assert pad_label(label, size, "pad").shape == label.shape


def test_other_mapillary_folders(mapillary: Path) -> None:
    (mapillary / "training").rename(mapillary / "train")
    assert len(map_data(mapillary)) == 2
    (mapillary / "train" / "v1.2").mkdir()
    (mapillary / "train" / "labels").rename(mapillary / "train" / "v1.2" / "labels")
    assert (map_data(mapillary)[1]["label"][:5] == 0).all()


def test_labels_of_version_two_are_named(mapillary: Path) -> None:
    file = save(mapillary / "training" / "labels" / "wide.png", gray(107, (40, 10)))
    with pytest.raises(DataError, match=r"label id 107 is not in Mapillary \(0..65, or 255\).*v2.0") as error:
        map_data(mapillary)[1]
    assert str(file) in str(error.value)


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


# --- errors


def test_missing_folders_and_splits_are_named(tmp_path: Path, cityscapes: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*RGB; unpack the images there"):
        synthia_data(tmp_path)
    with pytest.raises(DataError, match=r"Cityscapes has no split 'vall'; did you mean val"):
        StreetDataset(load_spec("Cityscapes"), cityscapes, "vall", C16, size=None)
    (cityscapes / "leftImg8bit" / "val").mkdir()
    with pytest.raises(DataError, match=r"val: holds no \*_leftImg8bit.png"):
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


def test_depth_files_that_lost_their_meaning(synthia: Path) -> None:
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
        with pytest.raises(DataError, match=r"0000000.png: not a whole PNG"):
            data[0]
    save(file, np.stack([noise, noise, noise + 1], axis=2))
    with pytest.raises(DataError, match=r"one channel or equal ones"):
        data[0]
    (synthia / "Depth" / "0000002.png").unlink()
    with pytest.raises(DataError, match=r"0000002.png: missing; the depth of 0000002.png"):
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


# --- pseudo labels


def test_pseudo_labels_by_relative_path_keep_two_cities_apart(cityscapes: Path, tmp_path: Path) -> None:
    pseudo = tmp_path / "masks"
    save(pseudo / "aachen" / "x_leftImg8bit.png", gray(5, (12, 8)))
    save(pseudo / "bonn" / "x_leftImg8bit.png", gray(255, (24, 16)))
    data = city_data(cityscapes, label_dir=pseudo)
    assert data[0]["label"].shape == data[1]["label"].shape == (8, 12)
    assert (data[0]["label"] == 5).all()
    assert (data[1]["label"] == 255).all()


def test_pseudo_labels_by_base_name(cityscapes: Path, tmp_path: Path) -> None:
    pseudo = tmp_path / "masks"
    save(pseudo / "x_leftImg8bit.png", gray(5, (12, 8)))
    data = city_data(cityscapes, label_dir=pseudo, names=["bonn/x_leftImg8bit.png"])
    assert (data[0]["label"] == 5).all()
    with pytest.raises(DataError, match=r"would serve both aachen/x_leftImg8bit.png and bonn/x_leftImg8bit.png"):
        city_data(cityscapes, label_dir=pseudo)


def test_pseudo_labels_of_jpg_images_are_png(mapillary: Path, tmp_path: Path) -> None:
    save(tmp_path / "masks" / "wide.png", gray(6, (20, 20)))
    data = map_data(mapillary, with_labels=False, label_dir=tmp_path / "masks", names=["wide.jpg"])
    assert (data[0]["label"] == 6).all()  # in the frame of the input: padding is not masked out


def test_pseudo_labels_missing_or_of_other_classes(cityscapes: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no pseudo label aachen/x_leftImg8bit.png"):
        city_data(cityscapes, label_dir=tmp_path)
    save(tmp_path / "aachen" / "x_leftImg8bit.png", gray(18))
    save(tmp_path / "bonn" / "x_leftImg8bit.png", gray(15))
    data = city_data(cityscapes, label_dir=tmp_path)
    assert (data[1]["label"] == 15).all()
    with pytest.raises(DataError, match=r"label id 18 is no train id of street16"):
        data[0]


# --- what depth means


def test_inverse_depth_closed_form() -> None:
    got = inverse_depth(np.array([[0, 1, 65535, 255]], np.uint16))
    assert got.dtype == np.float32
    assert got.tolist() == [[65536, 32768, 1, 256]]


def test_disparity_closed_form(cityscapes: Path) -> None:
    metres = disparity_to_metres(np.array([[0, 1, 257, 2561]], np.uint16), 0.2, 2000.0)
    assert np.isnan(metres[0, :2]).all()
    assert metres[0, 2:].tolist() == [400.0, 40.0]
    disparity = cityscapes / "disparity" / "train" / "bonn" / "x_disparity.png"
    camera = cityscapes / "camera" / "train" / "bonn" / "x_camera.json"
    assert (read_depth_metres(disparity, camera) == 400.0).all()
    depth = city_data(cityscapes, with_depth=True)[0]["depth"]
    torch.testing.assert_close(depth, torch.full((8, 12), 65536 / 40001))
    save(disparity, np.zeros((H, W), np.uint16))
    assert (city_data(cityscapes, with_depth=True)[1]["depth"] == 0).all()
    camera.write_text("{}")
    with pytest.raises(DataError, match=r"x_camera.json: not a Cityscapes camera file"):
        city_data(cityscapes, with_depth=True)[1]
