"""Custom data set specs: patterns with folders, custom classes, colour labels, list files."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from advent.build import evaluation_data, target_data
from advent.config.class_set import class_set
from advent.config.loading import config_digest, dump_config, load_config
from advent.dataset.classes import classes_from_mapping, load_classes
from advent.dataset.layout import Layout, NamePattern
from advent.errors import ConfigError, DataError
from helpers.custom_specs import BINARY, read, spec_of
from helpers.dataset_layouts import C7, gray, rgb, save

# --- patterns


@pytest.mark.parametrize(
    ("pattern", "name", "fields"),
    [
        ("{name}.png", "a.png", {"name": "a"}),
        ("{name}.png", "b/a.PNG", {"name": "b/a"}),
        ("{name}.png", "a.jpg", None),
        ("{name}.png", ".a.png", None),
        ("{name}.png", "b/.a.png", None),
        ("{name}_rgb.png", "b/a_rgb.png", {"name": "b/a"}),
        ("rgb_{name}.png", "b/rgb_1.png", {"name": "b/1"}),
        ("rgb_{name}.png", "b/1.png", None),
        ("{folder}/rgb/{name}.png", "x/y/rgb/1.png", {"folder": "x/y", "name": "1"}),
        ("{folder}/rgb/{name}.png", "rgb/1.png", None),
        ("{folder}/rgb/{name}.png", "x/depth/1.png", None),
        ("{name}/image.png", "x/image.png", {"name": "x"}),
        ("{name}", "x.png", {"name": "x.png"}),
        ("{name}.v1.png", "x.v1.png", {"name": "x"}),
        ("{name}.v1.png", "xxv1.png", None),
    ],
)
def test_names_fit_patterns(pattern: str, name: str, fields: dict[str, str] | None) -> None:
    assert NamePattern(pattern).fields(name) == fields


def test_image_label_and_depth_paths_match() -> None:
    layout = Layout(images="{split}/{folder}/rgb/cam_{name}.jpg", labels="{split}/{folder}/masks/{name}.png")
    assert layout.base("images", "train") == Path("train")
    assert layout.path("labels", "train", "a/b/rgb/cam_7.JPG") == Path("train/a/b/masks/7.png")
    assert layout.path("depth", "train", "a/b/rgb/cam_7.JPG") is None


def test_several_folders_are_one_data_set(tmp_path: Path) -> None:
    text = """
