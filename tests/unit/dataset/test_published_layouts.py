"""Specs of ACDC, Dark Zurich, BDD100K, IDD, UrbanSyn and Virtual KITTI 2 on small folders in their layouts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from advent.dataset.base_dataset import StreetDataset
from advent.dataset.classes import load_classes
from advent.dataset.image_io import read_values
from advent.dataset.layout import Layout
from advent.dataset.spec import load_spec
from advent.errors import DataError
from helpers.dataset_layouts import H, W, gray, rgb, save
from helpers.doctor_cli import on_dataset

TRAIN_ID_SPECS = ["acdc", "dark_zurich", "bdd100k", "idd", "urbansyn"]
SIXTEEN = {**dict(zip(range(9), range(9), strict=True)), 10: 9, 11: 10, 12: 11, 13: 12, 15: 13, 17: 14, 18: 15}
SEVEN = {
    0: 0,
    1: 0,
    2: 1,
    3: 1,
    4: 1,
    5: 2,
    6: 2,
    7: 2,
    8: 3,
    9: 3,
    10: 4,
    11: 5,
    12: 5,
    **dict.fromkeys(range(13, 19), 6),
}


def write_exr(path: Path, values: np.ndarray, *names: str) -> None:
    exr = pytest.importorskip("OpenEXR")
    path.parent.mkdir(parents=True, exist_ok=True)
    with exr.File({"type": exr.scanlineimage}, dict.fromkeys(names or ("Y",), values)) as file:
        file.write(str(path))


def pair(image: Path, label: Path | None, label_id: int, value: int = 0) -> None:
    save(image, rgb(value or label_id))
    if label is not None:
        save(label, gray(label_id))


def make_acdc(root: Path, gt: str = "gt", photos: str = "rgb_anon") -> None:
    """One image for each condition and split: road in fog, sky at night, bicycles in rain, void in snow."""
    for condition, label_id in (("fog", 0), ("night", 10), ("rain", 18), ("snow", 255)):
        for number, split in enumerate(("train", "val")):
            name = f"GOPR04_frame_00000{number}"
            folder = f"{condition}/{split}/GOPR04"
            label = root / gt / folder / f"{name}_gt_labelTrainIds.png"
            pair(root / photos / folder / f"{name}_rgb_anon.png", label, label_id, label_id // 2 + 100 * number + 1)
            save(label.with_name(f"{name}_gt_labelIds.png"), gray(7))
            save(root / photos / condition / f"{split}_ref/GOPR04" / f"{name}_rgb_ref_anon.png", rgb(9))


def make_dark_zurich(root: Path) -> None:
    for time in ("night", "twilight", "day"):
        save(root / f"rgb_anon/train/{time}/GOPR03/GOPR03_frame_1_rgb_anon.png", rgb(len(time)))
    pair(
        root / "rgb_anon/val/night/GOPR0356/GOPR0356_frame_000321_rgb_anon.png",
        root / "gt/val/night/GOPR0356/GOPR0356_frame_000321_gt_labelTrainIds.png",
        13,
    )
    save(root / "gt/val/night/GOPR0356/GOPR0356_frame_000321_gt_invGray.png", gray(0))


def make_bdd100k(root: Path) -> None:
    for split, label_id in (("train", 2), ("val", 255)):
        pair(root / f"images/10k/{split}/0a-1.jpg", root / f"labels/sem_seg/masks/{split}/0a-1.png", label_id)


def make_idd(root: Path) -> None:
    for split, label_id in (("train", 9), ("val", 16)):
        label = root / f"gtFine/{split}/201/frame0029_gtFine_labelcsTrainIds.png"
        pair(root / f"leftImg8bit/{split}/201/frame0029_leftImg8bit.png", label, label_id)
        label.with_name("frame0029_gtFine_polygons.json").write_text("{}")


def make_urbansyn(root: Path) -> None:
    """Near ground at 6 m, the horizon at 60 m; EXR values are 1 / 100,000 of that."""
    metres = np.repeat(np.concatenate([np.full(H // 2, 60.0), np.linspace(60, 6, H // 2)])[:, None], W, 1)
    for number, label_id in ((1, 0), (2, 19)):
        pair(root / f"rgb/rgb_000{number}.png", root / f"ss/ss_000{number}.png", label_id, number)
        write_exr(root / f"depth/depth_000{number}.exr", (metres / 1e5).astype(np.float32))


def make_vkitti2(root: Path, archive: Callable[[str], str] = lambda role: "") -> None:
    """Two variants of one scene: trees, and a van; 2.55 m, and infinity."""
    for variant, colour, depth_cm in (("clone", (0, 199, 0), 255), ("15-deg-left", (0, 139, 139), 65535)):
        frames = f"Scene01/{variant}/frames"
        save(root / archive("rgb") / frames / "rgb/Camera_0/rgb_00000.jpg", rgb(len(variant)))
        save(root / archive("rgb") / frames / "rgb/Camera_1/rgb_00000.jpg", rgb(99))
        label = np.broadcast_to(np.array(colour, np.uint8), (H, W, 3)).copy()
        save(root / archive("classSegmentation") / frames / "classSegmentation/Camera_0/classgt_00000.png", label)
        depth = root / archive("depth") / frames / "depth/Camera_0/depth_00000.png"
        save(depth, np.full((H, W), depth_cm, np.uint16))


def archive_of(role: str) -> str:
    return f"vkitti_2.0.3_{role}"


def data_of(spec: str, root: Path, split: str, classes: str = "cityscapes19", **options: Any) -> StreetDataset:
    chosen = {"size": (6, 4), "label_size": (6, 4), "with_labels": True, **options}
    return StreetDataset(load_spec(spec), root, split, load_classes(classes), **chosen)


def train_ids(data: StreetDataset) -> dict[str, int]:
    """Image name -> train id of its label, which has one value."""
    return {item["name"]: int(item["label"].unique()) for item in (data[i] for i in range(len(data)))}


@pytest.mark.parametrize("spec", TRAIN_ID_SPECS)
def test_train_ids_are_those_of_cityscapes(spec: str) -> None:
    table = load_spec(spec).table(load_classes("cityscapes19"))
    assert table[:19].tolist() == list(range(19))
    assert set(table[19:]) == {255}
    sixteen = load_spec(spec).table(load_classes("street16"))[:19].tolist()
    assert sixteen == [SIXTEEN.get(i, 255) for i in range(19)]
    assert load_spec(spec).table(load_classes("street7"))[:19].tolist() == [SEVEN[i] for i in range(19)]
    assert load_spec(spec).label_names[:19] == load_classes("cityscapes19").names


def test_the_base_of_train_ids_hands_on_no_folder() -> None:
    specs = [load_spec(name) for name in TRAIN_ID_SPECS]
    assert len({spec.folder for spec in specs}) == len({spec.layouts for spec in specs}) == 5


@pytest.mark.parametrize(("gt", "photos"), [("gt", "rgb_anon"), ("gt_trainval/gt", "rgb_anon_trainvaltest/rgb_anon")])
def test_acdc(tmp_path: Path, gt: str, photos: str) -> None:
    make_acdc(tmp_path, gt, photos)
    for number, split in enumerate(("train", "val")):
        suffix = f"{split}/GOPR04/GOPR04_frame_00000{number}_rgb_anon.png"
        expected = {f"fog/{suffix}": 0, f"night/{suffix}": 10, f"rain/{suffix}": 18, f"snow/{suffix}": 255}
        assert train_ids(data_of("acdc", tmp_path, split)) == expected
    data = data_of("acdc", tmp_path, "val")
    assert data.resolved.key(data.names[0]) == "fog/GOPR04/GOPR04_frame_000001"


def test_acdc_in_flat_folders(tmp_path: Path) -> None:
    """MIC's README copies all images of a split into one folder; the originals may stay."""
    make_acdc(tmp_path)
    for split in ("train", "val"):
        label = tmp_path / f"gt/{split}/a_gt_labelTrainIds.png"
        pair(tmp_path / f"rgb_anon/{split}/a_rgb_anon.png", label, 4)
    assert train_ids(data_of("acdc", tmp_path, "train")) == {"a_rgb_anon.png": 4}


