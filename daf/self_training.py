"""Self-training with an EMA teacher (DACS, DAFormer, MIC), guided by depth where the DEPTH keys ask for it.

One iteration: the teacher follows the student; the student learns from source labels; the teacher labels the target;
the student learns from a mix of both images, and from the masked target. All random numbers of a sample depend on the
seed and on its position in the data stream, so neither resuming nor the number of processes changes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from advent.config.schema import Config
from advent.dataset.augment import strong_augmentation
from advent.errors import ConfigError
from advent.methods.registry import find_network
from advent.methods.steps import (
    Batch,
    Losses,
    Method,
    StepContext,
    align,
    detached,
    domain_maps,
    information_map,
    supervised_backward,
)
from advent.model.batch_norm import frozen_statistics
from advent.runtime import distributed
from daf import guidance, mixing
from daf.interaction import depth_aware_map
from daf.teacher import SelfTrainingState


def self_training_step(context: StepContext, source: Batch, target: Batch | None) -> Losses:
    """One step of self-training (above). It adds the mean weight `pseudo`, `mix`, `mask`, `mix_depth`, `mask_depth`."""
    assert target is not None
    assert isinstance(context.state, SelfTrainingState)
    state = context.state
    settings = state.settings
    losses, on_source = supervised_backward(context, source)
    if settings.ADVERSARY:
        losses |= align(context, domain_maps(on_source, context.method.source_map), target["image"])
    del on_source
    names = _names(state)
    if context.iteration < state.first:
        state.learn_prior(source)
        state.move_statistics(context, target["image"])
        return losses | {name: target["image"].new_zeros(()) for name in names}
    positions = positions_of(context, target)
    labels = label_target(context, target, positions)  # by statistics that are equal for all micro-batches
    state.learn_prior(source)
    state.move_statistics(context, target["image"])
    found = {"pseudo": labels.weight.mean(), **_mixed(context, source, target, labels, positions)}
    if settings.MASK_RATIO:
        found |= _masked(context, target, labels, positions)
    return losses | detached({name: found[name] for name in names})


@dataclass
class PseudoLabels:
    """Labels (B, H, W) int64, weights (B, H, W), and log inverse depth (B, H, W) or None of a target batch."""

    label: Tensor
    weight: Tensor
    depth: Tensor | None


@torch.no_grad()
def label_target(context: StepContext, target: Batch, positions: Tensor) -> PseudoLabels:
    """The teacher's labels of a target batch, their weights, and the target's depth."""
    state = context.state
    assert isinstance(state, SelfTrainingState)
    settings = state.settings
    prediction = state.predict(context, target["image"])
    probabilities = prediction.main.softmax(1)
    depth = None if prediction.depth is None else state.target_depth(prediction.depth, target, positions)
    if state.depth.PRIOR and depth is not None:
        probabilities = guidance.with_prior(probabilities, depth, state.get_buffer("class_counts"), state.depth.PRIOR)
    probability, label = probabilities.max(1)
    weight = mixing.pseudo_weight(probability, label, state.threshold(), settings.WEIGHT, state.num_classes)
    state.learn_confidence(probability, label)
    return PseudoLabels(label, mixing.ignored_rows(weight, settings.IGNORE_TOP, settings.IGNORE_BOTTOM), depth)


def _mixed(context: StepContext, source: Batch, target: Batch, labels: PseudoLabels, positions: Tensor) -> Losses:
    """The student's pass on the mixed images."""
    state = context.state
    assert isinstance(state, SelfTrainingState)
    settings = state.settings
    pasted = paste_mask(state, source, labels, positions)
    image = torch.where(pasted[:, None], source["image"], target["image"])
    label = torch.where(pasted, source["label"].long(), labels.label)
    weight = torch.where(pasted, 1.0, labels.weight)
    if settings.STRONG:
        image = strong_augmentation(image, positions, state.seed, state.mean)
    if settings.LAMBDA_MIX == 0:
        with torch.no_grad():
            context.predict(image)
        return {"mix": image.new_zeros(()), "mix_depth": image.new_zeros(())}
    prediction = context.predict(image)
    losses = {"mix": mixing.weighted_cross_entropy(prediction.main, label, weight)}
    total = settings.LAMBDA_MIX * losses["mix"]
    if state.depth.MIX_LOSS:
        assert prediction.depth is not None
        assert labels.depth is not None
        truth = torch.where(pasted, guidance.log_depth(source["depth"]), labels.depth)
        known = ~pasted | source["depth_known"] if "depth_known" in source else None
        losses["mix_depth"] = guidance.depth_loss(prediction.depth[:, 0], truth.exp(), known)
        total = total + state.depth.MIX_LOSS * losses["mix_depth"]
    context.scale(total).backward()
    return losses