name: drives
folder: drives
layouts: [{images: "{folder}/photos/{name}.jpg", labels: "{folder}/masks/{name}.png"}]
classes: [{name: a, color: [0, 0, 0]}, {name: b, color: [1, 1, 1]}]
"""
    for drive, value in (("monday", 0), ("disk/tuesday", 1)):
        save(tmp_path / drive / "photos" / "1.jpg", rgb(50))
        save(tmp_path / drive / "masks" / "1.png", gray(value))
    data = read(spec_of(tmp_path, text), tmp_path, with_labels=True)
    assert data.names == ["disk/tuesday/photos/1.jpg", "monday/photos/1.jpg"]
    assert [int(data[i]["label"].max()) for i in range(2)] == [1, 0]
    assert [data.resolved.key(name) for name in data.names] == ["disk/tuesday/1", "monday/1"]


def test_lists_of_the_spec(tmp_path: Path) -> None:
    text = (BINARY % ("png", "", "")).replace("layouts", "lists: {train: first.txt}\nlayouts")
    for name in ("1", "2", "3"):
        save(tmp_path / "images" / f"{name}.png", rgb())
    (tmp_path / "first.txt").write_bytes(b"2.png\r\n\r\n1.png\r\n")
    spec = spec_of(tmp_path, text)
    assert read(spec, tmp_path).names == ["2.png", "1.png"]
    assert read(spec, tmp_path, split="all").names == ["1.png", "2.png", "3.png"]
    assert read(spec, tmp_path, names=["3.png"]).names == ["3.png"]
    (tmp_path / "first.txt").write_text("../secret.png")
    with pytest.raises(DataError, match=r"first.txt: '../secret.png' leaves the images' folder"):
        read(spec, tmp_path)


# --- labels


def test_masks_of_zero_and_255(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, BINARY % ("png", ", ids: [0]", ", ids: [255]"))
    mask = gray(0)
    mask[8:] = 255
    save(tmp_path / "images/1.png", rgb())
    save(tmp_path / "masks/1.png", mask)
    label = read(spec, tmp_path, with_labels=True)[0]["label"]
    assert label[:2].unique().tolist() == [0]
    assert label[2:].unique().tolist() == [1]


def test_without_ids_the_position_counts_and_others_are_errors(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, BINARY % ("png", "", ""))
    save(tmp_path / "images/1.png", rgb())
    save(tmp_path / "masks/1.png", gray(1))
    data = read(spec, tmp_path, with_labels=True)
    assert data[0]["label"].unique().tolist() == [1]
    save(tmp_path / "masks/1.png", gray(2))
    with pytest.raises(DataError, match=r"1.png: label id 2 is not in mine \(0..1, or 255\)"):
        data[0]


@pytest.mark.parametrize("palette", ["classes", "{0: [0, 0, 0], 1: [128, 64, 128]}"])
def test_labels_in_colours(tmp_path: Path, palette: str) -> None:
    spec = spec_of(tmp_path, BINARY % ("png", "", "") + f"palette: {palette}\n")
    colours = np.zeros((16, 24, 3), np.uint8)
    colours[:8] = (128, 64, 128)
    save(tmp_path / "images/1.png", rgb())
    save(tmp_path / "masks/1.png", colours)
    data = read(spec, tmp_path, with_labels=True)
    expected = torch.tensor([1, 1, 0, 0], dtype=torch.uint8)[:, None].expand(4, 6)
    assert torch.equal(data[0]["label"], expected)
    Image.fromarray(colours).quantize(2).save(tmp_path / "masks/1.png")  # a palette image; its indices do not matter
    assert torch.equal(data[0]["label"], expected)
    colours[0, 0] = (127, 64, 128)
    save(tmp_path / "masks/1.png", colours)
    with pytest.raises(DataError, match=r"1.png: the colour \[127, 64, 128\] .*is not in the palette"):
        data[0]


def test_colours_without_a_class_are_ignored(tmp_path: Path) -> None:
    text = BINARY % ("png", "", "") + "palette: {0: [0, 0, 0], 1: [128, 64, 128], 9: [255, 255, 255]}\n"
    save(tmp_path / "images/1.png", rgb())
    save(tmp_path / "masks/1.png", rgb(255))
    assert read(spec_of(tmp_path, text), tmp_path, with_labels=True)[0]["label"].unique().tolist() == [255]


def test_an_unlabelled_folder_needs_three_keys(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, 'name: mine\nfolder: mine\nlayouts: [{images: "{name}.jpg"}]\n')
    save(tmp_path / "x/1.jpg", rgb(9))
    data = read(spec, tmp_path)
    assert data.names == ["x/1.jpg"]
    assert set(data[0]) == {"name", "image"}
    with pytest.raises(ConfigError, match=r"has no table for the class set street7 \(it has none.*unlabelled\)"):
        read(spec, tmp_path, with_labels=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("palette: rainbow", "palette is a mapping"),
        ("palette: {0: [0, 0], 1: [1, 1, 1]}", "three values"),
        ("palette: {0: [0, 0, 0], 1: [0, 0, 0]}", "one colour is assigned to two ids"),
        ("depth: {unit: cm}", "depth: the key 'kind' is missing"),
        ("depth: {kind: distance, unit: feet}", "depth.unit: 'feet' is none of mm, cm, m, km"),
        ("depth: {kind: distance, scale: -1}", "depth.scale: -1.0 is too small; more than 0"),
        ("depth: {kind: distance, scal: 1}", "unknown key 'scal'; did you mean scale"),
        ("mistakes: [{path: x}]", "the key 'say' is missing"),
        ("mistakes: [{say: x, if_missing: label}]", "did you mean labels"),
        ("ids: {mine: {background: [Rood]}}\nlabel_names: [Road]", "did you mean Road"),
        ("depth: distance", "depth: 'distance' is not a mapping with the keys kind, unit, scale, unknown"),
        ("depth: {kind: distance, unknown: 0}", "depth.unknown: '0' should be a valid list; see configs/datasets/"),
        ("score_size: [5]", "score_size: value 2 is missing; see"),
        ("score_size: [5, 6, 7]", "score_size: [5, 6, 7] has too many values; at most 2"),
        ("bas: synthia", "unknown key 'bas'; did you mean base"),
        ("base: nowhere", "nowhere"),
    ],
)
def test_mistakes_in_a_spec_are_one_line(tmp_path: Path, line: str, message: str) -> None:
    text = BINARY % ("png", "", "")
    if line.startswith("ids"):
        text = text[: text.index("classes:")]
    with pytest.raises(ConfigError) as error:
        spec_of(tmp_path, text + line)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("  - {name: sky, color: [1, 2, 3], id: [2]}", "unknown key 'id'; did you mean ids"),
        ("  - {name: sky, color: [1, 2]}", "classes[2].color: [1, 2] is not a colour: three values 0..255"),
        ("  - {name: sky, color: [1, 2, 300]}", "three values 0..255"),
        ("  - {name: road, color: [1, 2, 3]}", "different names"),
        ("  - {name: sky, color: [1, 2, 3], ids: [1]}", "label id 1 belongs to two classes"),
        ("  - {name: sky, color: [1, 2, 3], ids: 5}", "classes[2].ids: '5' is not a list such as"),
    ],
)
def test_mistakes_in_own_classes_are_one_line(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        spec_of(tmp_path, BINARY % ("png", "", "") + line + "\n")
    assert message in str(error.value)


# --- classes of a protocol


def config_of(tmp_path: Path, *overrides: str) -> Any:
    (tmp_path / "mine.yml").write_text(BINARY % ("png", "", ""))
    return load_config("quick:daf", [f"SOURCE={tmp_path / 'mine.yml'}", "NUM_CLASSES=2", *overrides])


def test_a_data_sets_own_classes_are_the_protocols(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    assert class_set(config).names == ("background", "road")
    with pytest.raises(ConfigError, match=r"NUM_CLASSES: 3, but the class set mine .*has 2"):
        config_of(tmp_path, "NUM_CLASSES=3")


def test_classes_are_stored_in_the_config(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    written = tmp_path / "config.yml"
    written.write_text(dump_config(config))
    (tmp_path / "mine.yml").unlink()
    again = load_config(written)
    assert class_set(again) == class_set(config)
    assert config_digest(again) == config_digest(config)


def test_geometry_is_stored_in_the_config_with_its_target(tmp_path: Path) -> None:
    config = load_config("ep3_dg")
    assert (config.TARGET, config.GEOMETRY_TARGET) == ("Mapillary", "pad")
    written, other = tmp_path / "config.yml", tmp_path / "other.yml"
    written.write_text(dump_config(config))
    other.write_text(f"BASE: {written}\nTARGET: Cityscapes\n")
    assert load_config(written).GEOMETRY_TARGET == "pad"
    assert load_config(written, ["TARGET=Cityscapes"]).GEOMETRY_TARGET == "stretch"
    assert load_config(other).GEOMETRY_TARGET == "stretch"
    assert load_config("dg", ["TARGET=nowhere.yml", "CLASSES=street16"]).GEOMETRY_TARGET is None


def test_geometry_of_spec_and_config_must_agree() -> None:
    config = load_config("ep3_dg", ["GEOMETRY_TARGET=stretch"])
    for open_data in (target_data, evaluation_data):
        with pytest.raises(ConfigError, match=r"GEOMETRY_TARGET: stretch, but the data set Mapillary has .*pad"):
            open_data(config)


def test_class_names_change_the_digest_and_colours_do_not(tmp_path: Path) -> None:
    digests = set()
    for name, color in (("road", 128), ("road", 99), ("lane", 128)):
        config = config_of(tmp_path)
        config.CLASSES.names[1], config.CLASSES.colors[1] = name, [color, 0, 0]
        digests.add(config_digest(config))
    assert len(digests) == 2


@pytest.mark.parametrize("name", ["street7", "street16", "cityscapes19"])
def test_class_set_round_trip(name: str) -> None:
    assert classes_from_mapping(load_classes(name).as_mapping()) == load_classes(name)


@pytest.mark.parametrize(
    "change", [{"names": ["a"]}, {"colors": 5}, {"more": 1}, {"rare": ["b"]}, {"subset": {"x": ["b"]}}]
)
def test_a_damaged_mapping_of_classes_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"CLASSES"):
        classes_from_mapping({**load_classes("street7").as_mapping(), **change})


def test_two_data_sets_with_different_classes_must_be_reconciled(tmp_path: Path) -> None:
    (tmp_path / "other.yml").write_text((BINARY % ("png", "", "")).replace("mine", "other"))
    with pytest.raises(ConfigError, match=r"SOURCE and TARGET define two class sets, mine and other"):
        config_of(tmp_path, f"TARGET={tmp_path / 'other.yml'}")
    assert class_set(config_of(tmp_path, f"TARGET={tmp_path / 'other.yml'}", "CLASSES=street7", "NUM_CLASSES=7")) == C7


def _new(folder: Path) -> Path:
    """Create a new folder: loaded specs are cached by path."""
    new = folder / str(len(list(folder.iterdir())))
    new.mkdir()
    return new


def test_classes_without_ids_have_no_colour_in_the_palette(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, BINARY % ("png", ", ids: []", ", ids: [4]") + "palette: classes\n")
    assert spec.palette == {4: (128, 64, 128)}
    assert pickle.loads(pickle.dumps(spec)) == spec


PLAIN = 'name: mine\nfolder: mine\nlayouts: [{images: "{name}.png"}]\n'


@pytest.mark.timeout(30)
def test_every_id_of_16_bits_is_checked_at_once(tmp_path: Path) -> None:
    """Pairwise comparison of 65,536 ids took minutes; a duplicate id is still detected."""
    spec = spec_of(_new(tmp_path), PLAIN + "ids: {a: {x: [0-65534], y: [65535]}}\n")
    assert len(spec.ids["a"]["x"]) == 65535
    with pytest.raises(ConfigError, match="label id 7 belongs to two classes"):
        spec_of(_new(tmp_path), PLAIN + "ids: {a: {x: [0-65534], y: [65535, 7]}}\n")


def test_names_of_unequal_pairs(tmp_path: Path) -> None:
    spec = spec_of(_new(tmp_path), PLAIN + "unequal: [15188, 0998-1001, clip/a, x-1]\n")
    assert spec.unequal == {"15188", "0998", "0999", "1000", "1001", "clip/a", "x-1"}
    with pytest.raises(ConfigError, match="'9-3' is not a range of names"):
        spec_of(_new(tmp_path), PLAIN + "unequal: [9-3]\n")
