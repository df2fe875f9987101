"""Which of timm's backbones an encoder is, by the names and shapes of its weights."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import timm
import torch
from torch import Tensor

from advent.errors import ConfigError
from advent.model.timm_encoder import OUTPUT_STRIDES, _canonical, _create

log = logging.getLogger(__name__)
PREFIX, COUNTER = "encoder.", "num_batches_tracked"
Signature = dict[str, tuple[int, ...]]


def matching_backbones(weights: Mapping[str, Tensor], names: Iterable[str] | None = None) -> list[str]:
    """`timm:NAME` of every backbone whose encoder has exactly these names and shapes; several can have the same.

    weights: of a whole network; those of its encoder begin with `encoder.`. names: the backbones to compare with,
    otherwise all of timm's that begin with the same convolution (up to some hundred, a fraction of a second each).
    Nothing is allocated: the backbones are built on the meta device.
    """
    signature = _signature({n.removeprefix(PREFIX): t for n, t in weights.items() if n.startswith(PREFIX)})
    candidates = list(_plausible(signature) if names is None else names)
    if names is None:
        log.info("comparing the encoder with %d of timm's backbones", len(candidates))
    return [f"timm:{name}" for name in candidates if _signature_of(name) == signature]


def _signature(weights: Mapping[str, Tensor]) -> Signature:
    return {name: tuple(tensor.shape) for name, tensor in weights.items() if not name.endswith(COUNTER)}


def _signature_of(name: str) -> Signature | None:
    """The signature of a backbone by name; None for one that cannot serve or be built without data."""
    if not timm.is_model(name):
        return None
    try:
        with torch.device("meta"):
            return _signature(_create(name, pretrained=False, output_stride=OUTPUT_STRIDES[-1]).state_dict())
    except (ConfigError, NotImplementedError, RuntimeError, ImportError):
        return None


def _plausible(signature: Signature) -> list[str]:
    """timm's backbones whose first convolution bears a name that occurs here, and that take pictures of any size."""
    present = {_canonical(name) for name in signature}
    found = []
    for name in timm.list_models():
        config = timm.get_pretrained_cfg(name)
        first = (config.first_conv if config else None) or ()
        parts = [first] if isinstance(first, str) else first
        if config and not config.fixed_input_size and all(_canonical(f"{part}.weight") in present for part in parts):
            found.append(name)
    return found
