"""EXIF orientation: images are turned upright when read; labels must have the same orientation."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from advent.dataset import image_io
from advent.dataset.base_dataset import StreetDataset
from advent.dataset.build_cache import fill_cache
from advent.dataset.exif import exif_orientation
from advent.dataset.gta5 import GTA5DataSet
from advent.dataset.image_io import open_picture, picture_size, read_image
from advent.dataset.spec import load_spec
from advent.doctor.check import sanity_check
from advent.errors import DataError
from advent.evaluation.evaluate import native_size
from helpers.dataset_layouts import C16, gray, save

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
# Stored pixels -> upright pixels for each orientation of the EXIF standard.
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: np.swapaxes(stored, 0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.swapaxes(stored[::-1, ::-1], 0, 1),
    8: lambda stored: np.rot90(stored, 1),
}
STORED = np.random.RandomState(3).randint(0, 256, (16, 24, 3)).astype(np.uint8)  # 24 wide, 16 high


def tag(orientation: int, endian: str = "<") -> bytes:
    exif = Image.Exif()
    exif.endian = endian
    exif[0x0112] = orientation
    exif[0x010F] = "a maker with a long name"
    return exif.tobytes()


def write(path: Path, orientation: int | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = {} if orientation is None else {"exif": tag(orientation)}
    Image.fromarray(STORED).save(path, **exif, **options)
    return path


def behind_the_pixels(path: Path) -> None:
    """Move a PNG's EXIF chunk behind its pixel data, where ImageMagick writes it."""
    data = path.read_bytes()
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    last = data.index(b"IEND") - 4
    path.write_bytes(data[:start] + data[end:last] + data[start:end] + data[last:])


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_every_orientation_is_turned_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    plain, tagged = tmp_path / f"plain.{suffix}", tmp_path / f"tagged.{suffix}"
    write(plain)
    write(tagged, orientation)
    expected = UPRIGHT[orientation](np.asarray(Image.open(plain).convert("RGB")))
    image = read_image(tagged)
    np.testing.assert_array_equal(np.asarray(image), expected)
    assert picture_size(tagged) == image.size == (expected.shape[1], expected.shape[0])


def test_other_locations_of_the_orientation_tag(tmp_path: Path) -> None:
    """Big-endian EXIF, EXIF behind a PNG's pixel data, and XMP alone."""
    big = tmp_path / "big.jpg"
    Image.fromarray(STORED).save(big, exif=tag(6, ">"))
    late = write(tmp_path / "late.png", 6)
    behind_the_pixels(late)
    xmp = tmp_path / "xmp.webp"
    Image.fromarray(STORED).save(xmp, xmp=b'<rdf:Description tiff:Orientation="6"/>')
    for path in (big, late, xmp):
        assert read_image(path).size == picture_size(path) == (16, 24), path


def test_picture_size_reads_the_header_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write(tmp_path / "plain.png"), write(tmp_path / "turned.jpg", 6)]
    monkeypatch.setattr(image_io, "decode_picture", None)
    assert [picture_size(path) for path in paths] == [(24, 16), (16, 24)]


def test_heic_comes_upright(tmp_path: Path) -> None:
    """pillow-heif returns an upright image; its EXIF orientation is not applied a second time."""
    pytest.importorskip("pillow_heif").register_heif_opener()
    path = write(tmp_path / "phone.heic", 6, quality=95)
    assert read_image(path).size == picture_size(path) == (16, 24)


# --- damaged blocks


