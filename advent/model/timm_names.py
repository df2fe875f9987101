"""Identifies the timm backbone of an encoder by the names and shapes of its weights."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import timm
import torch
from torch import Tensor

from advent.errors import ConfigError
from advent.model.timm_encoder import OUTPUT_STRIDES, SWINS, VITS, _canonical, _create, is_family

log = logging.getLogger(__name__)
PREFIX, COUNTER = "encoder.", "num_batches_tracked"
Signature = dict[str, tuple[int, ...]]


def matching_backbones(weights: Mapping[str, Tensor], names: Iterable[str] | None = None) -> list[str]:
    """`timm:NAME` of every backbone with exactly these weight names and shapes; several may match.

    weights: state dict of a network; the encoder's names begin with `encoder.`. names: backbones to compare with; None
    is all of timm's whose first convolution has a name that occurs (up to some hundred, a fraction of a second each).
    The backbones are built on the meta device, without allocation.
    """
    signature = _signature({n.removeprefix(PREFIX): t for n, t in weights.items() if n.startswith(PREFIX)})
    candidates = list(_plausible(signature) if names is None else names)
    if names is None:
        log.info("comparing the encoder with %d of timm's backbones", len(candidates))
    return [f"timm:{name}" for name in candidates if _signature_of(name) == signature]


def _signature(weights: Mapping[str, Tensor]) -> Signature:
    return {name: tuple(tensor.shape) for name, tensor in weights.items() if not name.endswith(COUNTER)}


def _signature_of(name: str) -> Signature | None:
    """Signature of a backbone by name; None if it is unsuitable or cannot be built on the meta device."""
    if not timm.is_model(name):
        return None
    try:
        with torch.device("meta"):
            return _signature(_create(name, pretrained=False, output_stride=OUTPUT_STRIDES[-1]).state_dict())
    except (ConfigError, NotImplementedError, RuntimeError, ImportError):
        return None


def _plausible(signature: Signature) -> list[str]:
    """timm's backbones that accept any image size and whose first convolution has a name that occurs in `signature`."""
    present = {_canonical(name) for name in signature}
    is_vit = any(name.startswith("blocks.0.") for name in signature) and "patch_embed.proj.weight" in signature
    patch = f"patch{signature['patch_embed.proj.weight'][-1]}" if is_vit else ""
    names = []
    for name in timm.list_models():
        config = timm.get_pretrained_cfg(name)
        first = (config.first_conv if config else None) or ()
        parts = [first] if isinstance(first, str) else first
        if not config or is_family(name, VITS) != is_vit or (is_vit and "_patch" in name and f"_{patch}_" not in name):
            continue
        any_size = not config.fixed_input_size or is_family(name, (*VITS, *SWINS))
        if any_size and all(_canonical(f"{part}.weight") in present for part in parts):
            names.append(name)
    return names
