"""Self-training with an EMA teacher (DACS, DAFormer, MIC), guided by depth where the DEPTH keys ask for it.

One iteration: the teacher follows the student; the student learns from source labels; the teacher labels the target;
the student learns from a mix of both images, and from the masked target. All random numbers of a sample depend on the
seed and on its position in the data stream, so neither resuming nor the number of processes changes them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from advent.config.schema import Config
from advent.dataset.augment import strong_augmentation
from advent.errors import ConfigError
from advent.evaluation.batch_norm import BATCH_NORMS
from advent.methods.registry import find_network
from advent.methods.steps import (
    Batch,
    Losses,
    Method,
    MethodState,
    NetworkOutputs,
    StepContext,
    align,
    detached,
    domain_maps,
    information_map,
    supervised_backward,
)
from advent.runtime import distributed
from daf import guidance, mixing
from daf.interaction import depth_aware_map
from daf.loss import LEAST_INVERSE

GROUND = ("road", "flat")  # class on which the depths of both domains are aligned
BANK = 32  # depth maps of earlier target images, of which the control `permuted` draws one
BANK_SIZE = (60, 80)
PRIOR_DECAY = 0.999
PRIOR_PIXELS = 10_000
MEAN_DECAY = 0.99


class SelfTraining(MethodState):
    """The teacher, the depth statistics, and the settings. `seed`: TRAIN.RANDOM_SEED. `ground`: train id or None."""

    def __init__(self, config: Config, net: nn.Module) -> None:
        super().__init__()
        self.settings, self.depth, self.seed = config.SELF_TRAINING, config.DEPTH, config.TRAIN.RANDOM_SEED
        self.num_classes, self.mean = config.NUM_CLASSES, config.TRAIN.IMG_MEAN
        names = getattr(config.CLASSES, "names", [])
        self.ground = next((names.index(name) for name in GROUND if name in names), None)
        own_statistics = self.settings.TEACHER_STATISTICS == "target"
        self.first = max(self.settings.START, self.settings.STATISTICS_PASSES if own_statistics else 0)
        self.teacher = copy.deepcopy(net).requires_grad_(False)
        self._average = get_ema_multi_avg_fn  # of a decay; PyTorch's own, one kernel for all parameters
        if self.depth.PRIOR:
            self.register_buffer("class_counts", torch.zeros(guidance.BINS, self.num_classes))
        if self.depth.TARGET in ("mean", "permuted"):
            count = BANK if self.depth.TARGET == "permuted" else 1
            self.register_buffer("depth_maps", torch.full((count, *BANK_SIZE), LEAST_INVERSE).log())

    def begin(self, net: nn.Module, iteration: int) -> None:
        """The teacher takes the student's weights up to the first label, then follows it by the moving average."""
        done = iteration - self.first
        if done <= 0:
            with torch.no_grad():
                for mine, theirs in zip(self.teacher.parameters(), net.parameters(), strict=True):
                    mine.copy_(theirs)
            if self.settings.TEACHER_STATISTICS == "batch" or done <= -self.settings.STATISTICS_PASSES:
                self._copy_buffers(net)
            return
        decay = min(1 - 1 / (done + 1), self.settings.ALPHA)
        self._average(decay)(list(self.teacher.parameters()), list(net.parameters()), None)

    def scored(self, net: nn.Module) -> nn.Module:
        """SELF_TRAINING.SCORED."""
        return self.teacher if self.settings.SCORED == "teacher" else net

    @torch.no_grad()
    def predict(self, context: StepContext, images: Tensor) -> NetworkOutputs:
        """The teacher's outputs on clean images. Dropout is off; batch norms use what TEACHER_STATISTICS says."""
        self.teacher.eval()
        if self.settings.TEACHER_STATISTICS == "batch":
            for norm in batch_norms(self.teacher):
                norm.train(context.net.training)
        return context.predict_with(self.teacher, images)

    @torch.no_grad()
    def move_statistics(self, context: StepContext, images: Tensor) -> None:
        """A pass over target images that moves the teacher's running statistics; the first ones form a plain mean."""
        passes = context.iteration - (self.first - self.settings.STATISTICS_PASSES)
        if self.settings.TEACHER_STATISTICS != "target" or passes < 0 or not context.net.training:
            return
        self.teacher.eval()
        for norm in batch_norms(self.teacher):
            norm.train()
            norm.momentum = max(self.settings.STATISTICS_MOMENTUM, 1 / (passes + 1))
        context.predict_with(self.teacher, images)
        self.teacher.eval()

    def target_depth(self, predicted: Tensor, target: Batch, positions: Tensor) -> Tensor:
        """Log inverse depth (B, H, W) of the target images, as DEPTH.TARGET says; `predicted`: (B, 1, H, W)."""
        own = guidance.log_depth(predicted[:, 0])
        kind = self.depth.TARGET
        if kind == "predicted":
            return own
        if kind == "constant":
            return torch.full_like(own, LEAST_INVERSE).log()
        if kind == "file":
            return torch.where(target["depth"] > 0, guidance.log_depth(target["depth"]), own)
        maps = self.get_buffer("depth_maps")
        small = nn.functional.interpolate(own[:, None], size=BANK_SIZE, mode="area")[:, 0]
        if kind == "mean":
            chosen = maps.expand(len(own), -1, -1).clone()
            maps.lerp_(small.mean(0, keepdim=True), 1 - MEAN_DECAY)
        else:
            draws = mixing.uniform(self.seed, positions, "other_depth", (), own.device)
            chosen = maps[(draws * BANK).long()]
            maps.copy_(torch.cat([small, maps])[:BANK])
        return nn.functional.interpolate(chosen[:, None], size=own.shape[1:], mode="bilinear")[:, 0]

    @torch.no_grad()
    def learn_prior(self, source: Batch) -> None:
        """Count the source's classes in each depth bin, as if a batch had PRIOR_PIXELS pixels."""
        if self.depth.PRIOR and "depth" in source:
            logs = guidance.log_depth(source["depth"])
            counts = guidance.class_counts(source["label"], logs, self.num_classes, source.get("depth_known"))
            # A fixed total makes the mean over micro-batches equal to the count of the whole batch.
            counts *= PRIOR_PIXELS / logs.numel()
            self.get_buffer("class_counts").mul_(PRIOR_DECAY).add_(counts)

    def _copy_buffers(self, net: nn.Module) -> None:
        with torch.no_grad():
            for mine, theirs in zip(self.teacher.buffers(), net.buffers(), strict=True):
                mine.copy_(theirs)


