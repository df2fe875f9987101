"""scripts/doctor.py: report on valid data and on planted faults."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import doctor
import train
from advent.dataset.spec import load_spec
from advent.doctor import check
from helpers import tiny_data
from helpers.dataset_layouts import gray, rgb, save
from helpers.doctor_cli import examine, on_dataset


def test_good_data(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = examine(capsys, *tiny_data.command_line(data, "quick:daf"))
    assert code == 0, text
    assert "images   8, in" in text
    assert "sizes    64x48 (8)" in text
    assert "modes    image RGB 8-bit (8); label gray 8-bit (8)" in text
    assert "ids      1-4, 6-8, 10 of 0-22" in text
    assert "depth    500 to 6800" in text
    assert "result: OK" in text
    # Eight stripes of equal share: road, sidewalk are flat.
    assert "flat 25.0 %, construction 12.5 %, object 12.5 %, nature 12.5 %, sky 12.5 %" in text


def test_labels_of_the_target_are_never_needed(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(data / "CamVid/valannot")
    code, text = examine(capsys, *tiny_data.command_line(data, "quick:daf"))
    assert code == 0
    assert "labels are not checked: training and ranking never open target labels" in text
    assert "no labels: fine for training and ranking" in text


FAULTS = {
    "truncated image": ("RGB/0000000.png: cannot be read as an image", 1),
    "empty image": ("RGB/0000001.png: cannot be read as an image", 1),
    "16-bit image": ("RGB/0000002.png: an image has 8 bits per channel", 1),
    "label id 200": ("parsed_LABELS/0000003.png: label id 200 is not in streets (0..22, or 255)", 1),
    "colour label": ("parsed_LABELS/0000004.png: a label file has one channel of class ids, this one is RGB", 1),
    "missing label": ("missing labels (1): ", 1),
    "missing depth": ("missing depth (1): ", 1),
    "8-bit depth": ("Depth/0000007.png: a depth map is a 16-bit PNG, this one has 8 bits", 1),
    "depth of zeros": ("Depth/0000008.png: the depth is 0 or not a number everywhere", 1),
    "label of another shape": ("parsed_LABELS/0000009.png: 90 x 30, its image is 64 x 48: different aspect ratios", 1),
    "twin image": ("duplicate images (1): 0000010.png = 0000011.png", 0),
    "label without image": ("labels without an image (1): 0000099.png", 0),
}


def plant(root: Path) -> None:
    """Twelve faults in a data set in SYNTHIA's layout, one for each of the first twelve images."""
    images, labels, depth = root / "RGB", root / "parsed_LABELS", root / "Depth"
    whole = (images / "0000000.png").read_bytes()
    (images / "0000000.png").write_bytes(whole[: len(whole) * 2 // 3])
    (images / "0000001.png").write_bytes(b"")
    cv2.imwrite(str(images / "0000002.png"), np.full((48, 64, 3), 40000, np.uint16))
    save(labels / "0000003.png", gray(200, (64, 48)))
    save(labels / "0000004.png", rgb(9, (64, 48)))
    (labels / "0000005.png").unlink()
    (depth / "0000006.png").unlink()
    save(depth / "0000007.png", gray(9, (64, 48)))
    save(depth / "0000008.png", np.zeros((48, 64), np.uint16))
    save(labels / "0000009.png", gray(3, (90, 30)))
    shutil.copy(images / "0000010.png", images / "0000011.png")
    shutil.copy(labels / "0000010.png", labels / "0000099.png")


def test_twelve_planted_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tiny_data.make_source(tmp_path / "streets", 16)
    assert on_dataset(capsys, "streets", root)[0] == 0
    plant(root)
    code, text = on_dataset(capsys, "streets", root)
    assert code == 1
    for fault, (words, _) in FAULTS.items():
        assert words in text, fault
    errors = sum(error for _, error in FAULTS.values())
    assert f"result: {errors} problems to fix, " in text
    assert "labels   15 of 16" in text
    assert "depth    15 of 16" in text


def test_each_fault_alone_decides_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    intact = tiny_data.make_source(tmp_path / "whole", 16)
    all_faults = tiny_data.make_source(tmp_path / "spoilt", 16)
    plant(all_faults)
    for index, (fault, (words, error)) in enumerate(FAULTS.items()):
        damaged = tmp_path / "one"
        shutil.copytree(intact, damaged)
        for folder in ("RGB", "parsed_LABELS", "Depth"):
            for file in (damaged / folder).glob(f"{index:07d}.png"):
                file.unlink()
            for file in (all_faults / folder).glob(f"{index:07d}.png"):
                shutil.copy(file, damaged / folder)
        if fault == "twin image":
            shutil.copy(all_faults / "RGB/0000011.png", damaged / "RGB")
        if fault == "label without image":
            shutil.copy(intact / "RGB/0000011.png", damaged / "RGB")
            shutil.copy(all_faults / "parsed_LABELS/0000099.png", damaged / "parsed_LABELS")
        code, text = on_dataset(capsys, "streets", damaged)
        assert (code, words in text) == (error, True), fault
        shutil.rmtree(damaged)


def test_labels_may_be_larger_than_their_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Downscaled images with full-size labels have the same aspect; this is a note, not an error."""
    root = tiny_data.make_source(tmp_path / "streets")
    save(root / "parsed_LABELS/0000002.png", gray(3, (128, 96)))
    code, text = on_dataset(capsys, "streets", root)
    assert code == 0
    assert "labels larger than their images (they are resized) (1): 0000002.png" in text


def turned(path: Path, orientation: int = 6) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.open(path).save(path, exif=exif)


def test_exif_orientation(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An EXIF orientation is a note for a target without labels; with unturned labels or depth it is an error."""
    turned(data / "CamVid/train/0002.png")
    code, text = examine(capsys, *tiny_data.command_line(data, "quick:daf"))
    assert code == 0
    assert "images rotated by their EXIF orientation (1): 0002.png" in text
    turned(data / "streets/RGB/0000003.png", 3)
    code, text = examine(capsys, *tiny_data.command_line(data, "quick:daf"))
    assert code == 1
    assert "0000003.png: the image has EXIF orientation 3, its label" in text
    assert "different aspect ratios" not in text
    assert train.main(tiny_data.command_line(data, "quick:daf", "DATA_CHECK=8")) == 2
    assert "the image has EXIF orientation 3" in capsys.readouterr().err


def test_damaged_exif_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tiny_data.make_source(tmp_path / "streets")
    Image.open(root / "RGB/0000001.png").save(root / "RGB/0000001.png", exif=b"Exif\0\0no exif at all")
    code, text = on_dataset(capsys, "streets", root)
    assert code == 0
    assert "images with a damaged EXIF block, used as stored (1): 0000001.png" in text


def test_unequal_pairs_of_the_published_gta5_are_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "GTA5"
    for name in ("00001", "15188", "20830", "20861"):
        save(root / "images" / f"{name}.png", rgb(len(name) + int(name) % 7, (64, 36)))
        save(root / "labels" / f"{name}.png", gray(7, (64, 36 if name == "00001" else 30)))
    code, text = on_dataset(capsys, "gta5", root)
    assert code == 1
    assert "result: 1 problem to fix" in text
    assert "20861.png: 64 x 30, its image is 64 x 36: different aspect ratios" in text
    assert "as in the published set: both are resized to the input size (2): 15188.png, 20830.png" in text


def test_the_published_gta5_has_62_unequal_pairs() -> None:
    assert len(load_spec("gta5").unequal) == 62


def test_memory_per_image_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Depth values are kept for the unit guess only (24 maps); of a label only its ids are kept, also with 16 bits."""
    root = tiny_data.make_source(tmp_path / "streets", 40)
    cv2.imwrite(str(root / "parsed_LABELS/0000000.png"), np.full((48, 64), 60_000, np.uint16))
    kept = []
    monkeypatch.setattr(check, "summarize", lambda findings, facts, spec, classes: kept.extend(facts))
    assert doctor.main(["--dataset", "streets", "--root", str(root)]) == 0
    assert len(kept) == 40
    assert sum(facts.depth_values is not None for facts in kept) == 24
    assert all(facts.depth_range == (500, 6800) for facts in kept)
    assert kept[0].ids == {60_000: 48 * 64}


def test_repeated_findings_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tiny_data.make_source(tmp_path / "streets", 16)
    for index in range(9):
        save(root / "parsed_LABELS" / f"{index:07d}.png", rgb(9, (64, 48)))
    for index in range(9, 16):
        (root / "Depth" / f"{index:07d}.png").unlink()
    text = on_dataset(capsys, "streets", root)[1]
    assert "result: 2 problems" in text
    assert "(and 8 more: 0000001.png, 0000002.png, 0000003.png, 0000004.png)" in text
    assert "missing depth (7): " in text
    assert "0000013.png and 2 more" in text


def test_quick_reads_a_sample_and_full_reads_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tiny_data.make_source(tmp_path / "streets", 16)
    save(root / "parsed_LABELS/0000001.png", rgb(9, (64, 48)))
    code, text = on_dataset(capsys, "streets", root, "--quick", 4)
    assert code == 0
    assert "read     4 of 16 images" in text
    assert on_dataset(capsys, "streets", root, "--workers", 1)[0] == 1


def test_duplicates_between_train_and_val_are_reported(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(data / "CamVid/train/0003.png", data / "CamVid/val/0005.png")
    text = examine(capsys, *tiny_data.command_line(data, "quick:daf"))[1]
    assert "images that are also in target CamVid, train (1): 0005.png = 0003.png" in text


# --- common mistakes


def test_depth_in_another_unit_is_guessed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A road in perspective, 6 m at the bottom, 60 m in the middle: in cm (correct), in mm, and as inverse depth."""
    root = tiny_data.make_source(tmp_path / "streets")
    metres = np.repeat(np.concatenate([np.full(24, 60.0), np.linspace(60, 6, 24)])[:, None], 64, 1)
    looks = {"a distance in cm": 100 * metres, "a distance in mm": 1000 * metres, "an inverse depth": 60000 / metres}
    for words, values in looks.items():
        for file in (root / "Depth").iterdir():
            save(file, values.astype(np.uint16))
        code, text = on_dataset(capsys, "streets", root)
        assert code == 0
        assert f"looks like {words} (a guess)" in text
        assert ("the spec says synthia_cm" in text) == (words != "a distance in cm")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dataset", "streets"], "--dataset and --root belong together"),
        (["--dataset", "street", "--root", "."], "did you mean streets"),
        (["--dataset", "streets", "--root", "nowhere"], "--root nowhere: no such folder"),
        (["--dataset", "streets", "--root", ".", "--quick", "-1"], "--quick"),
        (["--dataset", "streets", "--root", ".", "--quick", "few"], "--quick"),
        (["--cfg", "quik"], "did you mean quick"),
    ],
)
def test_mistakes_on_the_command_line(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = examine(capsys, *arguments)
    assert code == 2
    assert words in text
    assert "Traceback" not in text


def test_one_missing_data_set_does_not_hide_the_other(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(data / "streets")
    (data / "CamVid/train/0002.png").write_bytes(b"x")
    code, text = examine(capsys, *tiny_data.command_line(data, "quick:daf"))
    assert code == 1
    assert "streets: no such folder for streets" in text
    assert "0002.png: cannot be read as an image" in text
