"""Training steps of all methods: forward and backward passes on batches, returning named losses.

A step leaves gradients on the parameters. AdvEnt, DADA, DAF and IDA share one adversarial step: they differ in the map
that the discriminator receives. The trainer, not the step, owns schedules, optimizers, logging and snapshots.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from advent.model.outputs import NetworkOutputs, forward_at_input_size
from advent.model.precision import autocast
from advent.runtime import distributed
from advent.utils.deprecation import deprecated_names
from advent.utils.loss import SOURCE_LABEL, TARGET_LABEL, bce_loss, cross_entropy_2d, entropy_loss, self_information

Losses = dict[str, Tensor]
Batch = Mapping[str, Tensor]


MapFunction = Callable[[Tensor, "Tensor | None"], Tensor]
Supervised = Callable[[NetworkOutputs, Batch], Losses]


def information_map(logits: Tensor, depth: Tensor | None) -> Tensor:
    """AdvEnt's map: self-information, (B, C, H, W); depth is not used."""
    return self_information(logits.softmax(1))


def segmentation_losses(prediction: NetworkOutputs, batch: Batch) -> Losses:
    """Cross entropy of main (and auxiliary) logits against `batch["label"]`, (B, H, W), at label size."""
    count = batch.get("label_count")
    losses = {"seg": cross_entropy_2d(prediction.main, batch["label"], count)}
    if prediction.aux is not None:
        losses["seg_aux"] = cross_entropy_2d(prediction.aux, batch["label"], count)
    return losses


@dataclass(frozen=True)
class GlobalMaxLoss:
    """Supervised losses that depend on a maximum over the whole batch, of which one process may hold a part.

    `maximum` computes the maximum of a part. `losses` reads the global maximum from the batch entry `global_key`, or
    computes it from its own batch if the entry is missing. Only batches with the entry `key` have a maximum.
    """

    losses: Supervised
    maximum: Callable[[NetworkOutputs, Batch], Tensor]
    key: str
    global_key: str

    def needs_global_max(self, batch: Batch) -> bool:
        """Whether the batch has a maximum and its global value is not yet stored."""
        return self.key in batch and self.global_key not in batch

    def __call__(self, prediction: NetworkOutputs, batch: Batch) -> Losses:
        """The losses; with several processes, computed with the maximum over all of them."""
        if distributed.world_size() > 1 and self.needs_global_max(batch):
            batch = {**batch, self.global_key: distributed.all_reduce_max(self.maximum(prediction, batch))}
        return self.losses(prediction, batch)


class MethodState(nn.Module):
    """What a method keeps beside the network: parameters and buffers, saved with the run's resume state.

    Its buffers are averaged over micro-batches and processes as batch-norm statistics are, and restored when an
    iteration is skipped.
    """

    def begin(self, net: nn.Module, iteration: int) -> None:
        """Called once before an iteration's step, with the network under training."""

    def scored(self, net: nn.Module) -> nn.Module:
        """The network that checkpoints hold and evaluations score."""
        return net


@dataclass(frozen=True)
class Method:
    """An adaptation method: its step and the settings that the step reads.

    `source_map`, `target_map`: the discriminator's input of each domain; None for methods without a discriminator.
    `half_disc_loss`: each domain's discriminator loss is halved (AdvEnt, IDA) or not (DADA, DAF).
    `include_last_iter`: iterations run 0..EARLY_STOP instead of 0..EARLY_STOP-1.
    `needs_depth`: requires a network with a depth head. `multi_level`: trains the auxiliary output.
    `state`: makes what the method keeps beside the network (a teacher), from the network under training.
    """

    name: str
    step: Step
    source_map: MapFunction | None = None
    target_map: MapFunction | None = None
    half_disc_loss: bool = False
    include_last_iter: bool = False
    needs_depth: bool = False
    multi_level: bool = False
    state: Callable[[nn.Module], MethodState] | None = None

    @property
    def adversarial(self) -> bool:
        """Whether the method trains a discriminator."""
        return self.target_map is not None

    @property
    def uses_target(self) -> bool:
        """Whether the method uses unlabelled target images."""
        return self.step is not supervised_step