def batch_norms(net: nn.Module) -> list[nn.BatchNorm2d | nn.SyncBatchNorm]:
    """The batch norms of a network; it may have none."""
    return [part for part in net.modules() if isinstance(part, BATCH_NORMS)]


@contextmanager
def kept_statistics(net: nn.Module) -> Iterator[None]:
    """Within it, a pass in train mode does not move the running statistics of batch norms."""
    norms = batch_norms(net)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def self_training_step(context: StepContext, source: Batch, target: Batch | None) -> Losses:
    """One step of self-training (above). It adds the mean weight `pseudo`, `mix`, `mask`, `mix_depth`, `mask_depth`."""
    assert target is not None
    assert isinstance(context.state, SelfTraining)
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


class PseudoLabels:
    """Labels (B, H, W) int64, weights (B, H, W), and log inverse depth (B, H, W) or None of a target batch."""

    def __init__(self, label: Tensor, weight: Tensor, depth: Tensor | None) -> None:
        self.label, self.weight, self.depth = label, weight, depth


@torch.no_grad()
def label_target(context: StepContext, target: Batch, positions: Tensor) -> PseudoLabels:
    """The teacher's labels of a target batch, their weights, and the target's depth."""
    state = context.state
    assert isinstance(state, SelfTraining)
    settings = state.settings
    prediction = state.predict(context, target["image"])
    probabilities = prediction.main.softmax(1)
    depth = None if prediction.depth is None else state.target_depth(prediction.depth, target, positions)
    if state.depth.PRIOR and depth is not None:
        probabilities = guidance.with_prior(probabilities, depth, state.get_buffer("class_counts"), state.depth.PRIOR)
    probability, label = probabilities.max(1)
    weight = mixing.pseudo_weight(probability, label, settings.THRESHOLD, settings.WEIGHT, state.num_classes)
    return PseudoLabels(label, mixing.ignored_rows(weight, settings.IGNORE_TOP, settings.IGNORE_BOTTOM), depth)


def _mixed(context: StepContext, source: Batch, target: Batch, labels: PseudoLabels, positions: Tensor) -> Losses:
    """The student's pass on the mixed images."""
    state = context.state
    assert isinstance(state, SelfTraining)
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
def paste_mask(state: SelfTraining, source: Batch, labels: PseudoLabels, positions: Tensor) -> Tensor:
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
    assert isinstance(state, SelfTraining)
    settings, image = state.settings, target["image"]
    size_hw = image.shape[-2:]
    if settings.STRONG:
        image = strong_augmentation(image, positions, state.seed, state.mean, "masked")
    grid = mixing.grid_size(size_hw, settings.MASK_BLOCK)
    draws = mixing.uniform(state.seed, positions, "visible_blocks", grid, image.device)
    visible = mixing.block_mask(draws, settings.MASK_RATIO, settings.MASK_BLOCK, size_hw)
    with kept_statistics(context.net):
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


def _names(state: SelfTraining) -> list[str]:
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
        state=partial(SelfTraining, config),
    )


def _depth_map(logits: Tensor, depth: Tensor | None) -> Tensor:
    assert depth is not None
    return depth_aware_map(logits, depth)
