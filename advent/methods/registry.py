"""Registry of networks and adaptation methods by config name; `daf.methods.register` adds those with depth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from advent.config.schema import Config
from advent.errors import ConfigError, hint
from advent.methods.steps import (
    Method,
    Supervised,
    adversarial_step,
    entropy_step,
    information_map,
    segmentation_losses,
    supervised_step,
)
from advent.model.deeplabv2 import DeeplabV2, SegmentationNetwork
from advent.model.encoder import Encoder
from advent.model.heads import build_head


@dataclass(frozen=True)
class NetworkEntry:
    """A registered network: its constructor `build(config, encoder)` and its losses on labelled data.

    `signature`, `fusion_signature`: parameter names by which its checkpoints with MODEL.HEAD `aspp` or `fusion` are
    recognised; empty if it has no such head. If several networks match, the one with the longest signature is taken.
    `losses`: chooses `supervised` by config (`find_network` applies it).
    """

    build: Callable[[Config, Encoder], SegmentationNetwork]
    supervised: Supervised = segmentation_losses
    gives_depth: bool = False
    signature: tuple[str, ...] = ("layer6.conv2d_list.0.weight",)
    fusion_signature: tuple[str, ...] = ()
    losses: Callable[[Config], Supervised] | None = None


NETWORKS: dict[str, NetworkEntry] = {
    "DeepLabv2": NetworkEntry(
        lambda cfg, encoder: DeeplabV2(
            cfg.NUM_CLASSES,
            encoder,
            cfg.MODEL.MULTI_LEVEL,
            cfg.MODEL.DILATIONS,
            head=build_head(cfg.MODEL, cfg.NUM_CLASSES, encoder),
        ),
        fusion_signature=("head.classifier.weight",),
    ),
}
METHODS: dict[str, Callable[[Config], Method]] = {
    "SourceOnly": lambda cfg: Method("SourceOnly", supervised_step, include_last_iter=True, multi_level=True),
    "MinEnt": lambda cfg: Method("MinEnt", entropy_step, multi_level=True),
    "AdvEnt": lambda cfg: Method(
        "AdvEnt", adversarial_step, information_map, information_map, half_disc_loss=True, multi_level=True
    ),
}


def register_network(name: str, entry: NetworkEntry) -> None:
    """Register a network as MODEL.NAME."""
    NETWORKS[name] = entry


def register_method(name: str, build: Callable[[Config], Method]) -> None:
    """Register a method as TRAIN.DA_METHOD; `build(config)` returns the method."""
    METHODS[name] = build


def find_network(config: Config) -> NetworkEntry:
    """The entry of MODEL.NAME, with the config's losses. Raises ConfigError, with the nearest known name."""
    entry: NetworkEntry = _look_up(NETWORKS, config.MODEL.NAME, "MODEL.NAME")
    return replace(entry, supervised=entry.losses(config)) if entry.losses else entry


def find_method(config: Config) -> Method:
    """The method of TRAIN.DA_METHOD. Raises ConfigError if it is unknown or does not fit the network."""
    method = _look_up(METHODS, config.TRAIN.DA_METHOD, "TRAIN.DA_METHOD")(config)
    if method.needs_depth and not find_network(config).gives_depth:
        raise ConfigError(
            f"TRAIN.DA_METHOD: {method.name} needs a network with a depth head, MODEL.NAME: {config.MODEL.NAME} has "
            "none; set MODEL.NAME: DeepLabv2_depth"
        )
    if config.MODEL.MULTI_LEVEL and not method.multi_level:
        raise ConfigError(
            f"MODEL.MULTI_LEVEL: {method.name} never trains the auxiliary output; set it to false, or use AdvEnt "
            "or MinEnt"
        )
    return method


def _look_up(table: Mapping[str, Any], name: str, key: str) -> Any:
    if name in table:
        return table[name]
    raise ConfigError(f"{key}: there is no {name!r}; {hint(name, sorted(table))}")