@dataclass
class StepContext:
    """Networks, loss weights and precision of a training step.

    `weights`: loss name -> lambda; a loss without an entry has weight 1. `scale` is applied to every loss before
    `backward` (float16 loss scaling). `amp_dtype`: autocast type, None for full precision. `state`: what the method
    keeps beside the network, if anything. `iteration`: the current one.
    """

    net: nn.Module
    method: Method
    supervised: Supervised = segmentation_losses
    discriminators: nn.ModuleDict = field(default_factory=nn.ModuleDict)
    weights: Mapping[str, float] = field(default_factory=dict)
    amp_dtype: torch.dtype | None = None
    scale: Callable[[Tensor], Tensor] = lambda loss: loss
    state: MethodState | None = None
    iteration: int = 0

    def predict(self, images: Tensor) -> NetworkOutputs:
        """Forward pass under autocast (`amp_dtype`); outputs are resized to the images and cast to their precision."""
        return self.predict_with(self.net, images)

    def predict_with(self, net: nn.Module, images: Tensor) -> NetworkOutputs:
        """`predict` with another network, such as a teacher."""
        return forward_at_input_size(net, images, self.amp_dtype)

    def discriminate(self, level: str, domain_map: Tensor) -> Tensor:
        """The discriminator's domain logits of a map, in the map's precision."""
        with autocast(domain_map.device, self.amp_dtype):
            return self.discriminators[level](domain_map).to(domain_map.dtype)

    def weighted(self, losses: Losses) -> Tensor:
        """The weighted sum of named losses."""
        return torch.stack([self.weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum()


Step = Callable[[StepContext, Batch, "Batch | None"], Losses]


def supervised_backward(context: StepContext, source: Batch) -> tuple[Losses, NetworkOutputs]:
    """Supervised forward and backward pass on labelled data; returns detached losses and predictions."""
    prediction = context.predict(source["image"])
    losses = context.supervised(prediction, source)
    context.scale(context.weighted(losses)).backward()
    return detached(losses), prediction.each(Tensor.detach)


def supervised_step(context: StepContext, source: Batch, target: Batch | None = None) -> Losses:
    """Supervised step: source-only training, or self-training on pseudo labels."""
    return supervised_backward(context, source)[0]


def entropy_step(context: StepContext, source: Batch, target: Batch | None) -> Losses:
    """MinEnt step: source supervision plus entropy minimisation on target predictions."""
    assert target is not None
    losses, _ = supervised_backward(context, source)
    prediction = context.predict(target["image"])
    entropies = {"ent": entropy_loss(prediction.main.softmax(1))}
    if prediction.aux is not None:
        entropies["ent_aux"] = entropy_loss(prediction.aux.softmax(1))
    context.scale(context.weighted(entropies)).backward()
    return losses | detached(entropies)


def adversarial_step(context: StepContext, source: Batch, target: Batch | None) -> Losses:
    """Adversarial step: source supervision, generator loss on the target, and discriminator losses on both domains."""
    assert target is not None
    losses, on_source = supervised_backward(context, source)
    source_maps = domain_maps(on_source, context.method.source_map)
    del on_source  # frees the logits before the target's pass; only the maps are needed
    return losses | align(context, source_maps, target["image"])


def align(context: StepContext, source_maps: Mapping[str, Tensor], target_images: Tensor) -> Losses:
    """The adversarial losses of both domains' maps, and their gradients on network and discriminators."""
    losses: Losses = {}
    target_maps = domain_maps(context.predict(target_images), context.method.target_map)
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
    """Generator and discriminator losses on one pair of maps (B, C, H, W).

    The discriminator processes the target map once. Its graph gives the generator's gradient with respect to the map
    (returned, for the network's backward pass) and the discriminator's own gradients (left on its parameters).
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
    penalty_weight = context.weights.get("d_r1", 0.0)
    if penalty_weight:
        source_map = source_map.detach().requires_grad_()
    source_logits = context.discriminate(level, source_map)
    on_source = share * bce_loss(source_logits, SOURCE_LABEL)
    losses = {"adv": adversarial, "d_source": on_source, "d_target": on_target}
    if penalty_weight:
        losses["d_r1"] = gradient_penalty(source_logits, source_map)
        on_source = on_source + penalty_weight * losses["d_r1"]
    context.scale(on_source).backward(inputs=list(discriminator.parameters()))
    return detached(losses), gradient


def gradient_penalty(domain_logits: Tensor, domain_map: Tensor) -> Tensor:
    """R1: half the squared norm of the gradient of an image's mean domain logit, mean over the images (B, ...).

    Mescheder et al., Which Training Methods for GANs do actually Converge?, ICML 2018. Keeps its graph.
    """
    mean_logits = domain_logits.flatten(1).mean(1).sum()
    (gradient,) = torch.autograd.grad(mean_logits, domain_map, create_graph=True)
    return gradient.flatten(1).square().sum(1).mean() / 2


def domain_maps(prediction: NetworkOutputs, to_map: MapFunction | None) -> dict[str, Tensor]:
    """The discriminator input of each output level: `main`, and `aux` if the network is multi-level."""
    assert to_map is not None
    levels = {"main": prediction.main, "aux": prediction.aux}
    return {level: to_map(logits, prediction.depth) for level, logits in levels.items() if logits is not None}


def detached(losses: Losses) -> Losses:
    """The losses detached from their graphs; they stay on the device."""
    return {name: loss.detach() for name, loss in losses.items()}


__getattr__ = deprecated_names(__name__, {"Prediction": "NetworkOutputs"})
