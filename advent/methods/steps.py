"""The training steps: batches and networks in, named losses out, gradients left in place.

One adversarial step serves AdvEnt, DADA, DAF and IDA: they differ in the map that they hand to the discriminator.
The loop, not the step, owns schedules, optimizers, logging and snapshots.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from advent.model.precision import autocast
from advent.runtime import distributed
from advent.utils.loss import SOURCE_LABEL, TARGET_LABEL, bce_loss, cross_entropy_2d, entropy_loss, self_information

Losses = dict[str, Tensor]
Batch = Mapping[str, Tensor]


class Prediction(NamedTuple):
    """What a network says of a batch: logits (B, C, h, w), depth (B, 1, h', w'); None where it has no such head."""

    aux: Tensor | None
    main: Tensor
    depth: Tensor | None = None

    def each(self, change: Callable[[Tensor], Tensor]) -> Prediction:
        """The same prediction with `change` applied to every output that there is."""
        aux, depth = (None if x is None else change(x) for x in (self.aux, self.depth))
        return Prediction(aux, change(self.main), depth)


MapFunction = Callable[[Tensor, "Tensor | None"], Tensor]
Supervised = Callable[[Prediction, Batch], Losses]


def information_map(logits: Tensor, depth: Tensor | None) -> Tensor:
    """AdvEnt's map: self-information alone, (B, C, H, W); the depth is not used."""
    return self_information(logits.softmax(1))


def segmentation_losses(prediction: Prediction, batch: Batch) -> Losses:
    """Cross entropy of main (and auxiliary) logits, at label size, against `batch["label"]` (B, H, W)."""
    count = batch.get("label_count")
    losses = {"seg": cross_entropy_2d(prediction.main, batch["label"], count)}
    if prediction.aux is not None:
        losses["seg_aux"] = cross_entropy_2d(prediction.aux, batch["label"], count)
    return losses


@dataclass(frozen=True)
class GlobalMaxLoss:
    """Supervised losses that also depend on a maximum over the whole batch, of which a process may hold a part.

    `maximum` finds a part's; `losses` takes the whole batch's from the entry `global_key`, else its own batch's. Only
    batches with the entry `key` have one.
    """

    losses: Supervised
    maximum: Callable[[Prediction, Batch], Tensor]
    key: str
    global_key: str

    def needs_global_max(self, batch: Batch) -> bool:
        """Whether the maximum over the whole batch is wanted and not yet known."""
        return self.key in batch and self.global_key not in batch

    def __call__(self, prediction: Prediction, batch: Batch) -> Losses:
        """The losses; of several processes, by the greatest of their maxima."""
        if distributed.world_size() > 1 and self.needs_global_max(batch):
            batch = {**batch, self.global_key: distributed.all_reduce_max(self.maximum(prediction, batch))}
        return self.losses(prediction, batch)


@dataclass(frozen=True)
class Method:
    """What one adaptation method is: a step, and what that step is told.

    `half_disc_loss`: each domain's discriminator loss counts half (AdvEnt, IDA) or in full (DADA, DAF).
    `include_last_iter`: iterations run 0..EARLY_STOP, not 0..EARLY_STOP-1. `needs_depth`: only for networks with a depth head.
    """

    name: str
    step: Step
    source_map: MapFunction | None = None
    target_map: MapFunction | None = None
    half_disc_loss: bool = False
    include_last_iter: bool = False
    needs_depth: bool = False
    multi_level: bool = False

    @property
    def adversarial(self) -> bool:
        """Whether the method trains a discriminator."""
        return self.target_map is not None

    @property
    def uses_target(self) -> bool:
        """Whether the method looks at unlabelled target images."""
        return self.step is not supervised_step


