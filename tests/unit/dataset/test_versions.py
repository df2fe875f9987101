"""Mapillary Vistas v1.2 and v2.0: label tables, their documentation page, and detection of a folder's version."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from advent.dataset.spec import load_spec
from advent.dataset.versions import detect_version
from helpers.dataset_layouts import C7, gray, map_data, save

PAGE = Path(__file__).parents[3] / "docs" / "mapillary-v2.md"
V1, V2 = load_spec("mapillary"), load_spec("mapillary_v2")

# --- the table of v2.0

# Pattern of new v2.0 names (the first match counts) -> the v1.2 label that they were part of, if any.
PART_OF = {
    "Ambiguous Barrier|Concrete Block|Road Median|Road Side|Lane Separator|Temporary Barrier": "Barrier",
    "Driveway": "Service Lane",
    "Parking Aisle": "Parking",
    "Road Shoulder": "Road",
    "Traffic Island": "Sidewalk",
    "Garage": "Building",
    "Person Group": "Person",
    r"Lane Marking \(only\) - Crosswalk": "Lane Marking - Crosswalk",
    r"Lane Marking (\(only\) )?- .+": "Lane Marking - General",
    "Signage - .+": "Billboard",
    "Pole Group": "Pole",
    "Traffic Light - .+": "Traffic Light",
    r"Traffic Sign - .+ \(Back\)": "Traffic Sign (Back)",
    "Traffic Sign - .+": "Traffic Sign (Front)",
    "Vehicle Group": "Other Vehicle",
    "Dynamic|Ground|Static": "Unlabeled",
    "Parking Meter|Traffic Cone|Water Valve": None,
}
OLD_CLASS = dict(
    zip(V1.label_names, [([*C7.names, "-"])[min(i, 7)] for i in V1.table(C7)[: len(V1.label_names)]], strict=True)
)


def derived(name: str) -> tuple[str, str]:
    """(class, reason) of a v2.0 label, derived from v1.2's table; the last two columns of the page."""
    if name in OLD_CLASS:
        return OLD_CLASS[name], "as in v1.2"
    part = next(part for pattern, part in PART_OF.items() if re.fullmatch(pattern, name))
    if part is None:
        return "-", "new; no counterpart in v1.2"
    return OLD_CLASS[part], f"new; part of {part}" + (", which has no class" if OLD_CLASS[part] == "-" else "")


def class_of(label_id: int) -> str:
    train_id = V2.table(C7)[label_id]
    return "-" if train_id == 255 else C7.names[train_id]


def test_both_versions_name_all_their_labels() -> None:
    for spec, count, some in ((V1, 66, {13: "Road", 55: "Car"}), (V2, 124, {21: "Road", 108: "Car"})):
        assert len(set(spec.label_names)) == len(spec.label_names) == count == spec.max_label_id + 1
        assert {i: spec.label_names[i] for i in some} == some
        assert spec.label_names[spec.fill_label or 0] == "Unlabeled"


def test_a_label_that_both_versions_have_keeps_its_class() -> None:
    assert set(V1.label_names) - set(V2.label_names) == {"Lane Marking - General", "Traffic Light", "Billboard"}
    kept = [name for name in V2.label_names if name in OLD_CLASS]
    assert len(kept) == 63
    assert {name: class_of(V2.label_names.index(name)) for name in kept} == {name: OLD_CLASS[name] for name in kept}


def test_new_label_has_the_class_of_its_v1_label() -> None:
    new = [name for name in V2.label_names if name not in OLD_CLASS]
    assert len(new) == 61
    assert {name: class_of(V2.label_names.index(name)) for name in new} == {name: derived(name)[0] for name in new}


def test_a_new_label_with_a_class_shares_it_with_the_nearest_old_label_on_one_side() -> None:
    """Mapillary orders its labels by groups."""
    old = [i for i, name in enumerate(V2.label_names) if name in OLD_CLASS]
    for label_id in sorted(set(range(124)) - set(old)):
        around = {class_of(max(i for i in old if i < label_id)), class_of(min(i for i in old if i > label_id))}
        assert class_of(label_id) in around | {"-"}, V2.label_names[label_id]


def test_page_equals_the_table() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [re.split(r" *\| *", line.strip("| ")) for line in lines if re.match(r"\| *\d", line)]
    assert [row[:3] for row in rows] == [[str(i), name, class_of(i)] for i, name in enumerate(V2.label_names)]
    assert [row[2:] for row in rows] == [list(derived(name)) for name in V2.label_names]


# --- detection of the version

OLD, NEW, EITHER = (13, 65), (21, 118), (13, 27)


def relabel(root: Path, folders: dict[str, Sequence[int]]) -> Path:
    """Replace make_mapillary's labels: per folder, tall.PNG has the first id and wide.png the second.

    The ids of `EITHER` are valid in both versions.
    """
    shutil.rmtree(root / "training" / "labels")
    for folder, (tall, wide) in folders.items():
        save(root / "training" / folder / "tall.PNG", gray(tall, (10, 40)))
        save(root / "training" / folder / "wide.png", gray(wide, (40, 10)))
    return root


def told(root: Path, named: str) -> str:
    return detect_version(load_spec(named), root, "train").name


