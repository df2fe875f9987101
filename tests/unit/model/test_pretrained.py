"""Conversion of torchvision's ImageNet weights: the backbone's features equal torchvision's."""

from urllib.error import URLError

import pytest
import torch
from torch.nn import functional
from torchvision.models import resnet101

from advent.checkpoints.formats import TORCHVISION, open_checkpoint
from advent.checkpoints.loading import load_pretrained
from advent.errors import CheckpointError
from advent.model.deeplabv2 import DeeplabV2
from advent.model.encoder import ResNetEncoder
from advent.model.pretrained import MEAN, STD, convert

EQUAL_MEAN = [255 * value for value in MEAN[::-1]]  # BGR mean equal to torchvision's: no shift
RELEASED_MEAN = [104.00698793, 116.66876762, 122.67891434]


@pytest.fixture(scope="module")
def theirs():
    """torchvision's ResNet-101 with our dilation: also in the first blocks of layer3 and layer4."""
    torch.manual_seed(3)
    net = resnet101(replace_stride_with_dilation=[False, True, True]).double().eval()
    for layer, dilation in ((net.layer3, 2), (net.layer4, 4)):
        layer[0].conv2.dilation = layer[0].conv2.padding = (dilation, dilation)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # random statistics, so that every tensor has an effect
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.0)
            module.bias.data.uniform_(-0.1, 0.1)
    return net


def pictures(size):
    """The same random image in both conventions: (torchvision's input, RGB 0..255)."""
    rgb = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 255
    mean, std = (torch.tensor(value, dtype=torch.float64)[:, None, None] for value in (MEAN, STD))
    return (rgb / 255 - mean) / std, rgb


def ours(theirs, mean):
    net = DeeplabV2(7, ResNetEncoder(stride_in="conv2")).double().eval()
    net.load_state_dict(convert(theirs.state_dict(), mean), strict=False)
    return net


def maps(net, x):
    features = []
    x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
    for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
        x = layer(x)
        features.append(x)
    return features


@torch.no_grad()
@pytest.mark.parametrize("size", [(65, 97), (129, 65)])  # odd sizes: torchvision's pooling rounds down, ours up
def test_backbone_equals_torchvision(theirs, size):
    normalised, rgb = pictures(size)
    net = ours(theirs, EQUAL_MEAN)
    bgr = rgb.flip(1) - torch.tensor(EQUAL_MEAN, dtype=torch.float64)[:, None, None]
    for mine, his in zip(net.encode(bgr), maps(theirs, normalised), strict=True):
        assert mine.shape == his.shape
        torch.testing.assert_close(mine, his, rtol=1e-6, atol=1e-9)


@torch.no_grad()
def test_the_released_mean_differs_at_the_border_alone(theirs):
    """Stem output: equal in the interior; at the padded border the difference is below that of one grey value."""
    normalised, rgb = pictures((65, 65))
    net = ours(theirs, RELEASED_MEAN)
    bgr = rgb.flip(1) - torch.tensor(RELEASED_MEAN, dtype=torch.float64)[:, None, None]
    mine, his = net.bn1(net.conv1(bgr)), theirs.bn1(theirs.conv1(normalised))
    inside = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    torch.testing.assert_close(mine[inside], his[inside], rtol=1e-6, atol=1e-9)
    at_border = (mine - his).abs().max()
    one_grey_value = (theirs.bn1(theirs.conv1(normalised + 1 / (255 * min(STD)))) - his).abs().max()
    assert 1e-6 < at_border < one_grey_value


def test_torchvision_checkpoint_is_recognised(tmp_path, caplog):
    """Detected without a flag, from the classifier `fc` and the parameter names."""
    torch.manual_seed(0)
    state = {**resnet101().state_dict()}
    torch.save(state, tmp_path / "resnet.pth")
    assert open_checkpoint(tmp_path / "resnet.pth").format == TORCHVISION
    net = DeeplabV2(7, ResNetEncoder())
    with caplog.at_level("INFO"):
        load_pretrained(net, tmp_path / "resnet.pth", RELEASED_MEAN)
    assert "MODEL.STRIDE_IN=conv2 fits it" in caplog.text
    want = functional.normalize(state["conv1.weight"].flip(1).flatten(2), dim=2)
    torch.testing.assert_close(functional.normalize(net.conv1.weight.flatten(2), dim=2), want)
    assert torch.equal(net.layer3[5].conv2.weight, state["layer3.5.conv2.weight"])


def test_stride_in_keeps_names_and_map_sizes():
    nets = [DeeplabV2(7, ResNetEncoder((1, 1, 1, 1), 8, stride_in=where)) for where in ("conv1", "conv2")]
    assert list(nets[0].state_dict()) == list(nets[1].state_dict())
    image = torch.zeros(1, 3, 64, 48)
    assert [m.shape for m in nets[0].encode(image)] == [m.shape for m in nets[1].encode(image)]
    assert nets[0].layer2[0].conv1.stride == nets[1].layer2[0].conv2.stride == (2, 2)


def test_torchvision_weights_are_downloaded(monkeypatch, caplog):
    torch.manual_seed(0)
    state = resnet101().state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: state)
    net = DeeplabV2(7, ResNetEncoder(stride_in="conv2"))
    with caplog.at_level("INFO"):
        load_pretrained(net, "torchvision", RELEASED_MEAN)
    assert torch.equal(net.layer1[0].conv1.weight, state["layer1.0.conv1.weight"])
    assert "fits it" not in caplog.text


def test_failed_download_asks_for_a_file(monkeypatch):
    def unreachable(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(CheckpointError, match=r"cannot be downloaded .*TRAIN\.RESTORE_FROM=FILE"):
        load_pretrained(DeeplabV2(7, ResNetEncoder()), "torchvision", RELEASED_MEAN)
