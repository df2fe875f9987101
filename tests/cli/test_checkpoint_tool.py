"""scripts/checkpoint.py: description of a file, conversion between formats, one-line errors."""

import hashlib

import pytest
import timm
import torch
from torchvision.models import resnet101

import checkpoint
import ida.cli  # noqa: F401  (registers networks)
from advent.build import build_network
from advent.checkpoints.formats import open_checkpoint
from advent.config.loading import dump_config, load_config
from daf.model.deeplabv2_depth import get_deeplab_v2_depth


@pytest.fixture(scope="module")
def daf_file(tmp_path_factory):
    """A full-size DAF checkpoint in the authors' wrapper, with `module.` prefixes."""
    path = tmp_path_factory.mktemp("daf") / "model_88000_3.pth"
    state = {f"module.{name}": tensor for name, tensor in get_deeplab_v2_depth(16).state_dict().items()}
    torch.save({"model_state_dict": state, "optimizer_state_dict": {"state": {}}}, path)
    return path


def test_describes_a_checkpoint(daf_file, capsys):
    assert checkpoint.main([str(daf_file)]) == 0
    said = capsys.readouterr().out
    for words in (
        "format     model_state_dict wrapper, names with module.; beside it: optimizer_state_dict",
        "network    DeepLabv2_depth (16 classes)",
        "encoder    resnet101\n",
        hashlib.sha256(daf_file.read_bytes()).hexdigest(),
        f"python test.py --cfg ep1:daf TEST.MODE=single TEST.RESTORE_FROM={daf_file}",
        "(or: ep1:isl, ep1:ida)",
    ):
        assert words in said


@pytest.mark.parametrize("form", ["plain", "wrapper", "module"])
def test_converts_and_back(daf_file, tmp_path, form, capsys):
    other, back = tmp_path / "other.pth", tmp_path / "back.pth"
    assert checkpoint.main([str(daf_file), "--to", form, "--out", str(other)]) == 0
    assert checkpoint.main([str(other), "--to", "plain", "--out", str(back)]) == 0
    info = open_checkpoint(other)
    assert (info.format == "model_state_dict wrapper", info.module) == (form == "wrapper", form == "module")
    ours, theirs = torch.load(back, weights_only=True), open_checkpoint(daf_file).weights
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    capsys.readouterr()


def test_torchvision_weights_become_initial_weights(tmp_path, capsys):
    torch.save(resnet101().state_dict(), tmp_path / "resnet101.pth")
    start = tmp_path / "start.pth"
    assert checkpoint.main([str(tmp_path / "resnet101.pth"), "--to", "plain", "--out", str(start)]) == 0
    said = capsys.readouterr().out
    assert "torchvision's ImageNet ResNet" in said
    assert "python train.py --cfg ep1:daf daf:" not in said
    assert "TRAIN.RESTORE_FROM=" in said
    assert "fc.weight" not in torch.load(start, weights_only=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{root}/none.pth"], "no such checkpoint"),
        (["{root}/text.pth"], "not a readable"),
        (["{root}/good.pth", "--to", "plain"], "--out"),
        (["{root}/good.pth", "--to", "onnx", "--out", "x"], "onnx"),
        (["{root}/good.pth", "--to", "plain", "--out", "{root}/good.pth"], "already exists"),
    ],
)
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


def test_unknown_network_is_described(tmp_path, capsys):
    torch.save({"decoder.weight": torch.zeros(3)}, tmp_path / "x.pth")
    assert checkpoint.main([str(tmp_path / "x.pth")]) == 0
    said = capsys.readouterr().out
    assert "network    no network of the ADVENT family" in said
    assert "loads with nothing in this project" in said


def tiny_config(*overrides):
    return load_config(
        "quick:daf", ["MODEL.INIT=he", "MODEL.ENCODER_WEIGHTS=null", "TRAIN.RESTORE_FROM=null", *overrides]
    )


def said_of(file, capsys):
    assert checkpoint.main([str(file)]) == 0
    return {line[:11].strip(): line[11:] for line in capsys.readouterr().out.splitlines()}