@pytest.mark.parametrize(
    ("folders", "named", "version"),
    [
        ({"labels": OLD}, "mapillary", "Mapillary"),
        ({"labels": OLD}, "mapillary_v2", "Mapillary"),
        ({"labels": NEW}, "mapillary", "Mapillary_v2"),
        ({"labels": NEW}, "mapillary_v2", "Mapillary_v2"),
        ({"labels": EITHER}, "mapillary", "Mapillary"),
        ({"labels": EITHER}, "mapillary_v2", "Mapillary"),
        ({"labels": (13, 255)}, "mapillary_v2", "Mapillary"),
        ({"v1.2/labels": OLD}, "mapillary_v2", "Mapillary"),
        ({"v2.0/labels": NEW}, "mapillary", "Mapillary_v2"),
        ({"v1.2/labels": OLD, "v2.0/labels": NEW}, "mapillary", "Mapillary"),
        ({"v1.2/labels": OLD, "v2.0/labels": NEW}, "mapillary_v2", "Mapillary_v2"),
        ({"v1.2/labels": EITHER, "v2.0/labels": EITHER}, "mapillary", "Mapillary"),
        ({"v1.2/labels": EITHER, "v2.0/labels": EITHER}, "mapillary_v2", "Mapillary_v2"),
    ],
)
def test_version_from_ids_or_from_the_name_if_both_exist(
    mapillary: Path, folders: dict[str, Sequence[int]], named: str, version: str
) -> None:
    assert told(relabel(mapillary, folders), named) == version


@pytest.mark.parametrize("named", ["mapillary", "mapillary_v2"])
def test_ids_of_no_version_keep_the_named_spec(mapillary: Path, named: str) -> None:
    relabel(mapillary, {"labels": (13, 200)})
    assert detect_version(load_spec(named), mapillary, "train") is load_spec(named)


def test_data_set_without_versions_is_not_read(tmp_path: Path) -> None:
    spec = load_spec("streets_mapillary")
    assert detect_version(spec, tmp_path / "nowhere", "train") is spec


def catalogue(root: Path, names: Sequence[str], file: str = "config.json") -> None:
    labels = [{"name": f"group--{i}", "readable": name, "evaluate": True} for i, name in enumerate(names)]
    (root / file).write_text(json.dumps({"labels": labels, "version": "x"}), encoding="utf-8")


@pytest.mark.parametrize("named", ["mapillary", "mapillary_v2"])
def test_catalogue_decides_if_ids_fit_both_versions(mapillary: Path, named: str) -> None:
    relabel(mapillary, {"labels": EITHER})
    catalogue(mapillary, V2.label_names)
    assert told(mapillary, named) == "Mapillary_v2"
    catalogue(mapillary, V1.label_names)
    assert told(mapillary, named) == "Mapillary"
    catalogue(mapillary, V2.label_names[::-1])  # matches no version
    assert told(mapillary, named) == "Mapillary"


def test_catalogue_of_the_named_version_is_used(mapillary: Path) -> None:
    relabel(mapillary, {"labels": EITHER})
    catalogue(mapillary, V1.label_names, "config_v1.2.json")
    catalogue(mapillary, V2.label_names, "config_v2.0.json")
    assert told(mapillary, "mapillary") == "Mapillary"
    assert told(mapillary, "mapillary_v2") == "Mapillary_v2"


def test_ids_override_the_catalogue(mapillary: Path) -> None:
    relabel(mapillary, {"labels": NEW})
    catalogue(mapillary, V1.label_names)
    assert told(mapillary, "mapillary") == "Mapillary_v2"


@pytest.mark.parametrize("damage", [b"", b'{"labels": [', b"\xff\xfe", b"[]", b'{"labels": 5}', b'{"labels": [{}]}'])
def test_a_damaged_catalogue_is_ignored(mapillary: Path, damage: bytes) -> None:
    relabel(mapillary, {"labels": EITHER})
    (mapillary / "config.json").write_bytes(damage)
    assert told(mapillary, "mapillary") == "Mapillary"
    catalogue(mapillary, V2.label_names, "config_v2.0.json")
    assert told(mapillary, "mapillary") == "Mapillary_v2"


def test_a_truncated_or_missing_label_file_does_not_stop_the_detection(mapillary: Path) -> None:
    first = relabel(mapillary, {"labels": NEW}) / "training" / "labels" / "tall.PNG"
    first.write_bytes(first.read_bytes()[:40])
    assert told(mapillary, "mapillary") == "Mapillary_v2"
    first.unlink()
    assert told(mapillary, "mapillary") == "Mapillary_v2"


# --- end to end


@pytest.mark.parametrize("folder", ["labels", "v2.0/labels"])
def test_labels_of_v2_become_the_right_classes_under_the_name_of_v1(mapillary: Path, folder: str) -> None:
    ids = np.repeat(np.array([[21, 108, 61, 33, 75]], np.uint8), 10, axis=0).repeat(8, axis=1)
    save(relabel(mapillary, {folder: NEW}) / "training" / folder / "wide.png", ids)
    data = map_data(mapillary, size=None)
    assert data.spec.name == "Mapillary_v2"
    label = data[data.names.index("wide.jpg")]["label"]
    assert label.shape == (10, 40)
    # Road, Car, Sky, Motorcyclist, Parking Meter; in v1.2 21 is Motorcyclist and 61 Truck
    assert label[5, ::8].tolist() == [C7.names.index(name) for name in ("flat", "vehicle", "sky", "human")] + [255]


def test_padding_of_v2_labels_is_ignored(mapillary: Path) -> None:
    label = map_data(relabel(mapillary, {"labels": NEW}), label_size=(20, 20))[0]["label"]
    assert set(label[:, :5].flatten().tolist()) == {C7.names.index("flat")}
    assert set(label[:, 5:].flatten().tolist()) == {255}
