"""Checkpoint formats: detected from content; every format of the ADVENT family loads, a mismatch names both sides."""

import pytest
import torch

import daf.methods  # noqa: F401
from advent.checkpoints.formats import open_checkpoint
from advent.checkpoints.loading import load_network, load_pretrained
from advent.config.schema import ModelConfig
from advent.errors import CheckpointError
from advent.methods.registry import NETWORKS
from advent.model.deeplabv2 import ASPP_DILATIONS, initialise
from advent.model.encoder import ResNetEncoder

MEAN = (104.0, 116.7, 122.7)
KINDS = [("DeepLabv2", False), ("DeepLabv2", True), ("DeepLabv2_depth", False), ("DeepLabv2_depth_DADA", False)]


class Config:
    """The part of a config that builds a network."""

    def __init__(self, classes, multi_level, dilations=ASPP_DILATIONS, head="aspp"):
        self.NUM_CLASSES = classes
        dilations = list(dilations)
        self.MODEL = ModelConfig(MULTI_LEVEL=multi_level, DEPTH_SIZE=None, DILATIONS=dilations, HEAD=head)


def network(kind=("DeepLabv2", False), classes=7, seed=0, width=8, dilations=ASPP_DILATIONS):
    torch.manual_seed(seed)
    net = NETWORKS[kind[0]].build(Config(classes, kind[1], dilations), ResNetEncoder((1, 1, 2, 1), width))
    initialise(net, "he")
    return net


FORMS = {
    "state dict": lambda state: state,
    "wrapper": lambda state: {"model_state_dict": state},
    "wrapper with more": lambda state: {
        "model_state_dict": state,
        "optimizer_state_dict": {"state": {}},
        "iter": 3,
        "discriminator": {"0.weight": torch.zeros(1)},
    },
    "module": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "wrapper, module": lambda state: {"model_state_dict": {f"module.{n}": t for n, t in state.items()}, "epoch": 1},
    "resume state": lambda state: {"learner": {"net": state, "optimizers": {}}, "iteration": 9},
}


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_every_format_of_every_network_loads(tmp_path, kind, form):
    net = network(kind)
    torch.save(FORMS[form](net.state_dict()), tmp_path / "resume_best.ckpt")
    info = open_checkpoint(tmp_path / "resume_best.ckpt")
    assert (info.network, info.multi_level, info.classes) == (*kind, 7)
    assert info.encoder == "resnet101 with MODEL.LAYERS=[1, 1, 2, 1] MODEL.WIDTH=8"
    other = network(kind, seed=1)
    load_network(other, tmp_path / "resume_best.ckpt")
    for expected, actual in zip(net.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(expected, actual)


def test_entries_beside_the_weights_are_listed(tmp_path):
    torch.save(FORMS["wrapper with more"](network().state_dict()), tmp_path / "x")
    info = open_checkpoint(tmp_path / "x")
    assert info.format == "model_state_dict wrapper"
    assert info.others == ("discriminator", "iter", "optimizer_state_dict")


@pytest.mark.parametrize(
    ("held", "asked", "words"),
    [
        (
            ("DeepLabv2_depth", False, 7),
            ("DeepLabv2_depth_DADA", False, 7),
            ["holds DeepLabv2_depth (7 classes)", "asks for DeepLabv2_depth_DADA (7", "set MODEL.NAME=DeepLabv2_depth"],
        ),
        (
            ("DeepLabv2", True, 7),
            ("DeepLabv2", False, 7),
            ["multi-level", "8 unexpected", "MODEL.MULTI_LEVEL=true", "..."],
        ),
        (("DeepLabv2", False, 19), ("DeepLabv2", False, 7), ["(19 classes)", "(7 classes)", "NUM_CLASSES=19"]),
    ],
)
def test_a_mismatch_names_both_sides(tmp_path, held, asked, words):
    torch.save(network(held[:2], held[2]).state_dict(), tmp_path / "x.pth")
    with pytest.raises(CheckpointError) as error:
        load_network(network(asked[:2], asked[2]), tmp_path / "x.pth")
    for word in ["x.pth", *words]:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_other_width_is_reported(tmp_path):
    torch.save(network(width=16).state_dict(), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"MODEL.WIDTH=16.*other shapes"):
        load_network(network(), tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("names", "words", "not_words"),
    [
        (["backbone.conv1.weight", "decoder.dec1.weight", "head_seg.conv2d_list.0.weight"], "CTRL's network", None),
        (["decoder.weight"], "its names belong to none of the supported networks", "CTRL"),
        (["Scale.conv1.weight", "Scale.layer5.weight"], "ImageNet weights to start training from", "CTRL"),
    ],
)
def test_unknown_networks_are_refused_by_parameter_names(tmp_path, names, words, not_words):
    torch.save({"model_state_dict": {name: torch.zeros(1) for name in names}}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=words) as error:
        load_network(network(), tmp_path / "x.pth")
    assert not_words is None or not_words not in str(error.value)


@pytest.mark.parametrize(
    "names",
    [
        ["layer6.conv2d_list.0.weight"],
        ["layer1.0.conv1.weight"],
        ["layer6.conv2d_list.0.weight", "layer1.0.conv1.weight"],
    ],
)
def test_known_names_with_invalid_tensors_are_refused(tmp_path, names):
    torch.save({name: torch.tensor(1) for name in names}, tmp_path / "x.pth")
    info = open_checkpoint(tmp_path / "x.pth")
    assert (info.classes, info.dilations) == (None, None)
    assert "width=0" in info.encoder.lower() or info.encoder == "unknown"
    with pytest.raises(CheckpointError):
        load_network(network(), tmp_path / "x.pth")


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_checkpoint_from_before_pytorch_0_4_1_loads(tmp_path, kind):
    """Batch norms had no num_batches_tracked before 0.4.1."""
    net, other = network(kind), network(kind, seed=1)
    old = {name: tensor for name, tensor in net.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(net.state_dict())
    torch.save(old, tmp_path / "x.pth")
    load_network(other, tmp_path / "x.pth")
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(net.eval()(image)[1], other.eval()(image)[1], rtol=0, atol=0)


def adaptsegnet(tmp_path, trained=(0, 1)):
    """A checkpoint as of AdaptSegNet: ADVENT's names and shapes, only two of the classifiers' convolutions trained."""
    state = network(("DeepLabv2", True)).state_dict()
    for name, tensor in state.items():
        if "conv2d_list" in name and int(name.split(".")[2]) in trained:
            tensor += 0.01 * torch.randn_like(tensor)
    torch.save(
        {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}, tmp_path / "x.pth"
    )
    return tmp_path / "x.pth"


def test_adaptsegnets_network_sums_the_first_two_convolutions(tmp_path):
    file = adaptsegnet(tmp_path)
    net = network(("DeepLabv2", True), dilations=[6, 12]).eval()
    load_network(net, file)
    image = torch.rand(1, 3, 64, 64)
    x3, x4 = net.encode(image)[2:]
    for classifier, features, logits in ((net.layer5, x3, net(image)[0]), (net.layer6, x4, net(image)[1])):
        first, second = classifier.conv2d_list[0], classifier.conv2d_list[1]
        torch.testing.assert_close(logits, first(features) + second(features))
    state = net.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in open_checkpoint(file).weights.items())


def test_unused_convolutions_are_not_trained():
    net = network(dilations=[6, 12])
    learnt = {name for name, _ in net.head_parameters()}
    assert learnt == {f"layer6.conv2d_list.{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")}


