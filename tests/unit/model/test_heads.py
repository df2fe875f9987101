"""The fusion head: sizes, initial weights, and what it reads."""

import pytest
import torch
from torch import nn

import daf.methods  # noqa: F401
from advent.config.loading import default_config, load_config
from advent.errors import ConfigError
from advent.methods.registry import find_network
from advent.model.deeplabv2 import initialise
from advent.model.encoder import ResNetEncoder
from advent.model.heads import FusionHead
from helpers.small_learner import batches, small_learner

CHANNELS = (8, 16, 24, 32)
FUSION = {"HEAD": "fusion", "HEAD_WIDTH": [8, 16]}


def maps(batch=2):
    generator = torch.Generator().manual_seed(0)
    sizes = [(9, 13), (5, 7), (3, 4), (2, 2)]
    return tuple(torch.randn(batch, c, *size, generator=generator) for c, size in zip(CHANNELS, sizes, strict=True))


def head(**options):
    torch.manual_seed(0)
    return FusionHead(CHANNELS, 7, (8, 16), **options)


def test_logits_have_the_first_maps_size():
    net = head()
    fused = net.fuse(maps())
    assert fused.shape == (2, 16, 9, 13)
    assert (fused >= 0).all()
    assert net(maps()).shape == (2, 7, 9, 13)


def test_published_size():
    """Parameters by hand: embeddings, 1x1 branch, three separable branches, 3x3 bottleneck, classifier."""
    channels, width, classes = (64, 128, 320, 512), 256, 19
    embeddings = sum(c * width + width for c in channels)
    plain = 4 * width * width + 2 * width
    separable = 4 * width * 9 + 2 * 4 * width + plain
    bottleneck = 4 * width * width * 9 + 2 * width
    expected = embeddings + plain + 3 * separable + bottleneck + width * classes + classes
    assert sum(p.numel() for p in FusionHead(channels, classes).parameters()) == expected


@pytest.mark.parametrize("index", range(4))
def test_every_map_is_read(index):
    net, inputs = head().eval(), maps()
    changed = tuple(x + (i == index) for i, x in enumerate(inputs))
    assert not torch.allclose(net(inputs), net(changed))


def test_dilation_1_reads_single_pixels_and_others_their_ring():
    net = head(dilations=(1, 3))
    kinds = [[conv.kernel_size for conv in b.modules() if isinstance(conv, nn.Conv2d)] for b in net.aspp]
    assert kinds == [[(1, 1)], [(3, 3), (1, 1)]]
    x = torch.zeros(1, 32, 11, 11, requires_grad=True)
    for branch, reach in zip(net.eval().aspp, (0, 3), strict=True):
        (gradient,) = torch.autograd.grad(branch(x)[0, :, 5, 5].sum(), x)
        rows = gradient.abs().sum((0, 1, 3)).nonzero().flatten().tolist()
        assert set(rows) <= {5 - reach, 5, 5 + reach}


def test_dropout_removes_whole_channels_of_the_fused_features():
    net = head(dropout=0.5)
    seen = []
    net.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    features = torch.ones(1, 16, 3, 4)
    net.classify(features)
    net.eval().classify(features)
    kept = seen[0][0].flatten(1)
    assert {tuple(channel.unique().tolist()) for channel in kept} == {(0.0,), (2.0,)}
    assert torch.equal(seen[1], features)


@pytest.mark.parametrize("scheme", ["release", "he"])
@pytest.mark.parametrize("name", ["DeepLabv2", "DeepLabv2_depth"])
def test_initial_weights_do_not_depend_on_the_scheme(name, scheme):
    config = default_config()
    config.MODEL.NAME, config.MODEL.HEAD, config.MODEL.HEAD_WIDTH = name, "fusion", [64, 64]
    net = find_network(config).build(config, ResNetEncoder((1, 1, 1, 1), 8))
    initialise(net, scheme)
    small = ["head.classifier", "depth_head.output", "depth_head.guidance"]
    for full_name, module in net.named_modules():
        if not isinstance(module, nn.Conv2d) or full_name.split(".")[0] not in ("head", "depth_head"):
            continue
        fan_out = module.out_channels * module.kernel_size[0] ** 2 / module.groups
        expected = 0.01 if full_name in small else (2 / fan_out) ** 0.5
        chance = 5 / (2 * module.weight.numel()) ** 0.5
        assert abs(float(module.weight.detach().std()) / expected - 1) < chance, full_name
    assert (
        abs(float(net.conv1.weight.detach().std()) / (0.01 if scheme == "release" else (2 / (8 * 49)) ** 0.5) - 1) < 0.2
    )


def test_a_step_changes_encoder_and_head():
    learner = small_learner("AdvEnt", model=FUSION, BACKBONE_UPDATES="once")
    before = {name: p.detach().clone() for name, p in learner.net.named_parameters() if p.requires_grad}
    learner.update(0, *batches())
    assert all(not torch.equal(before[n], p) for n, p in learner.net.named_parameters() if n in before)
    assert {n.split(".")[0] for n, _ in learner.net.head_parameters()} == {"head"}


def test_eval_mode_predicts_each_image_on_its_own():
    net = small_learner("SourceOnly", model=FUSION).net.double().eval()
    images = batches()[0]["image"].double()
    both, alone = net(images)[1], [net(images[i : i + 1])[1] for i in range(2)]
    assert both.shape == (2, 16, 13, 17)  # stride 4 of 48 x 64, as the ResNet's pooling rounds up
    torch.testing.assert_close(both, torch.cat(alone))


def test_auxiliary_classifier_is_refused_in_one_line():
    config = load_config(None, ["MODEL.NAME=DeepLabv2", "MODEL.HEAD=fusion", "MODEL.MULTI_LEVEL=true"])
    with pytest.raises(ConfigError, match=r"MODEL.MULTI_LEVEL: MODEL.HEAD=fusion.*set it to false") as error:
        find_network(config).build(config, ResNetEncoder((1, 1, 1, 1), 8))
    assert "\n" not in str(error.value)
