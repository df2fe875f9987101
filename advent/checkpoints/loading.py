"""Load weights into a network: a complete trained checkpoint, or pretrained tensors whose names and shapes fit."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from advent.checkpoints.formats import (
    COUNTER,
    IMAGENET,
    PLAIN,
    TORCHVISION,
    CheckpointInfo,
    open_checkpoint,
    summarize_keys,
    warn_of_dilations,
)
from advent.errors import CheckpointError
from advent.model.deeplabv2 import ASPP
from advent.model.pretrained import convert, download

log = logging.getLogger(__name__)
TORCHVISION_WEIGHTS = "torchvision"  # value of TRAIN.RESTORE_FROM: torchvision downloads its weights


def load_network(net: nn.Module, path: str | Path) -> None:
    """Load a trained checkpoint of any format. Raises CheckpointError, naming both networks, if it does not fit.

    Warns if the weights suggest another value of MODEL.DILATIONS.
    """
    info, own = open_checkpoint(path), CheckpointInfo(net.state_dict(), PLAIN, False, ())
    _refuse_foreign(path, info)
    expected = own.weights
    # Batch norm of PyTorch before 0.4.1 has no counter.
    weights = {**{name: tensor for name, tensor in expected.items() if name.endswith(COUNTER)}, **info.weights}
    missing, unexpected = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if missing or unexpected or info.classes != own.classes:
        raise CheckpointError(
            f"{path}: holds {info}, the config asks for {own}; {summarize_keys('missing', missing)}, "
            f"{summarize_keys('unexpected', unexpected)}; {_suggested_fix(info, own)}"
        )
    wrong = [name for name, tensor in expected.items() if tensor.shape != weights[name].shape]
    if wrong:
        name = wrong[0]
        raise CheckpointError(
            f"{path}: holds {info} on {info.encoder}; {summarize_keys('other shapes', wrong)}: {name} is "
            f"{tuple(weights[name].shape)}, expected {tuple(expected[name].shape)}; {_shape_fix(info, own)}"
        )
    net.load_state_dict(weights)
    _warn(net, path, info)


def load_pretrained(net: nn.Module, path: str | Path, mean: Sequence[float]) -> int:
    """Copy pretrained tensors whose names and shapes fit: ImageNet weights (ADVENT's or torchvision's), or a network's.

    `path`: a file, or `torchvision` to download its ResNet-101. `mean`: the BGR mean subtracted from the images. New
    heads keep their random initialisation. Returns the number of tensors copied. Raises CheckpointError if the file is
    missing, no tensor fits, or the number of classes differs.
    """
    if str(path) != TORCHVISION_WEIGHTS and not Path(path).is_file():
        raise CheckpointError(
            f"{path}: no such checkpoint to start from (TRAIN.RESTORE_FROM; pretrained/README.md says where to get "
            "it); TRAIN.RESTORE_FROM=torchvision downloads other ImageNet weights, null trains from scratch"
        )
    info = (
        CheckpointInfo(download(), TORCHVISION, False, ())
        if str(path) == TORCHVISION_WEIGHTS
        else open_checkpoint(path)
    )
    _refuse_foreign(path, info)
    own = net.state_dict()
    classes = CheckpointInfo(own, PLAIN, False, ()).classes
    if info.network and info.classes != classes:
        raise CheckpointError(f"{path}: has {info.classes} classes, the config has NUM_CLASSES: {classes}")
    weights: Mapping[str, Tensor] = info.weights
    if info.format == TORCHVISION:
        weights = convert(weights, mean)
        if getattr(net.blueprint, "stride_in", "conv2") == "conv1":
            log.info("%s: was trained with the stride in the 3x3 convolutions; MODEL.STRIDE_IN=conv2 fits it", path)
    fitting = {name: tensor for name, tensor in weights.items() if name in own and own[name].shape == tensor.shape}
    if not any(not name.endswith(COUNTER) for name in fitting):
        raise CheckpointError(f"{path}: none of its {len(weights)} tensors fits this network; check MODEL.ENCODER")
    net.load_state_dict(fitting, strict=False)
    _warn(net, path, info)
    log.info("%s (%s): loaded %d of the network's %d tensors", path, info, len(fitting), len(own))
    return len(fitting)


def _refuse_foreign(path: str | Path, info: CheckpointInfo) -> None:
    if info.foreign is not None:
        raise CheckpointError(f"{path}: holds {info.foreign}")


def _warn(net: nn.Module, path: str | Path, info: CheckpointInfo) -> None:
    classifier = getattr(net, "layer6", None)
    if isinstance(classifier, ASPP):
        warn_of_dilations(path, info, classifier.dilations)


def _shape_fix(info: CheckpointInfo, own: CheckpointInfo) -> str:
    changes = [f"{key}={value}" for key, value in info.settings.items() if own.settings.get(key) != value]
    return f"to load it, set {' '.join(changes)}" if changes else "check MODEL.LAYERS and MODEL.WIDTH"


def _suggested_fix(info: CheckpointInfo, own: CheckpointInfo) -> str:
    if info.format in (IMAGENET, TORCHVISION):
        return "it holds ImageNet weights to start training from (TRAIN.RESTORE_FROM), not a trained network"
    if info.network is None:
        return "its names belong to none of the supported networks (ADVENT's, DADA's, DAF's)"
    changes = [f"{key}={value}" for key, value in info.settings.items() if own.settings.get(key) != value]
    if changes:
        return f"to load it, set {' '.join(changes)}"
    if info.encoder == "timm":
        return (
            "its parameter names differ from this network's; scripts/checkpoint.py FILE names the fitting MODEL.ENCODER"
        )
    return "its parameter names differ from this network's"
