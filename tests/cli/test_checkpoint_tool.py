"""scripts/checkpoint.py: says what a file is, converts between the forms, refuses in one line."""

import hashlib

import pytest
import torch
from torchvision.models import resnet101

import checkpoint
from advent.engine.recognise import open_checkpoint
from daf.model.deeplabv2_depth import get_deeplab_v2_depth


@pytest.fixture(scope="module")
def daf_file(tmp_path_factory):
    """A full-size network of DAF in the release's wrapper, from several GPUs."""
    path = tmp_path_factory.mktemp("daf") / "model_88000_3.pth"
    state = {f"module.{name}": tensor for name, tensor in get_deeplab_v2_depth(16).state_dict().items()}
    torch.save({"model_state_dict": state, "optimizer_state_dict": {"state": {}}}, path)
    return path


def test_says_what_a_file_is(daf_file, capsys):
    assert checkpoint.main([str(daf_file)]) == 0
    said = capsys.readouterr().out
    for words in (
        "form       model_state_dict wrapper, names with module.; beside it: optimizer_state_dict",
        "network    DeepLabv2_depth (16 classes)",
        "encoder    resnet101\n",
        hashlib.sha256(daf_file.read_bytes()).hexdigest(),
        f"python test.py --cfg dg TEST.MODE=single TEST.RESTORE_FROM={daf_file}",
        "(or: intra_trained, intrada, isl",
    ):
        assert words in said


@pytest.mark.parametrize("form", ["plain", "wrapper", "module"])
def test_converts_and_back(daf_file, tmp_path, form, capsys):
    other, back = tmp_path / "other.pth", tmp_path / "back.pth"
    assert checkpoint.main([str(daf_file), "--to", form, "--out", str(other)]) == 0
    assert checkpoint.main([str(other), "--to", "plain", "--out", str(back)]) == 0
    found = open_checkpoint(other)
    assert (found.form == "model_state_dict wrapper", found.module) == (form == "wrapper", form == "module")
    ours, theirs = torch.load(back, weights_only=True), open_checkpoint(daf_file).weights
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    capsys.readouterr()


def test_torchvisions_file_becomes_a_start(tmp_path, capsys):
    torch.save(resnet101().state_dict(), tmp_path / "resnet101.pth")
    start = tmp_path / "start.pth"
    assert checkpoint.main([str(tmp_path / "resnet101.pth"), "--to", "plain", "--out", str(start)]) == 0
    said = capsys.readouterr().out
    assert "torchvision's ImageNet ResNet" in said
    assert "python train.py --cfg dg daf:" not in said
    assert "TRAIN.RESTORE_FROM=" in said
    assert "fc.weight" not in torch.load(start, weights_only=True)


@pytest.mark.parametrize(("arguments", "words"), [
    (["{root}/none.pth"], "no such checkpoint"),
    (["{root}/text.pth"], "not a readable"),
    (["{root}/good.pth", "--to", "plain"], "--out"),
    (["{root}/good.pth", "--to", "onnx", "--out", "x"], "onnx"),
    (["{root}/good.pth", "--to", "plain", "--out", "{root}/good.pth"], "is there already"),
])  # fmt: skip
def test_refusals(tmp_path, arguments, words, capsys):
    (tmp_path / "text.pth").write_text("hello")
    torch.save({"a": torch.zeros(1)}, tmp_path / "good.pth")
    try:
        code = checkpoint.main([argument.format(root=tmp_path) for argument in arguments])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1
    assert words in lines[0]


def test_a_strange_file_is_described_too(tmp_path, capsys):
    torch.save({"decoder.weight": torch.zeros(3)}, tmp_path / "x.pth")
    assert checkpoint.main([str(tmp_path / "x.pth")]) == 0
    said = capsys.readouterr().out
    assert "network    no network of this line" in said
    assert "loads with nothing here" in said
