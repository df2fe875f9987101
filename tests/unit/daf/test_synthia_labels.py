"""Conversion of SYNTHIA's original labels: the class-id channel is detected from its content, ids are preserved."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import prepare
from advent.errors import DataError
from daf.dataset import synthia_labels
from daf.dataset.synthia_labels import convert_labels, find_class_channel

H, W = 12, 16


def ids_of(index: int) -> np.ndarray:
    ids = np.random.RandomState(index).randint(1, 23, (H, W)).astype(np.uint16)
    ids[0, :2] = 0  # a little void
    return ids


def instances_of(index: int, most: int) -> np.ndarray:
    instances = np.zeros((H, W), np.uint16)
    instances[:4, :4] = np.random.RandomState(index).randint(1, most + 1, (4, 4))
    return instances


def make(root: Path, order: str = "ciz", most: int = 900, count: int = 6) -> Path:
    """Files whose channels are class ids (c), instances (i) and zeros (z), in OpenCV's order."""
    (root / "GT/LABELS").mkdir(parents=True)
    for index in range(count):
        channels = {"c": ids_of(index), "i": instances_of(index, most), "z": np.zeros((H, W), np.uint16)}
        cv2.imwrite(str(root / "GT/LABELS" / f"{index:07d}.png"), np.stack([channels[kind] for kind in order], 2))
    return root


def parsed(root: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(file)) for file in sorted((root / "parsed_LABELS").glob("*.png"))]


@pytest.mark.parametrize("order", ["ciz", "icz", "zic", "izc"])
@pytest.mark.parametrize("most", [900, 20])
def test_ids_survive_wherever_their_channel_is(tmp_path: Path, order: str, most: int) -> None:
    root = make(tmp_path, order, most)
    assert find_class_channel(sorted((root / "GT/LABELS").iterdir())) == order.index("c")
    assert convert_labels(root) == 6
    for index, ids in enumerate(parsed(root)):
        assert ids.dtype == np.uint8
        assert (ids == ids_of(index)).all()


def test_single_channel_labels_are_copied(tmp_path: Path) -> None:
    (tmp_path / "GT/LABELS").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "GT/LABELS/a.png"), ids_of(0))
    cv2.imwrite(str(tmp_path / "GT/LABELS/b.png"), ids_of(1).astype(np.uint8))
    assert convert_labels(tmp_path) == 2
    assert (parsed(tmp_path)[1] == ids_of(1)).all()


def test_second_run_writes_nothing_and_interrupted_run_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, original, count = make(tmp_path), synthia_labels.write_atomically, 0

    def stop_at_the_third(path: Path, write: Any) -> Path:
        nonlocal count
        count += 1
        if count == 3:
            original(path, lambda handle: (handle.write(b"half"), 1 / 0))  # type: ignore[arg-type]
        return original(path, write)

    monkeypatch.setattr(synthia_labels, "write_atomically", stop_at_the_third)
    with pytest.raises(ZeroDivisionError):
        convert_labels(root, workers=1)
    monkeypatch.undo()
    written = list((root / "parsed_LABELS").iterdir())
    assert 2 <= len(written) < 6
    assert all(file.suffix == ".png" for file in written)
    assert convert_labels(root) == 6 - len(written)
    assert convert_labels(root) == 0
    assert all((ids == ids_of(index)).all() for index, ids in enumerate(parsed(root)))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-30])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut, "truncated or not a PNG"),
        (lambda file: file.write_bytes(b""), "truncated or not a PNG"),
        (lambda file: cv2.imwrite(str(file), np.full((H, W, 3), 70, np.uint8)), "take GT/LABELS, not GT/COLOR"),
        (
            lambda file: cv2.imwrite(str(file), np.full((H, W, 3), 23, np.uint16)),
            "holds 23 where others hold class ids",
        ),
        (lambda file: cv2.imwrite(str(file), np.full((H, W), 500, np.uint16)), "holds 500 where others"),
    ],
)
def test_files_that_are_no_labels_are_named(tmp_path: Path, spoil: Any, message: str) -> None:
    root = make(tmp_path, count=60)  # the sample does not include the second file
    bad = root / "GT/LABELS/0000001.png"
    spoil(bad)
    with pytest.raises(DataError, match=message) as error:
        convert_labels(root)
    assert str(bad) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (root / "parsed_LABELS" / bad.name).exists()


def test_folders_without_class_ids_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"GT/LABELS: no PNG there"):
        convert_labels(tmp_path)
    root = make(tmp_path, "iiz")
    with pytest.raises(DataError, match=r"no channel holds class ids 0..22 \(channel 0: 0\.\.\d+, 9\d % zeros"):
        convert_labels(root)
    assert not (root / "parsed_LABELS").exists()


def test_two_channels_that_fit_equally_well_are_refused_unless_identical(tmp_path: Path) -> None:
    (tmp_path / "GT/LABELS").mkdir(parents=True)
    file, ids = tmp_path / "GT/LABELS/a.png", ids_of(0)
    cv2.imwrite(str(file), np.stack([ids, ids[::-1], np.zeros_like(ids)], 2))  # as many zeros at other pixels
    with pytest.raises(DataError, match="GT/LABELS: channels 0 and 1 differ") as error:
        convert_labels(tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "parsed_LABELS").exists()
    cv2.imwrite(str(file), np.stack([np.zeros_like(ids), ids, ids], 2))
    assert find_class_channel([file]) == 1
    assert convert_labels(tmp_path) == 1
    assert (parsed(tmp_path)[0] == ids).all()


def test_a_later_file_without_the_channel_is_named(tmp_path: Path) -> None:
    root = make(tmp_path, "icz", count=60)  # the sample does not include the second file
    bad = root / "GT/LABELS/0000001.png"
    cv2.imwrite(str(bad), ids_of(1))
    with pytest.raises(DataError, match=r"0000001\.png: has no channel 1, .* \(channels: 1\)"):
        convert_labels(root)
    assert not (root / "parsed_LABELS" / bad.name).exists()


def test_no_files_at_all_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no label files"):
        find_class_channel([])
    (tmp_path / "GT/LABELS").mkdir(parents=True)
    with pytest.raises(DataError, match=r"GT/LABELS: no PNG there"):
        convert_labels(tmp_path)


def test_an_error_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, started = make(tmp_path, count=200), []

    def refuse(file: Path, channel: int, folder: Path) -> None:
        started.append(file)
        time.sleep(0.01)  # the main thread receives the first error before the pool has processed the other files
        raise DataError(f"{file}: refused")

    monkeypatch.setattr(synthia_labels, "_convert", refuse)
    with pytest.raises(DataError, match="refused"):
        convert_labels(root, workers=1)
    assert len(started) < 200


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make(tmp_path)
    assert prepare.main(["--synthia-labels", str(root)]) == 0
    assert "parsed_LABELS: 6 written" in capsys.readouterr().out
    assert prepare.main(["--synthia-labels", str(tmp_path / "nowhere")]) == 2
    assert "nowhere/GT/LABELS: no PNG there" in capsys.readouterr().err