@pytest.mark.parametrize(
    ("trained", "used", "words"),
    [
        ((0, 1), ASPP_DILATIONS, ["dilation 18, 24", "AdaptSegNet", "MODEL.DILATIONS=[6,12]"]),
        ((0, 1), (6, 12), None),
        ((0, 3), (6, 12), ["dilation 12, 18", "MODEL.DILATIONS=[6,24]"]),
        ((0, 1, 2, 3), ASPP_DILATIONS, None),
        ((0, 1, 2, 3), (6, 12), ["all four", "MODEL.DILATIONS=[6,12,18,24]"]),
        ((), ASPP_DILATIONS, None),
        ((), (6, 12), None),
    ],
)
@pytest.mark.parametrize("how", ["load", "start"])
def test_dilations_that_do_not_match_the_weights_warn(tmp_path, caplog, trained, used, words, how):
    file, net = adaptsegnet(tmp_path, trained), network(("DeepLabv2", True), seed=1, dilations=used)
    load_network(net, file) if how == "load" else load_pretrained(net, file, MEAN)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == (words is not None)
    assert all(word in warnings[0] for word in words or ())


def test_advents_imagenet_weights(tmp_path):
    """The prefix `Scale.` and the old classifier `layer5` are dropped; new heads keep their random initialisation."""
    state = network(("DeepLabv2", True), 21).state_dict()
    state = {f"Scale.{n}": t for n, t in state.items() if not n.startswith("layer6")}
    torch.save(state, tmp_path / "x.pth")
    info = open_checkpoint(tmp_path / "x.pth")
    assert str(info) == "ADVENT's ImageNet start"
    assert not any(name.startswith("layer5") for name in info.weights)
    net = network(("DeepLabv2", True), 7, seed=1)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    load_pretrained(net, tmp_path / "x.pth", MEAN)
    for name, tensor in net.state_dict().items():
        kept = name.startswith(("layer5", "layer6"))
        assert torch.equal(tensor, before[name] if kept else state[f"Scale.{name}"])


def test_file_without_weights_is_refused(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="no network weights"):
        open_checkpoint(tmp_path / "x.pth")
    torch.save({"epoch": 3, "note": "x"}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="it holds epoch, note"):
        open_checkpoint(tmp_path / "x.pth")