def test_dark_zurich(tmp_path: Path) -> None:
    make_dark_zurich(tmp_path)
    night = data_of("dark_zurich", tmp_path, "train", with_labels=False)
    assert night.names == ["GOPR03/GOPR03_frame_1_rgb_anon.png"]
    assert night.resolved.images == tmp_path / "rgb_anon/train/night"
    assert train_ids(data_of("dark_zurich", tmp_path, "val")) == {
        "GOPR0356/GOPR0356_frame_000321_rgb_anon.png": 13,
    }
    assert len(data_of("dark_zurich", tmp_path, "train_day", with_labels=False)) == 1
    with pytest.raises(DataError, match="missing; expected the labels"):
        data_of("dark_zurich", tmp_path, "train")


def test_bdd100k(tmp_path: Path) -> None:
    make_bdd100k(tmp_path)
    assert train_ids(data_of("bdd100k", tmp_path, "train")) == {"0a-1.jpg": 2}
    assert train_ids(data_of("bdd100k", tmp_path, "val")) == {"0a-1.jpg": 255}
    old = tmp_path / "old"
    pair(old / "seg/images/val/0a-1.jpg", old / "seg/labels/val/0a-1_train_id.png", 11)
    assert train_ids(data_of("bdd100k", old, "val")) == {"0a-1.jpg": 11}


