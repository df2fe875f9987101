"""DAF and DADA: adversarial training on depth-aware maps, and depth supervision on the source."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from advent.config.schema import Config
from advent.methods.registry import NetworkEntry, register_method, register_network
from advent.methods.steps import (
    Batch,
    GlobalMaxLoss,
    Losses,
    MapFunction,
    Method,
    NetworkOutputs,
    adversarial_step,
    segmentation_losses,
)
from daf.interaction import depth_aware_map
from daf.loss import berhu, greatest_error
from daf.model.dada import DeeplabV2DADA
from daf.model.deeplabv2_depth import DeeplabV2Depth


def _losses(prediction: NetworkOutputs, batch: Batch) -> Losses:
    """Cross entropy, and BerHu against `batch["depth"]` (B, H, W inverse depth) if the batch has it.

    `batch["depth_known"]` (B, H, W) bool masks the known pixels if the source's depth has gaps.
    """
    losses = segmentation_losses(prediction, batch)
    if "depth" in batch:
        assert prediction.depth is not None
        losses["depth"] = berhu(
            prediction.depth,
            batch["depth"],
            batch.get("depth_known"),
            count=batch.get("depth_count"),
            greatest=batch.get("depth_greatest"),
        )
    return losses


def _greatest_error(prediction: NetworkOutputs, batch: Batch) -> Tensor:
    assert prediction.depth is not None
    return greatest_error(prediction.depth, batch["depth"], batch.get("depth_known"))


segmentation_and_depth_losses = GlobalMaxLoss(_losses, _greatest_error, key="depth", global_key="depth_greatest")


def _map_of_power(power: int) -> MapFunction:
    def to_map(logits: Tensor, depth: Tensor | None) -> Tensor:
        assert depth is not None
        return depth_aware_map(logits, depth, power)

    return to_map


def depth_aware_method(
    name: str, config: Config, half_disc_loss: bool = False, include_last_iter: bool = True
) -> Method:
    """The adversarial step on depth-aware maps, with the depth powers of TRAIN.DEPTH_POWER (source, target)."""
    # The authors' code squares depth on the target only; both figures show one map. DEPTH_POWER [1, 2] restores that.
    power_src, power_trg = config.TRAIN.DEPTH_POWER
    maps = (_map_of_power(power_src), _map_of_power(power_trg))
    return Method(
        name,
        adversarial_step,
        *maps,
        half_disc_loss=half_disc_loss,
        include_last_iter=include_last_iter,
        needs_depth=True,
    )


def register_methods() -> None:
    """Make DAF's and DADA's networks and methods available to configs."""
    register_network(
        "DeepLabv2_depth",
        NetworkEntry(
            lambda cfg, encoder: DeeplabV2Depth(
                cfg.NUM_CLASSES,
                encoder,
                cfg.MODEL.MULTI_LEVEL,
                cfg.MODEL.DEPTH_SIZE,
                cfg.MODEL.ATTENTION,
                cfg.MODEL.DILATIONS,
            ),
            supervised=segmentation_and_depth_losses,
            gives_depth=True,
            signature=("layer6.conv2d_list.0.weight", "up1.conv1.weight", "mff_conv.weight"),
        ),
    )
    register_network(
        "DeepLabv2_depth_DADA",
        NetworkEntry(
            lambda cfg, encoder: DeeplabV2DADA(cfg.NUM_CLASSES, encoder, cfg.MODEL.MULTI_LEVEL, cfg.MODEL.DILATIONS),
            supervised=segmentation_and_depth_losses,
            gives_depth=True,
            signature=("layer6.conv2d_list.0.weight", "enc4_1.weight"),
        ),
    )
    register_method("DAF", partial(depth_aware_method, "DAF"))
    register_method("DADA", partial(depth_aware_method, "DADA"))
