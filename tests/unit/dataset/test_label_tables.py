"""Class sets and label tables against the papers' tables; errors in a spec name file and key."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from advent.dataset.classes import classes_for, load_classes
from advent.dataset.resolved_layout import resolve_root
from advent.dataset.spec import load_spec
from advent.errors import ConfigError, DataError
from advent.utils.viz_segmask import colorize_mask

ALL_SPECS = ["SYNTHIA", "Cityscapes", "Mapillary", "GTA5", "CamVid", "streets", "streets_real", "streets_mapillary"]


def ids_of(dataset: str, class_set: str) -> list[list[int]]:
    """Label ids of every train id, read from the lookup table."""
    classes = load_classes(class_set)
    table = load_spec(dataset).table(classes)
    assert table.dtype == np.uint8
    assert table[255] == 255
    mapped = [np.flatnonzero(table == train_id).tolist() for train_id in range(len(classes))]
    assert sum(map(len, mapped)) + (table == 255).sum() == len(table)
    return mapped


def test_sixteen_classes() -> None:
    synthia = [3, 4, 2, 21, 5, 7, 15, 9, 6, 1, 10, 17, 8, 19, 12, 11]
    cityscapes = [7, 8, 11, 12, 13, 17, 19, 20, 21, 23, 24, 25, 26, 28, 32, 33]
    assert ids_of("SYNTHIA", "street16") == [[i] for i in synthia]
    assert ids_of("streets", "street16") == [[i] for i in synthia]
    assert ids_of("Cityscapes", "street16") == [[i] for i in cityscapes]


def test_seven_classes() -> None:
    assert ids_of("SYNTHIA", "street7") == [[3, 4, 22], [2, 5], [7, 9, 15], [6], [1], [10], [8, 11]]
    assert ids_of("Cityscapes", "street7") == [
        *([7, 8], [11, 12, 13], [17, 19, 20], [21, 22], [23], [24, 25]),
        list(range(26, 34)),
    ]
    assert ids_of("Mapillary", "street7") == [
        [*range(7, 16), 23, 24, 29],
        [2, 3, 4, 5, 6, 16, 17, 18],
        list(range(43, 51)),
        [30],
        [27],
        [19, 20, 21, 22],
        list(range(52, 63)),
    ]
    assert ids_of("streets", "street7") == [[3, 4, 22], [2, 5, 21], [7, 9, 15], [6], [1], [10, 17], [8, 11, 12, 19]]
    assert ids_of("CamVid", "street7") == [[3, 4], [1, 7], [2, 6], [5], [0], [9, 10], [8]]


@pytest.mark.parametrize("dataset", ["Cityscapes", "GTA5", "streets_real"])
def test_nineteen_classes(dataset: str) -> None:
    ids = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert ids_of(dataset, "cityscapes19") == [[i] for i in ids]


def test_rare_classes_and_subsets() -> None:
    street16, cityscapes19 = load_classes("street16"), load_classes("cityscapes19")
    assert street16.rare == (3, 4, 5, 6, 7, 11, 13, 14)
    assert street16.subset == {"mIoU13": tuple(i for i in range(16) if i not in (3, 4, 5))}
    assert [cityscapes19.names[i] for i in cityscapes19.rare] == (
        [
            "wall",
            "fence",
            "pole",
            "traffic light",
            "traffic sign",
            "terrain",
            "rider",
            "truck",
            "bus",
            "train",
            "motorcycle",
        ]
    )
    assert load_classes("street7").rare == ()
    assert load_classes("STREET7").subset == {}


def test_colours_follow_the_meaning() -> None:
    c16, c19, c7 = (load_classes(classes_for(n)) for n in (16, 19, 7))
    alias = {"light": "traffic light", "sign": "traffic sign"}
    for name, color in zip(c16.names, c16.colors, strict=True):
        assert c19.colors[c19.names.index(alias.get(name, name))] == color
    like = ["road", "building", "pole", "vegetation", "sky", "person", "car"]
    assert list(c7.colors) == [c19.colors[c19.names.index(name)] for name in like]
    assert c19.colors[0] == (128, 64, 128)
    assert c19.colors[13] == (0, 0, 142)


def test_geometry_and_score_size() -> None:
    assert load_spec("Cityscapes").score_size == (2048, 1024)
    assert all(load_spec(n).score_size is None for n in ALL_SPECS if n != "Cityscapes")
    assert [n for n in ALL_SPECS if load_spec(n).geometry == "pad"] == ["Mapillary", "streets_mapillary"]
    assert len({load_spec(n).folder for n in ALL_SPECS}) == len(ALL_SPECS)


def test_names_in_any_case_and_the_nearest_name() -> None:
    assert load_spec("cityscapes") is load_spec("CITYSCAPES")
    with pytest.raises(ConfigError, match=r"did you mean cityscapes"):
        load_spec("Cityscape")
    with pytest.raises(ConfigError, match=r"NUM_CLASSES: 11 .*16 .street16."):
        classes_for(11)
    with pytest.raises(ConfigError, match=r"Mapillary has no table for the class set street16"):
        load_spec("Mapillary").table(load_classes("street16"))


GOOD = """
name: mine
folder: mine
layouts: [{images: "img/{name}.png", labels: "lab/{name}.png"}]
splits: {train: [""]}
ids: {street7: {flat: [0-2], sky: [5]}}
max_label_id: 9
"""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("folder:", "foldr:"), "unknown key 'foldr'; did you mean folder"),
        (("name: mine", ""), "'name' is missing"),
        (("sky: [5]", "sky: [2]"), "label id 2 belongs to two classes"),
        (("sky: [5]", "sky: [12]"), "label id 12 of street7 exceeds max_label_id 9"),
        (("{name}.png", "x.png"), "'images' pattern"),
        (
            ("max_label_id: 9", "max_label_id: 9\ngeometry: padd"),
            "geometry: 'padd' is none of stretch, pad; did you mean pad",
        ),
        (("max_label_id: 9", "max_label_id: 9\nfill_label: 12"), "fill_label 12 is not in 0..9"),
        (("labels:", "label:"), "layouts[0]: unknown key 'label'; did you mean labels"),
        (("max_label_id: 9", "max_label_id: many"), "max_label_id: 'many' should be a valid integer"),
        (("sky: [5]", "sky: [5-99999999999]"), "not an id"),
        (("sky: [5]", "sky: [-1]"), "not an id"),
        (("max_label_id: 9", "max_label_id: 9\nscore_size: [5]"), "score_size"),
        (("{name}.png", "{name}{other}.png"), "the fields are"),
    ],
)
def test_a_wrong_spec_is_one_line_naming_the_file(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    file = tmp_path / "mine.yml"
    file.write_text(GOOD.replace(*change))
    with pytest.raises(ConfigError) as error:
        load_spec(file)
    assert message in str(error.value)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("rare:", "rar:"), "unknown key 'rar'; did you mean rare"),
        (("name: sky", "nam: sky"), "classes[1]: unknown key 'nam'; did you mean name"),
        (("rare: [sky]", "rare: [ski]"), "'ski' is not one of its classes; did you mean sky"),
        (("rare: [sky]", "rare: sky"), "rare: 'sky' should be a valid list; see configs/classes/street16.yml"),
        (("rare: [sky]", "layouts: []"), "is a data set spec, not a class set; set SOURCE or TARGET to use it"),
    ],
)
def test_a_wrong_class_set_is_one_line_naming_the_file(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    file = tmp_path / "mine.yml"
    text = "classes: [{name: road, color: [0, 0, 0]}, {name: sky, color: [1, 1, 1]}]\nrare: [sky]\n"
    file.write_text(text)
    assert (load_classes(file).name, load_classes(file).rare) == ("mine", (1,))
    other = tmp_path / "other.yml"
    other.write_text(text.replace(*change))
    with pytest.raises(ConfigError) as error:
        load_classes(other)
    assert str(error.value).startswith(f"{other}: ")
    assert message in str(error.value)


def test_a_users_own_spec_needs_no_code(tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text(GOOD)
    table = load_spec(tmp_path / "mine.yml").table(load_classes("street7"))
    assert table[:10].tolist() == [0, 0, 0, 255, 255, 4, 255, 255, 255, 255]


def test_a_class_name_that_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text(GOOD.replace("sky:", "ski:"))
    with pytest.raises(ConfigError, match=r"'ski' is not a class of street7; did you mean sky"):
        load_spec(tmp_path / "mine.yml").table(load_classes("street7"))


def test_resolve_root(tmp_path: Path) -> None:
    spec = load_spec("SYNTHIA")
    (tmp_path / "SYNTHIA").mkdir()
    (tmp_path / "other").mkdir()
    assert resolve_root(tmp_path, None, spec) == tmp_path / "SYNTHIA"
    assert resolve_root(tmp_path, "other", spec) == tmp_path / "other"
    assert resolve_root("elsewhere", tmp_path / "other", spec) == tmp_path / "other"
    with pytest.raises(DataError, match=r"missing: no such folder for SYNTHIA.*--data-root.*DATA_DIRECTORY_SOURCE"):
        resolve_root(tmp_path, "missing", spec)


def test_colorize_mask() -> None:
    mask = np.array([[0, 13], [255, 2]])
    picture = colorize_mask(mask)
    assert picture.mode == "P"
    assert (np.asarray(picture) == mask).all()
    rgb = np.asarray(picture.convert("RGB"))
    assert rgb.tolist() == [[[128, 64, 128], [0, 0, 142]], [[0, 0, 0], [70, 70, 70]]]
    sixteen = np.asarray(colorize_mask(mask, load_classes("street16").colors).convert("RGB"))
    assert sixteen[0, 1].tolist() == [0, 60, 100]  # 13 is bus among the 16