@torch.no_grad()
def paste_mask(state: SelfTrainingState, source: Batch, labels: PseudoLabels, positions: Tensor) -> Tensor:
    """Pixels (B, H, W) bool of the source images that are pasted into the target images."""
    label = source["label"]
    if not state.settings.MIX:
        return torch.zeros_like(label, dtype=torch.bool)
    draws = mixing.uniform(state.seed, positions, "pasted_classes", (state.num_classes,), label.device)
    mask = mixing.class_mask(label, mixing.drawn_classes(label, draws))
    if not state.depth.ORDER:
        return mask
    assert labels.depth is not None
    from_source, from_target = guidance.log_depth(source["depth"]), labels.depth
    known = source.get("depth_known", torch.ones_like(mask))
    if state.ground is not None and state.depth.TARGET != "constant":
        road = (label == state.ground) & known
        sure = (labels.label == state.ground) & (labels.weight > 0)
        from_target = guidance.align_on_road(from_source, from_target, road, sure)
    from_source = from_source.masked_fill(~known, float("inf"))  # an unknown depth forbids nothing
    return guidance.ordered(mask, from_source, from_target, state.depth.MARGIN)


def _masked(context: StepContext, target: Batch, labels: PseudoLabels, positions: Tensor) -> Losses:
    """The student's pass on the masked target (masked image consistency). Running statistics do not move."""
    state = context.state
    assert isinstance(state, SelfTrainingState)
    settings, image = state.settings, target["image"]
    size_hw = image.shape[-2:]
    if settings.STRONG:
        image = strong_augmentation(image, positions, state.seed, state.mean, "masked")
    grid = mixing.grid_size(size_hw, settings.MASK_BLOCK)
    draws = mixing.uniform(state.seed, positions, "visible_blocks", grid, image.device)
    visible = mixing.block_mask(draws, settings.MASK_RATIO, settings.MASK_BLOCK, size_hw)
    with frozen_statistics(context.net):
        prediction = context.predict(image * visible)
    losses = {"mask": mixing.weighted_cross_entropy(prediction.main, labels.label, labels.weight)}
    total = settings.LAMBDA_MASK * losses["mask"]
    if state.depth.MASKED:
        assert prediction.depth is not None
        assert labels.depth is not None
        losses["mask_depth"] = guidance.depth_loss(prediction.depth[:, 0], labels.depth.exp())
        total = total + state.depth.MASKED * losses["mask_depth"]
    context.scale(total).backward()
    return losses


def positions_of(context: StepContext, batch: Batch) -> Tensor:
    """Each sample's position in its data stream, (B,) on the CPU; without one (a batch made by hand), by its index."""
    count = len(batch["image"])
    return batch["position"] if "position" in batch else context.iteration * count + torch.arange(count)


def _names(state: SelfTrainingState) -> list[str]:
    """The losses and shares that every iteration reports."""
    given = {
        "mix": True,
        "mix_depth": state.depth.MIX_LOSS,
        "mask": state.settings.MASK_RATIO,
        "mask_depth": state.settings.MASK_RATIO and state.depth.MASKED,
    }
    return ["pseudo", *(name for name, used in given.items() if used)]


def self_training_method(config: Config) -> Method:
    """TRAIN.DA_METHOD: SelfTraining. Raises ConfigError for settings that do not fit each other or the network."""
    settings, depth, has_depth = config.SELF_TRAINING, config.DEPTH, find_network(config).gives_depth
    guided = [name for name in ("ORDER", "MIX_LOSS", "PRIOR", "MASKED") if getattr(depth, name)]
    if guided and not has_depth:
        raise ConfigError(
            f"DEPTH.{guided[0]}: needs a network with a depth head, MODEL.NAME: {config.MODEL.NAME} has none; set "
            "MODEL.NAME: DeepLabv2_depth"
        )
    if guided and not config.TRAIN.LAMBDA_DEPTH_MAIN:
        raise ConfigError(f"DEPTH.{guided[0]}: the depth head is not trained; set TRAIN.LAMBDA_DEPTH_MAIN above 0")
    if depth.TARGET == "permuted" and (config.TRAIN.ACCUMULATE > 1 or distributed.world_size() > 1):
        raise ConfigError(
            "DEPTH.TARGET: permuted draws from maps of earlier images, which belong to one process and one batch; run "
            "this control with TRAIN.ACCUMULATE=1 in a single process"
        )
    if depth.MASKED and not settings.MASK_RATIO:
        raise ConfigError("DEPTH.MASKED: there is no masked pass; set SELF_TRAINING.MASK_RATIO above 0")
    sizes = config.AUGMENT.CROP or config.TRAIN.INPUT_SIZE_SOURCE, config.AUGMENT.CROP or config.TRAIN.INPUT_SIZE_TARGET
    if settings.MIX and (sizes[0] != sizes[1] or config.TRAIN.BATCH_SIZE_SOURCE != config.TRAIN.BATCH_SIZE_TARGET):
        raise ConfigError(
            "SELF_TRAINING.MIX: source and target batches must have one size, here "
            f"{config.TRAIN.BATCH_SIZE_SOURCE} x {sizes[0]} and {config.TRAIN.BATCH_SIZE_TARGET} x {sizes[1]}; set "
            "AUGMENT.CROP, or equal TRAIN.INPUT_SIZE_ and TRAIN.BATCH_SIZE_ keys"
        )
    domain_map = None
    if settings.ADVERSARY:
        domain_map = _depth_map if has_depth else information_map
    return Method(
        "SelfTraining",
        self_training_step,
        domain_map,
        domain_map,
        include_last_iter=True,
        state=partial(SelfTrainingState, config),
    )


def _depth_map(logits: Tensor, depth: Tensor | None) -> Tensor:
    assert depth is not None
    return depth_aware_map(logits, depth)