def test_a_hint_without_a_shipped_config_names_every_key(tmp_path, capsys):
    resnet = ["MODEL.ENCODER=resnet101", "MODEL.LAYERS=[1,1,2,1]", "MODEL.WIDTH=8", "MODEL.OUTPUT_STRIDE=8"]
    config = tiny_config("MODEL.NAME=DeepLabv2", "MODEL.MULTI_LEVEL=true", *resnet)
    torch.save(build_network(config).state_dict(), tmp_path / "x.pth")
    assert said_of(tmp_path / "x.pth", capsys)["loads with"] == (
        "a config with MODEL.NAME=DeepLabv2 MODEL.MULTI_LEVEL=true NUM_CLASSES=7 MODEL.ENCODER=resnet101 "
        "MODEL.LAYERS=[1,1,2,1] MODEL.WIDTH=8"
    )
    keys = said_of(tmp_path / "x.pth", capsys)["loads with"].removeprefix("a config with ").split()
    build_network(tiny_config("MODEL.OUTPUT_STRIDE=8", *keys), tmp_path / "x.pth")  # the hint works as overrides


def test_the_config_beside_a_checkpoint_is_the_one_to_load_it_with(tmp_path, capsys):
    resnet = ["MODEL.ENCODER=resnet101", "MODEL.LAYERS=[1,1,2,1]", "MODEL.WIDTH=8", "MODEL.OUTPUT_STRIDE=8"]
    config = tiny_config(*resnet)
    torch.save(build_network(config).state_dict(), tmp_path / "x.pth")
    (tmp_path / "config.yml").write_text(dump_config(config))
    assert said_of(tmp_path / "x.pth", capsys)["loads with"].startswith(
        f"python test.py --cfg {tmp_path / 'config.yml'} TEST.MODE=single"
    )
    config.MODEL.WIDTH = 16  # the config of another network
    (tmp_path / "config.yml").write_text(dump_config(config))
    assert "MODEL.WIDTH=8" in said_of(tmp_path / "x.pth", capsys)["loads with"]


def test_a_timm_encoder_is_named(tmp_path, capsys, monkeypatch):
    """Only a few timm backbones are listed, because each takes a fraction of a second."""
    few = ["resnet18", "resnet34", "resnet26d", "resnetblur18", "vit_tiny_patch16_224", "tf_efficientnet_lite0"]
    monkeypatch.setattr(timm, "list_models", lambda: few)
    config = tiny_config("MODEL.ENCODER=timm:resnet18")
    torch.save(build_network(config).state_dict(), tmp_path / "x.pth")
    said = said_of(tmp_path / "x.pth", capsys)
    assert said["encoder"] == "timm:resnet18 or timm:resnetblur18 (of the same names and shapes)"
    assert "MODEL.MULTI_LEVEL=false NUM_CLASSES=7 MODEL.ENCODER=timm:resnet18, and MODEL.OUTPUT" in said["loads with"]
    (tmp_path / "config.yml").write_text(dump_config(config))
    said = said_of(tmp_path / "x.pth", capsys)
    assert said["encoder"] == "timm:resnet18"
    assert f"--cfg {tmp_path / 'config.yml'}" in said["loads with"]
    monkeypatch.setattr(timm, "list_models", lambda: few[1:3])
    (tmp_path / "config.yml").unlink()
    said = said_of(tmp_path / "x.pth", capsys)
    assert "not a backbone of the installed version" in said["encoder"]
    assert "MODEL.ENCODER=timm:NAME" in said["loads with"]


def test_adaptsegnets_network_is_not_offered_as_advents(tmp_path, capsys):
    config = load_config("advent_gta5", ["MODEL.LAYERS=[1,1,1,1]", "MODEL.WIDTH=8", "MODEL.INIT=he"])
    state = build_network(config).state_dict()
    for name, tensor in state.items():
        if "conv2d_list.0.weight" in name or "conv2d_list.1.weight" in name:
            tensor *= 1.5
    torch.save(state, tmp_path / "x.pth")
    said = said_of(tmp_path / "x.pth", capsys)
    assert "18, 24 of the classifier still have their initial spread" in said["warning"]
    assert "AdaptSegNet" in said["warning"]
    assert said["loads with"].endswith("MODEL.DILATIONS=[6,12]")


@pytest.mark.parametrize(
    ("cfg", "fits"),
    [
        ("dada", "dada"),
        ("ep3_dada", "ep3_dada"),
        ("minent_gta5", "gta5:minent"),
        ("advent_intrada", "ep1_intrada:advent"),
    ],
)
def test_shipped_config_of_each_released_network_is_found(tmp_path, capsys, cfg, fits):
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in build_network(load_config(cfg)).state_dict().items()}
    torch.save({name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}, tmp_path / "x.pth")
    assert f"python test.py --cfg {fits} TEST.MODE=single" in said_of(tmp_path / "x.pth", capsys)["loads with"]