@given(st.binary(max_size=120))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_an_orientation_or_a_value_error(block: bytes) -> None:
    for start in (b"", b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0MM\0*\0\0\0\x08"):
        try:
            orientation = exif_orientation(start + block)
        except ValueError:
            continue
        assert orientation is None or isinstance(orientation, int)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_exif_keeps_the_pixels(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Random bytes as or in the EXIF block, or a truncated block: pixels are read, and turned only by an intact tag."""
    good = tag(data.draw(st.sampled_from([1, 6])))
    kind = data.draw(st.sampled_from(["random", "spliced", "cut"]))
    if kind == "random":
        block = b"Exif\0\0" + data.draw(st.binary(min_size=1, max_size=150))
    elif kind == "cut":
        block = good[: data.draw(st.integers(7, len(good) - 1))]
    else:
        at, junk = data.draw(st.integers(6, len(good) - 1)), data.draw(st.binary(min_size=1, max_size=12))
        block = good[:at] + junk + good[at + len(junk) :]
    suffix = data.draw(st.sampled_from(["jpg", "png", "webp"]))
    path = tmp_path_factory.getbasetemp() / f"fuzz.{suffix}"
    Image.fromarray(STORED).save(path, exif=block)
    stored = np.asarray(Image.open(path).convert("RGB"))
    pixels = np.asarray(read_image(path))
    assert picture_size(path) == (pixels.shape[1], pixels.shape[0])
    try:
        orientation = exif_orientation(block)
    except ValueError:
        orientation = 1
    np.testing.assert_array_equal(pixels, UPRIGHT[orientation if orientation in UPRIGHT else 1](stored))


def test_a_damaged_block_is_reported_with_the_files_name_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "dam\x1b[31maged.jpg"
    Image.fromarray(STORED).save(path, exif=b"Exif\0\0II*\0\x08\0\0\0\x09\0broken")
    with caplog.at_level(logging.WARNING):
        assert read_image(path).size == open_picture(path).size == (24, 16)
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}/damaged.jpg: its EXIF block is damaged; the picture is taken as it is stored, not turned"
    ]


def test_no_warning_of_another_library_reaches_standard_error(tmp_path: Path) -> None:
    """Pillow's EXIF warning and PyTorch's worker warning name no file or key; ours do."""
    entries = b"\x02\0" + b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0" + b"\x0f\x01\x02\0\xff\x00\0\0\xf0\xff\0\0"
    Image.fromarray(STORED).save(tmp_path / "odd.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0" + entries)
    Image.fromarray(STORED).save(tmp_path / "bad.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\x02\0rest")
    code = f"""
from pathlib import Path
from PIL import Image
from advent.dataset.image_io import read_image
from advent.dataset.loader import load_batches
import torch
class Data(torch.utils.data.Dataset):
    mean = (0, 0, 0)
    depth_table = None
    depth_has_gaps = False
    def get_uint8(self, index):
        return {{"image": torch.zeros(2, 2, 3, dtype=torch.uint8), "name": "x"}}
if __name__ == "__main__":  # workers of a fork server import this file
    for name in ("odd.jpg", "bad.jpg"):
        read_image(Path({str(tmp_path)!r}) / name)
    list(load_batches(Data(), {len(os.sched_getaffinity(0)) + 1}, torch.device("cpu"), [range(1)]))
"""
    (tmp_path / "program.py").write_text(code)
    path = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, str(tmp_path / "program.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=path)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith(f"{tmp_path}/bad.jpg: its EXIF block is damaged")
    assert lines[1].startswith("NUM_WORKERS: ")


# --- data sets


def streets(root: Path, orientation: int = 6, **options: Any) -> StreetDataset:
    """SYNTHIA's layout with one image that has an EXIF orientation; its label and depth have none."""
    write(root / "RGB/0000000.png", orientation)
    save(root / "parsed_LABELS/0000000.png", gray(3, (24, 16)))
    save(root / "Depth/0000000.png", np.full((16, 24), 900, np.uint16))
    return StreetDataset(load_spec("SYNTHIA"), root, "all", C16, **{"size": None, **options})


def test_without_label_files_images_are_turned(tmp_path: Path) -> None:
    data = streets(tmp_path, mean=(0, 0, 0))
    bgr = np.ascontiguousarray(UPRIGHT[6](STORED)[..., ::-1]).transpose(2, 0, 1)
    np.testing.assert_array_equal(data[0]["image"].numpy(), bgr)
    assert native_size(data, "0000000.png") == (24, 16)
    sanity_check({"target": data}, 1)
    with_masks = streets(tmp_path, size=(10, 8), label_dir=tmp_path / "masks") if _mask(tmp_path) else None
    assert with_masks is not None
    assert (with_masks[0]["label"] == 5).all()


def _mask(root: Path) -> bool:
    """Write a pseudo label in the coordinates of the network's input, that is of the upright image."""
    return save(root / "masks/0000000.png", np.full((8, 10), 5, np.uint8)).is_file()


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("role", ["label", "depth"])
def test_with_labels_or_depth_a_turned_image_is_refused(tmp_path: Path, role: str, orientation: int) -> None:
    data = streets(tmp_path, orientation, with_labels=role == "label", with_depth=role == "depth")
    words = rf"RGB/0000000.png: the image has EXIF orientation {orientation}, its {role}.* has 1"
    for refuse in (lambda: data[0], lambda: sanity_check({"source": data}, 1)):
        with pytest.raises(DataError, match=words) as error:
            refuse()
        assert "\n" not in str(error.value)
        assert "different aspect ratios" not in str(error.value)


def test_an_upright_image_with_a_turned_label_is_refused(tmp_path: Path) -> None:
    data = streets(tmp_path, 1, with_labels=True)
    Image.fromarray(gray(3, (24, 16))).save(tmp_path / "parsed_LABELS/0000000.png", exif=tag(6))
    with pytest.raises(
        DataError, match=r"parsed_LABELS/0000000.png: the label has EXIF orientation 6, its image .* has 1"
    ):
        data[0]


def test_image_and_label_that_are_turned_alike_fit(tmp_path: Path) -> None:
    data = streets(tmp_path, 6, with_labels=True)
    ids = np.arange(16 * 24, dtype=np.uint8).reshape(16, 24) % 20
    Image.fromarray(ids).save(tmp_path / "parsed_LABELS/0000000.png", exif=tag(6))
    sanity_check({"source": data}, 1)
    assert data.table is not None
    np.testing.assert_array_equal(data[0]["label"].numpy(), UPRIGHT[6](data.table[ids]))


def test_a_cache_of_unturned_images_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache written before images were turned upright has another key."""
    monkeypatch.setattr("advent.dataset.cache.FORMAT", 1)
    filled = fill_cache(streets(tmp_path, cache_dir=tmp_path / "cache"))
    monkeypatch.undo()
    data = streets(tmp_path, cache_dir=tmp_path / "cache")
    assert data.cache is not None
    assert not data.cache.used
    assert data.cache.folder != filled.folder
    fill_cache(data)
    assert tuple(streets(tmp_path, cache_dir=tmp_path / "cache")[0]["image"].shape) == (3, 24, 16)


def test_advents_classes_apply_and_refuse_orientations(tmp_path: Path) -> None:
    write(tmp_path / "images/00001.png", 6)
    save(tmp_path / "labels/00001.png", gray(7, (24, 16)))
    (tmp_path / "list.txt").write_text("00001.png\n")
    data = GTA5DataSet(tmp_path, tmp_path / "list.txt", crop_size=(16, 24), mean=(0, 0, 0))
    np.testing.assert_array_equal(data.get_image(tmp_path / "images/00001.png"), UPRIGHT[6](STORED))
    with pytest.raises(DataError, match="the image has EXIF orientation 6"):
        data[0]


def test_a_picture_in_memory_is_turned_too() -> None:
    from daf.inference import load_rgb

    handle = io.BytesIO()
    Image.fromarray(STORED).save(handle, "PNG", exif=tag(6))
    np.testing.assert_array_equal(np.asarray(load_rgb(Image.open(handle))), UPRIGHT[6](STORED))
    handle = io.BytesIO()
    Image.fromarray(STORED).save(handle, "PNG", exif=b"Exif\0\0no exif at all")
    np.testing.assert_array_equal(np.asarray(load_rgb(Image.open(handle))), STORED)
