"""Loading weights into a network: a trained one whole, or a start where names and shapes fit."""

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
TORCHVISION_WEIGHTS = "torchvision"  # as TRAIN.RESTORE_FROM: let torchvision fetch its weights


def load_network(net: nn.Module, path: str | Path) -> None:
    """Load a trained network of any form. Raises CheckpointError naming both sides when it is not this one.

    Warns where the weights suggest another choice of MODEL.DILATIONS.
    """
    found, own = open_checkpoint(path), CheckpointInfo(net.state_dict(), PLAIN, False, ())
    wanted = own.weights
    # PyTorch before 0.4.1 counted no batches.
    weights = {**{name: tensor for name, tensor in wanted.items() if name.endswith(COUNTER)}, **found.weights}
    missing, left_over = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    if missing or left_over or found.classes != own.classes:
        raise CheckpointError(
            f"{path}: holds {found}, the config asks for {own}; {summarize_keys('missing', missing)}, "
            f"{summarize_keys('left over', left_over)}; {_suggested_fix(found, own)}"
        )
    wrong = [name for name, tensor in wanted.items() if tensor.shape != weights[name].shape]
    if wrong:
        name = wrong[0]
        raise CheckpointError(
            f"{path}: holds {found} on {found.encoder}; {summarize_keys('other shapes', wrong)}: {name} is "
            f"{tuple(weights[name].shape)}, want {tuple(wanted[name].shape)}; check MODEL.LAYERS and MODEL.WIDTH"
        )
    net.load_state_dict(weights)
    _warn(net, path, found)


def load_pretrained(net: nn.Module, path: str | Path, mean: Sequence[float]) -> int:
    """Copy starting weights where names and shapes fit: ImageNet's in ADVENT's or torchvision's form, or a network.

    `path`: a file, or `torchvision` to let it fetch its ResNet-101. `mean`: the BGR mean that the images come minus.
    New heads keep their random start. Returns the number of tensors copied; raises CheckpointError if none fits.
    """
    if str(path) != TORCHVISION_WEIGHTS and not Path(path).is_file():
        raise CheckpointError(
            f"{path}: no such checkpoint to start from (TRAIN.RESTORE_FROM; pretrained/README.md says where it comes "
            "from); TRAIN.RESTORE_FROM=torchvision fetches another ImageNet start, null trains from scratch"
        )
    found = (
        CheckpointInfo(download(), TORCHVISION, False, ())
        if str(path) == TORCHVISION_WEIGHTS
        else open_checkpoint(path)
    )
    own = net.state_dict()
    classes = CheckpointInfo(own, PLAIN, False, ()).classes
    if found.network and found.classes != classes:
        raise CheckpointError(f"{path}: has {found.classes} classes, the config has NUM_CLASSES: {classes}")
    weights: Mapping[str, Tensor] = found.weights
    if found.format == TORCHVISION:
        weights = convert(weights, mean)
        if getattr(net.blueprint, "stride_in", "conv2") == "conv1":
            log.info("%s: was trained with the stride in the 3x3 convolutions; MODEL.STRIDE_IN=conv2 fits it", path)
    fitting = {name: tensor for name, tensor in weights.items() if name in own and own[name].shape == tensor.shape}
    if not any(not name.endswith(COUNTER) for name in fitting):
        raise CheckpointError(f"{path}: none of its {len(weights)} tensors fits this network; check MODEL.ENCODER")
    net.load_state_dict(fitting, strict=False)
    _warn(net, path, found)
    log.info("%s (%s): %d of the network's %d tensors start from it", path, found, len(fitting), len(own))
    return len(fitting)


def _warn(net: nn.Module, path: str | Path, found: CheckpointInfo) -> None:
    classifier = getattr(net, "layer6", None)
    if isinstance(classifier, ASPP):
        warn_of_dilations(path, found, classifier.dilations)


def _suggested_fix(found: CheckpointInfo, own: CheckpointInfo) -> str:
    if found.is_ctrls:
        return "these are the names of CTRL's network, which is not loaded here; evaluate it with CTRL's own code"
    if found.format in (IMAGENET, TORCHVISION):
        return "it is a start for training (TRAIN.RESTORE_FROM), no trained network"
    if found.network is None:
        return "its names are of no network that is loaded here (ADVENT's, DADA's or DAF's)"
    wanted = [f"{key}={value}" for key, value in found.settings.items() if own.settings.get(key) != value]
    if wanted:
        return f"to load it, set {' '.join(wanted)}"
    if found.encoder == "timm":
        return (
            "its parts differ from those of this network; scripts/checkpoint.py FILE names the MODEL.ENCODER that fits"
        )
    return "its parts differ from those of this network"
