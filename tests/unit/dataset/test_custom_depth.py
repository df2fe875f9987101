"""Depth of custom data sets: units, distance or inverse, unknown pixels, damaged files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from advent.dataset.base_dataset import StreetDataset
from advent.errors import DataError
from daf.loss import berhu
from helpers.custom_specs import BINARY, read, spec_of
from helpers.dataset_layouts import rgb, save


def depth_of(tmp_path: Path, form: str, values: np.ndarray, suffix: str = "npy") -> StreetDataset:
    spec = spec_of(tmp_path, BINARY % (suffix, "", "") + f"depth: {form}\n")
    save(tmp_path / "images/1.png", rgb())
    (tmp_path / "depth").mkdir(exist_ok=True)
    if suffix == "npy":
        np.save(tmp_path / "depth/1.npy", values)
    elif suffix == "tif":
        Image.fromarray(values).save(tmp_path / "depth/1.tif")
    else:
        save(tmp_path / "depth/1.png", values)
    return read(spec, tmp_path, with_depth=True)


@pytest.mark.parametrize(
    ("form", "value", "suffix", "kind"),
    [
        ("{kind: distance, unit: m}", 2.55, "npy", np.float32),
        ("{kind: distance, unit: m}", 2.55, "tif", np.float32),
        ("{kind: distance, unit: m}", 2.55, "npy", np.float64),
        ("{kind: distance, unit: mm}", 2550, "png", np.uint16),
        ("{kind: distance, unit: cm}", 255, "png", np.uint16),
        ("{kind: distance, unit: m, scale: 0.01}", 255, "npy", np.int32),
        ("{kind: distance, unit: km, scale: 1.0e-5}", 255, "png", np.uint16),
        ("{kind: inverse, unit: m}", 1 / 2.55, "npy", np.float64),
        ("{kind: inverse, unit: cm, scale: 1.0e-4}", 1e4 / 255, "npy", np.float64),
        ("{kind: synthia_cm}", 255, "png", np.uint16),
    ],
)
def test_every_unit_and_meaning_gives_the_same_inverse_depth(
    tmp_path: Path, form: str, value: float, suffix: str, kind: type
) -> None:
    """Inverse depth of 2.55 m = 255 cm is 65536 / 256 = 256."""
    item = depth_of(tmp_path, form, np.full((16, 24), value, kind), suffix)[0]
    torch.testing.assert_close(item["depth"], torch.full((4, 6), 256.0))
    assert "depth_known" not in item


def test_unknown_pixels_are_masked(tmp_path: Path) -> None:
    values = np.full((16, 24), 2.55)
    values[:4], values[4:8], values[8:12] = np.nan, 0, np.inf
    item = depth_of(tmp_path, "{kind: distance, unit: m, unknown: [.nan, 0]}", values)[0]
    assert item["depth_known"].tolist() == [[False] * 6, [False] * 6, [True] * 6, [True] * 6]
    assert item["depth"][0].tolist() == item["depth"][1].tolist() == [0] * 6
    assert item["depth"][2].max() < 1e-30  # infinite distance is known, its inverse depth is nearly 0
    torch.testing.assert_close(item["depth"][3], torch.full((6,), 256.0))


@pytest.mark.parametrize(
    ("value", "words"),
    [(np.nan, "1 of 384 depths are NaN; .*unknown: \\[.nan\\]"), (-3.0, "1 of 384 depths are negative")],
)
@pytest.mark.parametrize("kind", ["distance", "inverse"])
def test_invalid_depth_values_are_refused(tmp_path: Path, value: float, words: str, kind: str) -> None:
    values = np.full((16, 24), 2.5)
    values[3, 3] = value
    with pytest.raises(DataError, match=rf"1.npy: {words}"):
        depth_of(tmp_path, f"{{kind: {kind}, unit: m}}", values)[0]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:90]), "truncated or not a .npy file"),
        (lambda file: file.write_bytes(b""), "truncated or not a .npy file"),
        (lambda file: np.save(file, np.zeros((4, 4, 3), np.float32)), "not float32 4x4x3"),
        (lambda file: np.save(file, np.zeros((4, 4), np.uint8)), "not uint8 4x4"),
        (lambda file: np.save(file, np.array([{}])), "truncated or not a .npy file of numbers"),
    ],
)
def test_damaged_depth_arrays_are_named(tmp_path: Path, spoil: Any, message: str) -> None:
    data = depth_of(tmp_path, "{kind: distance, unit: m}", np.full((16, 24), 2.5))
    spoil(tmp_path / "depth/1.npy")
    with pytest.raises(DataError, match=rf"1.npy: .*{message}"):
        data[0]


def test_depth_loss_ignores_unknown_pixels() -> None:
    pred = torch.tensor([[[1.0, 5.0, 9.0, 100.0]]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[[1.0, 4.0, 5.0, 0.0]]], dtype=torch.float64)
    known = torch.tensor([[[True, True, True, False]]])
    alone = berhu(pred[..., :3], target[..., :3])
    masked = berhu(pred, target, known)
    torch.testing.assert_close(masked, alone)
    masked.backward()
    assert pred.grad is not None
    assert pred.grad[..., 3] == 0
    assert berhu(pred, target, torch.zeros_like(known)) == 0
