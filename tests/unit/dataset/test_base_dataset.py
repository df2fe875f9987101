"""StreetDataset on small folders in the published layouts: opened files and returned items."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import default_collate

from advent.dataset.base_dataset import StreetDataset, network_depth
from advent.dataset.image_io import IMG_MEAN
from advent.dataset.resize import pad_label
from advent.dataset.spec import load_spec
from advent.errors import DataError
from daf.dataset.depth import disparity_to_metres, inverse_depth, read_depth_metres, to_centimetres
from helpers.dataset_layouts import C16, H, W, city_data, gray, map_data, rgb, save, synthia_data

# --- items


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


def test_cityscapes_labels_have_native_size_for_any_input_size(cityscapes: Path) -> None:
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


def test_label_for_scoring_has_native_scale_and_the_inputs_aspect(mapillary: Path) -> None:
    data = map_data(mapillary, size=(20, 10))
    assert data[0]["label"].shape == (40, 80)
    assert data[1]["label"].shape == (20, 40)
    assert (data[1]["label"][:10] == 0).all()
    assert (data[1]["label"][10:] == 255).all()


@pytest.mark.parametrize("size", [(1024, 768), (640, 320), (1024, 512), (192, 752), (16, 107)])
def test_a_label_is_never_cut_by_rounding(size: tuple[int, int]) -> None:
    """Native sizes with the input's aspect; int(W / H * h) would be one pixel short for the last two."""
    for factor in (1, 2, 3):
        label = np.zeros((size[1] * factor, size[0] * factor), np.uint8)
        assert pad_label(label, size, "pad").shape == label.shape


def test_other_mapillary_folders(mapillary: Path) -> None:
    (mapillary / "training").rename(mapillary / "train")
    assert len(map_data(mapillary)) == 2
    (mapillary / "train" / "v1.2").mkdir()
    (mapillary / "train" / "labels").rename(mapillary / "train" / "v1.2" / "labels")
    assert (map_data(mapillary)[1]["label"][:5] == 0).all()


def test_label_ids_of_no_version_are_named(mapillary: Path) -> None:
    file = save(mapillary / "training" / "labels" / "wide.png", gray(200, (40, 10)))
    with pytest.raises(DataError, match=r"label id 200 is not in Mapillary \(0..65, or 255\).*v2.0") as error:
        map_data(mapillary)[1]
    assert str(file) in str(error.value)


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
    with pytest.raises(DataError, match=r"matches both aachen/x_leftImg8bit.png and bonn/x_leftImg8bit.png"):
        city_data(cityscapes, label_dir=pseudo)


def test_pseudo_labels_of_jpg_images_are_png(mapillary: Path, tmp_path: Path) -> None:
    save(tmp_path / "masks" / "wide.png", gray(6, (20, 20)))
    data = map_data(mapillary, with_labels=False, label_dir=tmp_path / "masks", names=["wide.jpg"])
    assert (data[0]["label"] == 6).all()  # in input coordinates: padding is not masked out


def test_pseudo_labels_missing_or_of_other_classes(cityscapes: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no pseudo label aachen/x_leftImg8bit.png"):
        city_data(cityscapes, label_dir=tmp_path)
    save(tmp_path / "aachen" / "x_leftImg8bit.png", gray(18))
    save(tmp_path / "bonn" / "x_leftImg8bit.png", gray(15))
    data = city_data(cityscapes, label_dir=tmp_path)
    assert (data[1]["label"] == 15).all()
    with pytest.raises(DataError, match=r"label id 18 is no train id of street16"):
        data[0]


def test_pseudo_depth_beside_pseudo_labels(mapillary: Path, tmp_path: Path) -> None:
    """16-bit centimetres in input coordinates: stretched, without gaps under `pad`, and by table as from floats."""
    centimetres = np.arange(400, dtype=np.uint16).reshape(20, 20) * 160
    save(tmp_path / "wide.png", gray(6, (20, 20)))
    with pytest.raises(DataError, match=r"no depth map wide_depth.png for wide.jpg; generate them again"):
        map_data(mapillary, with_labels=False, label_dir=tmp_path, with_pseudo_depth=True, names=["wide.jpg"])
    save(tmp_path / "wide_depth.png", centimetres)
    data = map_data(mapillary, with_labels=False, label_dir=tmp_path, with_pseudo_depth=True, names=["wide.jpg"])
    height, width = data[0]["image"].shape[1:]
    want = inverse_depth(centimetres)[np.arange(height) * 20 // height][:, np.arange(width) * 20 // width]
    assert (data[0]["depth"].numpy() == want).all()
    assert "depth_known" not in data[0]
    compact = data.get_uint8(0)
    assert compact["depth"].dtype == torch.int16
    assert (network_depth(compact["depth"][None], torch.from_numpy(data.depth_table))[0].numpy() == want).all()


# --- depth formats


def test_inverse_depth_closed_form() -> None:
    got = inverse_depth(np.array([[0, 1, 65535, 255]], np.uint16))
    assert got.dtype == np.float32
    assert got.tolist() == [[65536, 32768, 1, 256]]


def test_stored_centimetres_invert_every_value_and_end_at_the_farthest() -> None:
    every = np.arange(2**16, dtype=np.uint16)
    assert (to_centimetres(inverse_depth(every)) == every).all()
    inverse = np.array([65536 / 101, 65536 / 1001, 1.0, 0.5, 0.0, -3.0, 1e9], np.float32)  # 1 m, 10 m, ...
    assert to_centimetres(inverse).tolist() == [100, 1000, 65535, 65535, 65535, 65535, 0]


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
