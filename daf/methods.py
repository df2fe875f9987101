"""DAF and DADA: adversarial training on depth-aware maps, and depth supervision on the source."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from advent.config.schema import Config
from advent.errors import ConfigError
from advent.methods.registry import NetworkEntry, register_method, register_network
from advent.methods.steps import (
    Batch,
    GlobalMaxLoss,
    Losses,
    MapFunction,
    Method,
    NetworkOutputs,
    Supervised,
    adversarial_step,
    segmentation_losses,
)
from advent.model.deeplabv2 import SegmentationNetwork
from advent.model.encoder import Encoder
from advent.model.heads import build_head
from daf.dataset.depth import register_depth_formats
from daf.interaction import depth_aware_map
from daf.loss import berhu, greatest_error, log_l1
from daf.model.dada import DeeplabV2DADA
from daf.model.deeplabv2_depth import DeeplabV2Depth
from daf.model.fusion_depth import FusionDepth
from daf.self_training import self_training_method


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


def segmentation_and_log_depth_losses(prediction: NetworkOutputs, batch: Batch) -> Losses:
    """Cross entropy, and the smooth L1 loss of the logarithm against `batch["depth"]` if the batch has it."""
    losses = segmentation_losses(prediction, batch)
    if "depth" in batch:
        assert prediction.depth is not None
        known, count = batch.get("depth_known"), batch.get("depth_count")
        losses["depth"] = log_l1(prediction.depth, batch["depth"], known, count=count)
    return losses


def _depth_losses(config: Config) -> Supervised:
    """The losses of TRAIN.DEPTH_LOSS."""
    return segmentation_and_log_depth_losses if config.TRAIN.DEPTH_LOSS == "log_l1" else segmentation_and_depth_losses


def _build_daf(config: Config, encoder: Encoder) -> SegmentationNetwork:
    model, log_depth = config.MODEL, config.MODEL.DEPTH_OUTPUT == "log"
    head = build_head(model, config.NUM_CLASSES, encoder)
    if head is not None:
        return FusionDepth(config.NUM_CLASSES, encoder, head, model.DEPTH_SIZE, model.ATTENTION, log_depth)
    return DeeplabV2Depth(
        config.NUM_CLASSES,
        encoder,
        model.MULTI_LEVEL,
        model.DEPTH_SIZE,
        model.ATTENTION,
        model.DILATIONS,
        log_depth,
    )


def _build_dada(config: Config, encoder: Encoder) -> SegmentationNetwork:
    """DADA's network. Raises ConfigError for a head or a depth output that it does not have."""
    model = config.MODEL
    for key, value, only in (("HEAD", model.HEAD, "aspp"), ("DEPTH_OUTPUT", model.DEPTH_OUTPUT, "linear")):
        if value != only:
            raise ConfigError(f"MODEL.{key}: {value}: DADA's network has {only} only; set MODEL.NAME=DeepLabv2_depth")
    return DeeplabV2DADA(config.NUM_CLASSES, encoder, model.MULTI_LEVEL, model.DILATIONS)


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
            _build_daf,
            supervised=segmentation_and_depth_losses,
            gives_depth=True,
            signature=("layer6.conv2d_list.0.weight", "up1.conv1.weight", "mff_conv.weight"),
            fusion_signature=("head.classifier.weight", "depth_head.output.weight"),
            losses=_depth_losses,
        ),
    )
    register_network(
        "DeepLabv2_depth_DADA",
        NetworkEntry(
            _build_dada,
            supervised=segmentation_and_depth_losses,
            gives_depth=True,
            signature=("layer6.conv2d_list.0.weight", "enc4_1.weight"),
        ),
    )
    register_method("DAF", partial(depth_aware_method, "DAF"))
    register_method("DADA", partial(depth_aware_method, "DADA"))
    register_method("SelfTraining", self_training_method)


def register() -> None:
    """Register DAF's and DADA's networks and methods, and the readers of depth files. Repeated calls are harmless."""
    register_methods()
    register_depth_formats()
