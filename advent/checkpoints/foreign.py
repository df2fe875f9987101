"""Networks of other projects: recognised by the names of their tensors, refused by name."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

CTRL_PARTS = ("backbone.", "decoder.", "head_seg.")  # modules of CTRL's network
# mmcv stores the config's text beside the weights. A MIC network has the names of the network that it trains.
MIC_CONFIG = re.compile(r"\bmask_mode\W{1,4}separate")
OTHERWISE = "or train the modern recipe here: --cfg gta5_modern or ep1_modern (docs/modern.md)"


@dataclass(frozen=True)
class ForeignNetwork:
    """A network that this project cannot load. `reason`: why not; `advice`: what to do instead."""

    name: str
    reason: str
    advice: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}; {self.advice}"


def foreign_network(names: Collection[str], config_text: str = "") -> ForeignNetwork | None:
    """The project whose network has these tensor names; None if it is unknown, or this project's own.

    `config_text`: the config that mmcv stores beside the weights, which tells MIC from HRDA and DAFormer.
    """
    if all(any(name.startswith(part) for name in names) for part in CTRL_PARTS):
        return ForeignNetwork("CTRL's network", "its decoder is not supported", "evaluate it with CTRL's own code")
    if any(name.startswith("network.encoder.") for name in names) and _has(names, "network.out.", "network_ema."):
        adapter = _has(names, "network.encoder.spm.")  # the ViT adapter's spatial prior
        return ForeignNetwork(
            f"VFM-UDA{'++' * adapter}'s network",
            "its head, and its encoder with DINOv2's own names, are not part of this project",
            f"evaluate it with its own code (github.com/tue-mps/vfm-uda{'-plusplus' * adapter}), {OTHERWISE}",
        )
    if not (_has(names, "backbone.") and _has(names, "decode_head.")):
        return None
    name, repository = _of_mmsegmentation(names, config_text)
    return ForeignNetwork(
        name,
        "its encoder and head are mmsegmentation's and not part of this project",
        f"evaluate it with its own code{f' (github.com/lhoyer/{repository})' if repository else ''}, {OTHERWISE}",
    )


def _of_mmsegmentation(names: Collection[str], config_text: str) -> tuple[str, str | None]:
    """Name of a network of mmsegmentation, and its repository below github.com/lhoyer."""
    if _has(names, "decode_head.scale_attention."):
        base = "HRDA"
    elif _has(names, "decode_head.fuse_layer."):
        base = "DAFormer"
    else:
        return "a network of mmsegmentation", None
    if MIC_CONFIG.search(config_text) or any(name.startswith("mic.") for name in names):
        return f"MIC's network (on {base})", "MIC"
    return (f"{base}'s network", base) if config_text else (f"{base}'s network, or MIC's on {base}", base)


def _has(names: Collection[str], *parts: str) -> bool:
    """Whether a name starts with one of the parts; a first module such as `model.` or `ema_model.` may precede it."""
    return any(name.startswith(part) or name.partition(".")[2].startswith(part) for name in names for part in parts)