def test_idd(tmp_path: Path) -> None:
    make_idd(tmp_path)
    name = "201/frame0029_leftImg8bit.png"
    assert train_ids(data_of("idd", tmp_path, "train")) == {name: 9}
    assert train_ids(data_of("idd", tmp_path, "val")) == {name: 16}
    assert train_ids(data_of("idd", tmp_path, "val", "street16")) == {name: 255}


def test_urbansyn(tmp_path: Path) -> None:
    make_urbansyn(tmp_path)
    data = data_of("urbansyn", tmp_path, "all", with_depth=True)
    assert train_ids(data) == {"rgb_0001.png": 0, "rgb_0002.png": 255}
    write_exr(tmp_path / "depth/depth_0001.exr", np.full((H, W), 2.55e-5, np.float32))
    torch.testing.assert_close(data[0]["depth"], torch.full((4, 6), 256.0), rtol=1e-4, atol=0)  # 65536 / (255 + 1)
    assert "depth_known" not in data[0]


@pytest.mark.parametrize("archive", [lambda role: "", archive_of], ids=["merged", "by archive"])
def test_vkitti2(tmp_path: Path, archive: Callable[[str], str]) -> None:
    make_vkitti2(tmp_path, archive)
    data = data_of("vkitti2", tmp_path, "all", with_depth=True)
    van, tree = (f"Scene01/{variant}/frames/rgb/Camera_0/rgb_00000.jpg" for variant in ("15-deg-left", "clone"))
    assert train_ids(data) == {van: 13, tree: 8}
    assert (data[0]["depth"].unique(), data[1]["depth"].unique()) == (1.0, 256.0)  # 65536 / 65536, 65536 / 256
    assert train_ids(data_of("vkitti2", tmp_path, "train", "street16")) == {van: 12, tree: 8}
    assert train_ids(data_of("vkitti2", tmp_path, "train", "street7")) == {van: 6, tree: 3}


def test_vkitti2_has_ten_of_cityscapes_classes() -> None:
    spec, classes = load_spec("vkitti2"), load_classes("cityscapes19")
    table = spec.table(classes)
    missing = {"sidewalk", "wall", "fence", "person", "rider", "bus", "train", "motorcycle", "bicycle"}
    assert {classes.names[i] for i in table if i != 255} == set(classes.names) - missing
    assert [spec.label_names[i] for i in range(15) if table[i] == 255] == ["Undefined", "GuardRail", "Misc"]
    assert spec.palette is not None
    assert len(spec.palette) == len(spec.label_names) == 15


# --- the doctor


