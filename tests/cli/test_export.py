"""scripts/export.py: the ONNX file equals PyTorch at any size; its metadata describes inputs and outputs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import export

onnx = pytest.importorskip("onnx", reason="the extra export is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra export is not installed")


def test_equal_to_pytorch_at_two_sizes_and_batches(trained: Path, tmp_path: Path) -> None:
    from daf.export import Exported, compare
    from daf.inference import load_model

    checkpoint, out = trained / "exp/quick/daf/model_6.pth", tmp_path / "daf.onnx"
    assert export.main(["--checkpoint", str(checkpoint), "--out", str(out)]) == 0
    net = Exported(load_model(checkpoint, device="cpu").net).eval()
    errors = compare(net, out, ((48, 64), (77, 131), (160, 96)))
    assert len(errors) == 6
    assert max(errors.values()) <= 1e-4
    onnx_model = onnx.load(str(out))
    metadata = {entry.key: entry.value for entry in onnx_model.metadata_props}
    assert metadata["color_order"] == "BGR"
    assert json.loads(metadata["mean"]) == pytest.approx([104.00698793, 116.66876762, 122.67891434])
    assert json.loads(metadata["classes"])[0] == "flat"
    assert metadata["opset"] == str(next(entry.version for entry in onnx_model.opset_import if entry.domain == ""))
    assert "inverse depth" in metadata["depth"]


def test_nan_difference_is_refused(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`max` of a number and a NaN is the number if it comes first."""
    monkeypatch.setattr("daf.export.compare", lambda *_: {"96x64 logits": 0.0, "96x64 depth": float("nan")})
    line = ["--checkpoint", str(trained / "exp/quick/daf/model_6.pth"), "--out", str(tmp_path / "daf.onnx")]
    assert export.main(line) == 2
    assert "differ from PyTorch by nan" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_a_missing_library_is_one_line(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    line = ["--checkpoint", str(trained / "exp/quick/daf/model_6.pth"), "--out", str(tmp_path / "daf.onnx")]
    assert export.main(line) == 2
    assert ".[export]" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not list(tmp_path.iterdir())
