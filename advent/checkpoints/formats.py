"""Checkpoint formats, detected from a file's content and never from its name."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from advent.checkpoints.foreign import ForeignNetwork, foreign_network
from advent.checkpoints.io import read
from advent.errors import CheckpointError
from advent.methods.registry import NETWORKS
from advent.model.deeplabv2 import ASPP_DILATIONS

log = logging.getLogger(__name__)
CLASSIFIER, AUXILIARY = "layer6.conv2d_list.0.weight", "layer5.conv2d_list.0.weight"
FUSION_CLASSIFIER, FUSION_EMBEDDING = "head.classifier.weight", "head.embed.0.weight"
PLAIN, RESUME, IMAGENET, TORCHVISION = (
    "state dict",
    "resume state",
    "ADVENT's ImageNet start",
    "torchvision's ImageNet ResNet",
)
IMAGENET_PREFIX, MODULE_PREFIX = "Scale.", "module."
WRAPPERS = ("model_state_dict", "state_dict")  # entries that hold the weights; the second is mmcv's and Lightning's
COUNTER = "num_batches_tracked"  # batch norm's counter since PyTorch 0.4.1; results do not depend on it
INITIAL_SPREAD = 0.01  # initial standard deviation of the classifiers of the ADVENT family
SHOWN = 3


@dataclass(frozen=True)
class CheckpointInfo:
    """Content of a checkpoint file.

    `weights`: state dict without prefixes. `format`: one of the constants above. `module`: whether names started with
    `module.`. `others`: names of the file's other entries (optimizers, a discriminator, ...). `foreign`: another
    project's network, which cannot be loaded.
    """

    weights: dict[str, Tensor]
    format: str
    module: bool
    others: tuple[str, ...]
    foreign: ForeignNetwork | None = None

    @property
    def network(self) -> str | None:
        """MODEL.NAME of the network with these weights; None for ImageNet starts and for unknown networks."""
        if self.head is None or self.format in (IMAGENET, TORCHVISION):
            return None
        signatures = {
            name: entry.fusion_signature if self.head == "fusion" else entry.signature
            for name, entry in NETWORKS.items()
        }
        matching = [name for name, names in signatures.items() if names and all(part in self.weights for part in names)]
        return max(matching, key=lambda name: len(signatures[name]), default=None)

    @property
    def head(self) -> str | None:
        """MODEL.HEAD of the network with these weights; None without a classifier of this project."""
        if FUSION_CLASSIFIER in self.weights:
            return "fusion"
        return "aspp" if CLASSIFIER in self.weights else None

    @property
    def multi_level(self) -> bool:
        """Whether the weights include an auxiliary classifier."""
        return AUXILIARY in self.weights

    @property
    def classes(self) -> int | None:
        """Number of classes; None without a classifier of the ADVENT family or a fusion head."""
        return _channels(self.weights, FUSION_CLASSIFIER if self.head == "fusion" else CLASSIFIER)

    @property
    def encoder(self) -> str:
        """The backbone, as far as it follows from names and shapes."""
        if "layer1.0.conv1.weight" in self.weights:
            blocks, width = self._resnet()
            full = blocks == [3, 4, 23, 3] and width == 64
            return "resnet101" if full else f"resnet101 with MODEL.LAYERS={blocks} MODEL.WIDTH={width}"
        return "timm" if any(name.startswith("encoder.") for name in self.weights) else "unknown"

    @property
    def settings(self) -> dict[str, str]:
        """Config keys that the weights determine, with values as in KEY=VALUE; empty if the network is unknown."""
        if self.network is None:
            return {}
        settings = {
            "MODEL.NAME": self.network,
            "MODEL.MULTI_LEVEL": str(self.multi_level).lower(),
            "NUM_CLASSES": str(self.classes),
            "MODEL.HEAD": str(self.head),
        }
        if self.head == "fusion":
            settings["MODEL.HEAD_WIDTH"] = listed(self._head_width())
        if self.encoder.startswith("resnet101"):
            blocks, width = self._resnet()
            return {**settings, "MODEL.ENCODER": "resnet101", "MODEL.LAYERS": listed(blocks), "MODEL.WIDTH": str(width)}
        return {**settings, "MODEL.ENCODER": "timm:NAME"} if self.encoder == "timm" else settings

    @property
    def dilations(self) -> tuple[int, ...] | None:
        """Dilations of the classifier's trained convolutions; None if the weights are inconclusive.

        A convolution that was never used keeps its initial standard deviation; training and weight decay change it.
        """
        convs = [self.weights.get(f"layer6.conv2d_list.{index}.weight") for index in range(len(ASPP_DILATIONS))]
        trained = [None if conv is None else _is_trained(conv) for conv in convs]
        if None in trained or not any(trained):
            return None
        return tuple(rate for rate, is_trained in zip(ASPP_DILATIONS, trained, strict=True) if is_trained)

    def _resnet(self) -> tuple[list[int], int]:
        """Blocks of the four stages, and output channels of the stem."""
        blocks = [_count_blocks(self.weights, f"layer{stage}.") for stage in (1, 2, 3, 4)]
        return blocks, _channels(self.weights, "conv1.weight") or 0

    def _head_width(self) -> tuple[int, int]:
        """Channels of the fusion head's embeddings and of its fused features."""
        classifier = self.weights[FUSION_CLASSIFIER].shape
        return _channels(self.weights, FUSION_EMBEDDING) or 0, classifier[1] if len(classifier) > 1 else 0

    def __str__(self) -> str:
        """Short description, such as `DeepLabv2_depth (16 classes)`."""
        if self.foreign is not None:
            return self.foreign.name
        if self.network is None:
            return self.format if self.format in (IMAGENET, TORCHVISION) else "no network of the ADVENT family"
        fusion = f" with a fusion head of width {listed(self._head_width())}" if self.head == "fusion" else ""
        return f"{self.network}{' multi-level' if self.multi_level else ''}{fusion} ({self.classes} classes)"