@dataclass
class StepContext:
    """The networks that a step works on, and how.

    `weights`: loss name -> lambda, losses without one count 1. `scale` is applied to whatever `backward` is called on
    (loss scaling of float16).
    """

    net: nn.Module
    method: Method
    supervised: Supervised = segmentation_losses
    discriminators: nn.ModuleDict = field(default_factory=nn.ModuleDict)
    weights: Mapping[str, float] = field(default_factory=dict)
    amp_dtype: torch.dtype | None = None
    scale: Callable[[Tensor], Tensor] = lambda loss: loss

    def predict(self, images: Tensor) -> Prediction:
        """Forward pass (reduced precision where asked for), every output resized to the images, in full precision."""
        with autocast(images.device, self.amp_dtype):
            outputs = self.net(images)
        return Prediction(*outputs).each(lambda x: self._at_size(x, images))

    def discriminate(self, level: str, domain_map: Tensor) -> Tensor:
        """Domain logits of a map, in the map's precision."""
        with autocast(domain_map.device, self.amp_dtype):
            return self.discriminators[level](domain_map).to(domain_map.dtype)

    def weighted(self, losses: Losses) -> Tensor:
        """The weighted sum of named losses."""
        return torch.stack([self.weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum()

    def _at_size(self, x: Tensor, images: Tensor) -> Tensor:
        x = x.to(images.dtype)
        size = images.shape[-2:]
        return x if x.shape[-2:] == size else functional.interpolate(x, size=size, mode="bilinear", align_corners=True)


Step = Callable[[StepContext, Batch, "Batch | None"], Losses]


def supervised_backward(context: StepContext, source: Batch) -> tuple[Losses, Prediction]:
    """Supervised forward and backward on labelled data; returns detached losses and predictions."""
    prediction = context.predict(source["image"])
    losses = context.supervised(prediction, source)
    context.scale(context.weighted(losses)).backward()
    return detached(losses), prediction.each(Tensor.detach)


def supervised_step(context: StepContext, source: Batch, target: Batch | None = None) -> Losses:
    """Source-only training, and self-learning with pseudo labels in place of labels."""
    return supervised_backward(context, source)[0]


# For networks that only predict: whichever method trained them, TRAIN.DA_METHOD need not fit them here.
PREDICT = Method("predict", supervised_step)


def entropy_step(context: StepContext, source: Batch, target: Batch | None) -> Losses:
    """MinEnt: source supervision plus minimal entropy of the target's predictions."""
    assert target is not None
    losses, _ = supervised_backward(context, source)
    prediction = context.predict(target["image"])
    entropies = {"ent": entropy_loss(prediction.main.softmax(1))}
    if prediction.aux is not None:
        entropies["ent_aux"] = entropy_loss(prediction.aux.softmax(1))
    context.scale(context.weighted(entropies)).backward()
    return losses | detached(entropies)


def adversarial_step(context: StepContext, source: Batch, target: Batch | None) -> Losses:
    """Source supervision, a target that should look like source, and a discriminator that tells them apart."""
    assert target is not None
    losses, on_source = supervised_backward(context, source)
    source_maps = domain_maps(on_source, context.method.source_map)
    del on_source  # the maps are kept over the target's pass, the logits need not be
    on_target = context.predict(target["image"])
    target_maps = domain_maps(on_target, context.method.target_map)
    gradients = []
    for level, target_map in target_maps.items():
        suffix = "" if level == "main" else f"_{level}"
        level_losses, gradient = discriminator_step(context, level, source_maps[level], target_map)
        losses |= {name + suffix: loss for name, loss in level_losses.items()}
        gradients.append(gradient)
    torch.autograd.backward(list(target_maps.values()), gradients)
    return losses


def discriminator_step(
    context: StepContext, level: str, source_map: Tensor, target_map: Tensor
) -> tuple[Losses, Tensor]:
    """Both sides of the game on one pair of maps (B, C, H, W).

    The discriminator judges the target map once: its one graph yields the generator's gradient with respect to the
    map (returned, for the network's backward pass) and the discriminator's own gradients (left on its parameters).
    """
    discriminator = context.discriminators[level]
    leaf = target_map.detach().requires_grad_()
    domain_logits = context.discriminate(level, leaf)
    adversarial = bce_loss(domain_logits, SOURCE_LABEL)
    weight = context.weights.get("adv" if level == "main" else f"adv_{level}", 1.0)
    (gradient,) = torch.autograd.grad(context.scale(weight * adversarial), leaf, retain_graph=True)
    share = 0.5 if context.method.half_disc_loss else 1.0
    on_target = share * bce_loss(domain_logits, TARGET_LABEL)
    context.scale(on_target).backward(inputs=list(discriminator.parameters()))
    on_source = share * bce_loss(context.discriminate(level, source_map), SOURCE_LABEL)
    context.scale(on_source).backward()
    return detached({"adv": adversarial, "d_source": on_source, "d_target": on_target}), gradient


def domain_maps(prediction: Prediction, to_map: MapFunction | None) -> dict[str, Tensor]:
    """The map of each level that the network predicts: `main`, and `aux` when it is multi-level."""
    assert to_map is not None
    levels = {"main": prediction.main, "aux": prediction.aux}
    return {level: to_map(logits, prediction.depth) for level, logits in levels.items() if logits is not None}


def detached(losses: Losses) -> Losses:
    """The same losses without their graphs; still on the device."""
    return {name: loss.detach() for name, loss in losses.items()}
