"""Checkpoints are recognised by what they hold; each form of the line loads, each mismatch names both sides."""

import pytest
import torch

import daf.methods  # noqa: F401
from advent.engine.loading import load_network, load_start
from advent.engine.recognise import open_checkpoint
from advent.engine.registry import NETWORKS
from advent.errors import CheckpointError
from advent.model.deeplabv2 import initialise
from advent.model.encoder import ResNetEncoder

MEAN = (104.0, 116.7, 122.7)
KINDS = [("DeepLabv2", False), ("DeepLabv2", True), ("DeepLabv2_depth", False), ("DeepLabv2_depth_DADA", False)]


class Config:
    """As much of a config as a network is built from."""

    def __init__(self, classes, multi_level):
        self.NUM_CLASSES = classes
        self.MODEL = type("Model", (), {"MULTI_LEVEL": multi_level, "DEPTH_SIZE": None, "ATTENTION": True})


def network(kind=("DeepLabv2", False), classes=7, seed=0, width=8):
    torch.manual_seed(seed)
    net = NETWORKS[kind[0]].build(Config(classes, kind[1]), ResNetEncoder((1, 1, 2, 1), width))
    initialise(net, "he")
    return net


FORMS = {
    "state dict": lambda state: state,
    "wrapper": lambda state: {"model_state_dict": state},
    "wrapper with more": lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {}}, "iter": 3,
                                        "discriminator": {"0.weight": torch.zeros(1)}},
    "module": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "wrapper, module": lambda state: {"model_state_dict": {f"module.{n}": t for n, t in state.items()}, "epoch": 1},
    "resume state": lambda state: {"learner": {"net": state, "optimizers": {}}, "iteration": 9},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_every_network_loads(tmp_path, kind, form):
    net = network(kind)
    torch.save(FORMS[form](net.state_dict()), tmp_path / "resume_best.ckpt")
    found = open_checkpoint(tmp_path / "resume_best.ckpt")
    assert (found.network, found.multi_level, found.classes) == (*kind, 7)
    assert found.encoder == "resnet101 with MODEL.LAYERS=[1, 1, 2, 1] MODEL.WIDTH=8"
    other = network(kind, seed=1)
    load_network(other, tmp_path / "resume_best.ckpt")
    for one, two in zip(net.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_what_stands_beside_the_weights_is_named(tmp_path):
    torch.save(FORMS["wrapper with more"](network().state_dict()), tmp_path / "x")
    found = open_checkpoint(tmp_path / "x")
    assert found.form == "model_state_dict wrapper"
    assert found.others == ("discriminator", "iter", "optimizer_state_dict")


@pytest.mark.parametrize(("held", "asked", "words"), [
    (("DeepLabv2_depth", False, 7), ("DeepLabv2_depth_DADA", False, 7),
     ["holds DeepLabv2_depth (7 classes)", "asks for DeepLabv2_depth_DADA (7", "set MODEL.NAME=DeepLabv2_depth"]),
    (("DeepLabv2", True, 7), ("DeepLabv2", False, 7), ["multi-level", "8 left over", "MODEL.MULTI_LEVEL=true", "..."]),
    (("DeepLabv2", False, 19), ("DeepLabv2", False, 7), ["(19 classes)", "(7 classes)", "NUM_CLASSES=19"]),
])  # fmt: skip
def test_a_mismatch_names_both_sides(tmp_path, held, asked, words):
    torch.save(network(held[:2], held[2]).state_dict(), tmp_path / "x.pth")
    with pytest.raises(CheckpointError) as error:
        load_network(network(asked[:2], asked[2]), tmp_path / "x.pth")
    for word in ["x.pth", *words]:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_other_widths_are_told(tmp_path):
    torch.save(network(width=16).state_dict(), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"MODEL.WIDTH=16.*other shapes"):
        load_network(network(), tmp_path / "x.pth")


def test_another_lines_network_is_refused_by_name(tmp_path):
    torch.save({"model_state_dict": {"decoder.weight": torch.zeros(1)}}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"no network of this line.*CTRL"):
        load_network(network(), tmp_path / "x.pth")


def test_advents_imagenet_start(tmp_path):
    """`Scale.` goes, the old classifier `layer5` with it; new heads keep their random start."""
    state = network(("DeepLabv2", True), 21).state_dict()
    state = {f"Scale.{n}": t for n, t in state.items() if not n.startswith("layer6")}
    torch.save(state, tmp_path / "x.pth")
    found = open_checkpoint(tmp_path / "x.pth")
    assert str(found) == "ADVENT's ImageNet start"
    assert not any(name.startswith("layer5") for name in found.weights)
    net = network(("DeepLabv2", True), 7, seed=1)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    load_start(net, tmp_path / "x.pth", MEAN)
    for name, tensor in net.state_dict().items():
        kept = name.startswith(("layer5", "layer6"))
        assert torch.equal(tensor, before[name] if kept else state[f"Scale.{name}"])


def test_a_list_of_things_is_no_checkpoint(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="no network weights"):
        open_checkpoint(tmp_path / "x.pth")
    torch.save({"epoch": 3, "note": "x"}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="it holds epoch, note"):
        open_checkpoint(tmp_path / "x.pth")
