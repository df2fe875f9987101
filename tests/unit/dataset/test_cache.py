"""Cache of decoded images: identical items, ignored with a log line if settings differ, interruptible."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from advent.dataset import build_cache
from advent.dataset.base_dataset import StreetDataset
from advent.dataset.build_cache import fill_cache
from advent.errors import DataError
from helpers.dataset_layouts import C7, city_data, map_data, rgb, save, synthia_data


def equal(actual: StreetDataset, expected: StreetDataset) -> None:
    assert len(actual) == len(expected)
    for a, b in zip((actual[i] for i in range(len(actual))), (expected[i] for i in range(len(expected))), strict=True):
        assert set(a) == set(b)
        for key, value in a.items():
            assert torch.equal(value, b[key]) if isinstance(value, torch.Tensor) else value == b[key]


def all_of_synthia(root: Path, **options: Any) -> StreetDataset:
    return synthia_data(root, label_size=(12, 8), with_labels=True, with_depth=True, **options)


def test_cached_items_are_the_same_to_the_bit(
    synthia: Path, cityscapes: Path, mapillary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for make, root in ((all_of_synthia, synthia), (city_data, cityscapes), (map_data, mapillary)):
        filled = fill_cache(make(root, cache_dir=tmp_path / "cache"))
        assert filled.kept == 0
        assert filled.made == len(make(root))
        cached = make(root, cache_dir=tmp_path / "cache")
        with monkeypatch.context() as patch:
            patch.setattr(StreetDataset, "decode", None)  # no image file is opened
            items = [cached[i] for i in range(len(cached))]
        assert len(items) == filled.made
        equal(cached, make(root))


def test_second_fill_writes_nothing_and_interrupted_fill_resumes(
    synthia: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = all_of_synthia(synthia, cache_dir=tmp_path / "cache")
    original, made = build_cache._make, []

    def stop_at_the_third(*arguments: Any) -> bool:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(build_cache, "_make", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        fill_cache(data, workers=1)
    monkeypatch.undo()
    assert not list((tmp_path / "cache").rglob("*.tmp"))
    again = fill_cache(all_of_synthia(synthia, cache_dir=tmp_path / "cache"))
    assert (again.made, again.kept) == (1, 2)
    assert fill_cache(all_of_synthia(synthia, cache_dir=tmp_path / "cache")).made == 0


def test_cache_of_another_size_is_ignored_with_a_log_line(
    synthia: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill_cache(synthia_data(synthia, cache_dir=tmp_path / "cache"))
    with caplog.at_level(logging.INFO):
        other = synthia_data(synthia, size=(6, 4), cache_dir=tmp_path / "cache")
    assert "cache ignored" in caplog.text
    assert "size [12, 8], this run has [6, 4]" in caplog.text
    assert other[0]["image"].shape == (3, 4, 6)


def test_other_classes_or_no_labels_are_another_cache(synthia: Path, tmp_path: Path) -> None:
    images = synthia_data(synthia, cache_dir=tmp_path / "cache")
    labelled = synthia_data(synthia, with_labels=True, cache_dir=tmp_path / "cache")
    seven = StreetDataset(
        labelled.spec, synthia, "all", C7, size=(12, 8), with_labels=True, cache_dir=tmp_path / "cache"
    )
    assert len({dataset.cache.folder for dataset in (images, labelled, seven) if dataset.cache}) == 3


def test_a_changed_picture_is_read_anew(synthia: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill_cache(synthia_data(synthia, cache_dir=tmp_path / "cache"))
    save(synthia / "RGB" / "0000001.png", rgb(200))
    os.utime(synthia / "RGB" / "0000001.png", ns=(1, 1))
    cached = synthia_data(synthia, cache_dir=tmp_path / "cache")
    equal(cached, synthia_data(synthia))
    assert "0000001.png.npz: the image files have changed since" in caplog.text
    assert fill_cache(cached).made == 1
    equal(synthia_data(synthia, cache_dir=tmp_path / "cache"), synthia_data(synthia))


@pytest.mark.parametrize("where", [0, 200, -100, None])
def test_a_damaged_entry_is_noticed_by_its_checksum(
    synthia: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, where: int | None
) -> None:
    filled = fill_cache(synthia_data(synthia, cache_dir=tmp_path / "cache"))
    entry = filled.folder / "0000002.png.npz"
    content = bytearray(entry.read_bytes())
    if where is None:
        content = content[: len(content) // 2]
    else:
        content[where] ^= 0x40
    entry.write_bytes(content)
    equal(synthia_data(synthia, cache_dir=tmp_path / "cache"), synthia_data(synthia))
    assert "0000002.png.npz: damaged" in caplog.text
    assert fill_cache(synthia_data(synthia, cache_dir=tmp_path / "cache")).made == 1


def test_a_full_disk_is_noticed_before_anything_is_written(
    synthia: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_cache.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 500})())
    with pytest.raises(DataError, match=r"needs .* GiB, .* GiB are free; make room, or .*DATA_CACHE=DIR"):
        fill_cache(all_of_synthia(synthia, cache_dir=tmp_path / "cache"))
    assert not list((tmp_path / "cache").rglob("*.npz"))


def test_pseudo_labels_are_never_cached(cityscapes: Path, tmp_path: Path) -> None:
    fill_cache(city_data(cityscapes, cache_dir=tmp_path / "cache"))
    for city in ("aachen", "bonn"):
        save(tmp_path / "masks" / city / "x_leftImg8bit.png", np.full((8, 12), 3, np.uint8))
    data = city_data(cityscapes, label_dir=tmp_path / "masks", cache_dir=tmp_path / "cache")
    assert data.cache is not None
    assert data.cache.used
    assert (data[0]["label"] == 3).all()
    save(tmp_path / "masks" / "aachen" / "x_leftImg8bit.png", np.full((8, 12), 5, np.uint8))
    assert (data[0]["label"] == 5).all()