def examined(
    spec: str, make: Callable[[Path], None], root: Path, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    make(root)
    return on_dataset(capsys, spec, root)


@pytest.mark.parametrize(
    ("spec", "make", "blocks"),
    [
        ("acdc", make_acdc, ["ACDC, train", "ACDC, val"]),
        ("dark_zurich", make_dark_zurich, ["DarkZurich, train", "DarkZurich, val", "DarkZurich, train_day"]),
        ("bdd100k", make_bdd100k, ["BDD100K, train", "BDD100K, val"]),
        ("idd", make_idd, ["IDD, train", "IDD, val"]),
        ("vkitti2", make_vkitti2, ["VKITTI2, all"]),
        ("urbansyn", make_urbansyn, ["UrbanSyn, all", "looks like a distance in m (a guess)"]),
    ],
)
def test_the_doctor_accepts_the_layout(
    tmp_path: Path, spec: str, make: Callable[[Path], None], blocks: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = examined(spec, make, tmp_path, capsys)
    # Every pixel of BDD100K's validation label is void here, which would be a mistake in real data.
    assert code == (spec == "bdd100k"), text
    for words in blocks:
        assert words in text
    assert ("the spec says" in text) == (spec == "vkitti2")  # its depth is constant here
    assert "without an image" not in text


def without(make: Callable[[Path], None], pattern: str) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        make(root)
        for file in root.glob(pattern):
            file.unlink()

    return build


def idd_level3(root: Path) -> None:
    make_idd(root)
    for file in root.glob("gtFine/*/*/*csTrainIds.png"):
        file.rename(file.with_name(file.name.replace("csTrainIds", "level3Ids")))


@pytest.mark.parametrize(
    ("spec", "make", "words"),
    [
        ("acdc", without(make_acdc, "gt/**/*labelTrainIds.png"), "the reader wants labelTrainIds"),
        ("idd", without(make_idd, "gtFine/**/*.png"), "only polygons are there"),
        ("idd", idd_level3, "run createLabels.py of AutoNUE/public-code again with --id-type csTrainId"),
    ],
)
def test_common_mistakes_are_named(
    tmp_path: Path, spec: str, make: Callable[[Path], None], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in examined(spec, make, tmp_path, capsys)[1]


def test_label_ids_in_place_of_train_ids_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_idd(tmp_path)
    save(tmp_path / "gtFine/val/201/frame0029_gtFine_labelcsTrainIds.png", gray(33))
    code, text = on_dataset(capsys, "idd", tmp_path)
    assert code == 1
    assert "label id 33 is not in IDD (0..18, or 255); the labels are csTrainIds" in text


# --- {split} after {folder}


def test_a_split_below_the_folders() -> None:
    layout = Layout(images="rgb/{folder}/{split}/{name}.png", labels="gt/{folder}/{split}/{name}_id.png")
    train = layout.for_split("train")
    assert train.names.fields("a/b/train/c/1.png") == {"folder": "a/b", "name": "c/1"}
    assert train.names.fields("a/val/1.png") is None
    assert train.base("labels", "train") == Path("gt")
    assert train.path("labels", "train", "a/train/1.png") == Path("gt/a/train/1_id.png")
    usual = Layout(images="{split}/rgb/{name}.png", labels="{split}/gt/{name}.png")
    assert usual.for_split("train") is usual


def test_a_missing_image_folder_names_the_pattern_of_the_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "rgb_anon/fog/train/a.jpg", rgb())
    assert "image names must match */train/*_rgb_anon.png" in on_dataset(capsys, "acdc", tmp_path)[1]


# --- EXR


def test_exr_with_equal_channels_is_one_map(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_exr(tmp_path / "rgb.exr", values, "R", "G", "B")
    assert (read_values(tmp_path / "rgb.exr", "a depth map") == values).all()


def test_damaged_exr_is_one_line(tmp_path: Path) -> None:
    write_exr(tmp_path / "x.exr", np.ones((64, 64), np.float32))
    (tmp_path / "x.exr").write_bytes((tmp_path / "x.exr").read_bytes()[:400])
    for name in ("x.exr", "none.exr"):
        with pytest.raises(DataError, match=rf"{name}: (cannot be read as EXR|no such file)") as error:
            read_values(tmp_path / name, "a depth map")
        assert "\n" not in str(error.value)


def test_exr_with_different_channels_is_refused(tmp_path: Path) -> None:
    exr = pytest.importorskip("OpenEXR")
    channels = {"R": np.zeros((3, 4), np.float32), "G": np.ones((3, 4), np.float32)}
    with exr.File({"type": exr.scanlineimage}, channels) as file:
        file.write(str(tmp_path / "x.exr"))
    with pytest.raises(DataError, match="this file has 2 different ones"):
        read_values(tmp_path / "x.exr", "a depth map")


def test_exr_without_its_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    (tmp_path / "x.exr").write_bytes(b"")
    with pytest.raises(DataError, match=r"pip install -e '\.\[exr\]'"):
        read_values(tmp_path / "x.exr", "a depth map")


def test_depth_of_another_scale_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """UrbanSyn's depth stored in metres by a conversion: 100,000 times too large for the spec."""
    make_urbansyn(tmp_path)
    for file in (tmp_path / "depth").iterdir():
        write_exr(file, read_values(file, "a depth map") * np.float32(1e5))
    assert "the spec says distance in m" in on_dataset(capsys, "urbansyn", tmp_path)[1]


def test_vkitti2_depth_is_read_as_16_bits(tmp_path: Path) -> None:
    make_vkitti2(tmp_path)
    data = data_of("vkitti2", tmp_path, "all", with_depth=True)
    assert data.depth_table is not None
    file = tmp_path / "Scene01/clone/frames/depth/Camera_0/depth_00000.png"
    cv2.imwrite(str(file), np.full((H, W), 599, np.uint16))
    torch.testing.assert_close(data[1]["depth"], torch.full((4, 6), 65536 / 600))
