"""Build encoders and networks from a config."""

from __future__ import annotations

from pathlib import Path

from advent.checkpoints.loading import load_network
from advent.config.schema import Config
from advent.errors import ConfigError
from advent.methods.registry import find_network
from advent.model.deeplabv2 import SegmentationNetwork, initialise
from advent.model.encoder import Encoder, ResNetEncoder


def build_encoder(config: Config, weights: bool = True) -> Encoder:
    """The encoder of MODEL.ENCODER; `weights=False` skips MODEL.ENCODER_WEIGHTS, as a checkpoint replaces them.

    Raises ConfigError for an unknown encoder, or an output stride that resnet101 does not have.
    """
    model = config.MODEL
    kind, _, name = model.ENCODER.partition(":")
    if kind == "resnet101":
        if model.OUTPUT_STRIDE != 8:
            raise ConfigError(f"MODEL.OUTPUT_STRIDE: {model.OUTPUT_STRIDE}: resnet101 has output stride 8; set it to 8")
        return ResNetEncoder(model.LAYERS, model.WIDTH, model.BN_AFFINE, model.STRIDE_IN)
    if kind != "timm" or not name:
        raise ConfigError(f"MODEL.ENCODER: {model.ENCODER!r} is neither resnet101 nor timm:NAME")
    from advent.model.timm_encoder import TimmEncoder  # timm takes seconds to import, and most runs do not need it

    file = model.ENCODER_WEIGHTS if weights else None
    return TimmEncoder(name, config.TRAIN.IMG_MEAN, model.BN_AFFINE, file, model.OUTPUT_STRIDE, model.FEATURE_SCALE)


def build_network(config: Config, checkpoint: str | Path | None = None) -> SegmentationNetwork:
    """The network of MODEL.NAME, randomly initialised or with the weights of a trained checkpoint."""
    net = find_network(config).build(config, build_encoder(config, weights=checkpoint is None))
    if checkpoint is not None:
        load_network(net, checkpoint)
    else:
        initialise(net, config.MODEL.INIT, backbone=config.MODEL.ENCODER == "resnet101")
    return net