def open_checkpoint(path: str | Path) -> CheckpointInfo:
    """Read a checkpoint file and detect its format. Raises CheckpointError if it holds no network weights."""
    content = read(path)
    inner, file_format, others = _unwrapped(content) if isinstance(content, Mapping) else (content, PLAIN, ())
    if not isinstance(inner, Mapping) or not inner or not all(isinstance(v, Tensor) for v in inner.values()):
        held = f" (it holds {', '.join(map(str, list(content)[:SHOWN]))})" if isinstance(content, Mapping) else ""
        raise CheckpointError(
            f"{path}: holds no network weights{held}; expected a state dict, or one under {' or '.join(WRAPPERS)}"
        )
    weights = {str(name): tensor for name, tensor in inner.items()}
    module = all(name.startswith(MODULE_PREFIX) for name in weights)
    if module:
        weights = {name.removeprefix(MODULE_PREFIX): tensor for name, tensor in weights.items()}
    if all(name.startswith(IMAGENET_PREFIX) for name in weights):
        parts = {name: name.split(".")[1:] for name in weights}
        weights = {".".join(rest): weights[name] for name, rest in parts.items() if rest[0] != "layer5"}
        file_format = IMAGENET
    elif {"conv1.weight", "layer4.0.conv1.weight", "fc.weight"} <= weights.keys():
        file_format = TORCHVISION
    return CheckpointInfo(weights, file_format, module, others, foreign_network(weights, _config_text(content)))


def _unwrapped(content: Mapping[Any, Any]) -> tuple[Any, str, tuple[str, ...]]:
    learner = content.get("learner")
    if isinstance(learner, Mapping) and isinstance(learner.get("net"), Mapping):
        return learner["net"], RESUME, tuple(sorted(str(key) for key in learner if key != "net"))
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            others = tuple(sorted(str(key) for key in content if key != wrapper))
            return content[wrapper], f"{wrapper} wrapper", others
    return content, PLAIN, ()


def _config_text(content: Any) -> str:
    """The text of the config in mmcv's `meta` entry; empty without."""
    meta = content.get("meta") if isinstance(content, Mapping) else None
    return str(meta.get("config", "")) if isinstance(meta, Mapping) else ""


def _channels(weights: Mapping[str, Tensor], name: str) -> int | None:
    """Output channels of a convolution; None if it is missing or has no dimensions."""
    shape = weights[name].shape if name in weights else ()
    return shape[0] if shape else None


def _count_blocks(weights: Mapping[str, Tensor], stage: str) -> int:
    return len({name.split(".")[1] for name in weights if name.startswith(stage)})


def warn_of_dilations(path: str | Path, found: CheckpointInfo, used: Sequence[int]) -> None:
    """Warn if the weights suggest that their network sums other convolutions of the classifier than `used`."""
    if found.dilations is None or found.dilations == tuple(used):
        return
    idle = [rate for rate in ASPP_DILATIONS if rate not in found.dilations]
    why = (
        f"its classifier's convolutions of dilation {', '.join(map(str, idle))} still have their initial standard "
        f"deviation of {INITIAL_SPREAD}, so its network seems not to use them (AdaptSegNet's uses only 6 and 12)"
        if idle
        else "all four convolutions of its classifier are trained"
    )
    log.warning(
        "%s: %s, but MODEL.DILATIONS is %s: the network computes another function and its scores are invalid; set "
        "MODEL.DILATIONS=%s",
        path,
        why,
        listed(used),
        listed(found.dilations),
    )


def listed(values: Sequence[int]) -> str:
    """A list as KEY=VALUE on a command line takes it, such as `[6,12]`."""
    return f"[{','.join(map(str, values))}]"


def _is_trained(weight: Tensor) -> bool | None:
    """Whether a convolution's standard deviation differs from its initial value; None if inconclusive.

    A standard deviation estimated from n values has a relative error of 1 / sqrt(2 n). Up to four times that (plus
    0.002) is taken for chance, more than three times this bound for training.
    """
    if weight.numel() < 2 or not weight.is_floating_point():
        return None
    chance = 4 / math.sqrt(2 * weight.numel()) + 0.002
    off = abs(float(weight.float().std()) / INITIAL_SPREAD - 1)
    return True if off > 3 * chance else False if off <= chance else None


def summarize_keys(what: str, names: list[str]) -> str:
    """`12 missing (a, b, c, ...)`."""
    shown = f" ({', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''})" if names else ""
    return f"{len(names)} {what}{shown}"
