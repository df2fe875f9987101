"""State of self-training: the EMA teacher with its batch-norm statistics, and the statistics that depth needs."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from advent.config.schema import Config
from advent.methods.steps import Batch, MethodState, NetworkOutputs, StepContext
from advent.model.batch_norm import batch_norms
from daf import guidance, mixing
from daf.class_thresholds import class_thresholds, probability_counts
from daf.loss import LEAST_INVERSE

GROUND = ("road", "flat")  # class on which the depths of both domains are aligned
BANK = 32  # depth maps of earlier target images, of which the control `permuted` draws one
BANK_SIZE = (60, 80)
PRIOR_DECAY = 0.999
PRIOR_PIXELS = 10_000
MEAN_DECAY = 0.99
CONFIDENCE_BINS = 100
CONFIDENCE_DECAY = 0.98


class SelfTrainingState(MethodState):
    """The teacher, the depth statistics, and the settings.

    `first`: iteration of the first pseudo labels. `ground`: train id of the class that aligns depths, or None.
    """

    def __init__(self, config: Config, net: nn.Module) -> None:
        super().__init__()
        self.settings, self.depth, self.seed = config.SELF_TRAINING, config.DEPTH, config.TRAIN.RANDOM_SEED
        self.num_classes, self.mean = config.NUM_CLASSES, config.TRAIN.IMG_MEAN
        names = getattr(config.CLASSES, "names", [])
        self.ground = next((names.index(name) for name in GROUND if name in names), None)
        own_statistics = self.settings.TEACHER_STATISTICS == "target"
        self.first = max(self.settings.START, self.settings.STATISTICS_PASSES if own_statistics else 0)
        self.teacher = copy.deepcopy(net).requires_grad_(False)
        if self.depth.PRIOR:
            self.register_buffer("class_counts", torch.zeros(guidance.BINS, self.num_classes))
        if self.settings.CLASS_SHARE:
            self.register_buffer("confidences", torch.zeros(self.num_classes, CONFIDENCE_BINS))
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
        # PyTorch's own: one kernel for all parameters.
        get_ema_multi_avg_fn(decay)(list(self.teacher.parameters()), list(net.parameters()), None)

    def scored(self, net: nn.Module) -> nn.Module:
        """SELF_TRAINING.SCORED."""
        return self.teacher if self.settings.SCORED == "teacher" else net

    @torch.no_grad()
    def predict(self, context: StepContext, images: Tensor) -> NetworkOutputs:
        """The teacher's outputs on clean images. Dropout is off; batch norms use what TEACHER_STATISTICS says."""
        self.teacher.eval()
        if self.settings.TEACHER_STATISTICS == "batch":
            for norm in batch_norms(self.teacher):
                norm.training = context.net.training
        return context.predict_with(self.teacher, images)

    @torch.no_grad()
    def move_statistics(self, context: StepContext, images: Tensor) -> None:
        """A pass over target images that moves the teacher's running statistics; the first ones form a plain mean."""
        passes = context.iteration - (self.first - self.settings.STATISTICS_PASSES)
        if self.settings.TEACHER_STATISTICS != "target" or passes < 0 or not context.net.training:
            return
        self.teacher.eval()
        for norm in batch_norms(self.teacher):
            norm.training = True  # not norm.train(): timm's norms contain dropout
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
            # Where a file knows no depth (0), the teacher's stands in.
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

    def threshold(self) -> float | Tensor:
        """SELF_TRAINING.THRESHOLD, or with CLASS_SHARE class-wise thresholds (C,) from the labels seen so far."""
        if not self.settings.CLASS_SHARE:
            return self.settings.THRESHOLD
        return class_thresholds(self.get_buffer("confidences"), self.settings.THRESHOLD, self.settings.CLASS_SHARE)

    @torch.no_grad()
    def learn_confidence(self, probability: Tensor, label: Tensor) -> None:
        """Count the probabilities (B, H, W) of the labels (B, H, W), as shares of the batch's pixels."""
        if self.settings.CLASS_SHARE:
            counts = probability_counts(probability, label, self.num_classes, CONFIDENCE_BINS) / label.numel()
            self.get_buffer("confidences").mul_(CONFIDENCE_DECAY).add_(counts)

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
