"""Straightforward DAF iteration and scoring loop, as baselines for speed and a check of equal results."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from advent.model.deeplabv2 import SegmentationNetwork
from advent.training.optim import update_multiplicity
from performance.networks import Bench


class Straightforward:
    """One DAF iteration in fp32 on a copy of a setup's networks, in PyTorch's default memory format.

    Cross entropy gathers the valid pixels. The discriminator runs twice on the target's map. Every weight is updated
    separately, as often as the optimizer of the authors' code lists it. Losses are fetched every iteration.
    """

    def __init__(self, setup: Bench) -> None:
        self.setup, self.train = setup, setup.config.TRAIN
        net = copy.deepcopy(setup.learner.net)
        assert isinstance(net, SegmentationNetwork)
        self.net = net.to(memory_format=torch.contiguous_format)
        self.discriminator = copy.deepcopy(setup.learner.context.discriminators["main"])
        backbone = [(p, update_multiplicity(name), 1.0) for name, p in net.backbone_parameters()]
        heads = [(p, 1, self.train.HEAD_RATE) for _, p in net.head_parameters()]
        self.updates = [*backbone, *heads]
        self.momentum = {p: torch.zeros_like(p) for p, _, _ in self.updates}
        self.adam = torch.optim.Adam(self.discriminator.parameters(), lr=1e-4, betas=(0.9, 0.99), foreach=False)

    def step(self) -> list[float]:
        """One iteration; returns the losses as floats."""
        train, source, target = self.train, self.setup.source, self.setup.target
        for module in (self.net, self.discriminator):
            module.zero_grad()
        logits, depth = self._predict(source["image"])
        seg = _cross_entropy(logits, source["label"])
        error = (depth[:, 0] - source["depth"]).abs()
        bound = 0.2 * error.max().item()
        berhu = torch.where(error <= bound, error, (error**2 + bound**2) / (2 * bound)).mean()
        (train.LAMBDA_SEG_MAIN * seg + train.LAMBDA_DEPTH_MAIN * berhu).backward()
        source_map = _map(logits.detach(), depth.detach())
        logits, depth = self._predict(target["image"])
        target_map = _map(logits, depth)
        for parameter in self.discriminator.parameters():
            parameter.requires_grad_(False)
        adversarial = _bce(self.discriminator(target_map), 0)
        (train.LAMBDA_ADV_MAIN * adversarial).backward()
        for parameter in self.discriminator.parameters():
            parameter.requires_grad_(True)
        on_source = _bce(self.discriminator(source_map), 0)
        on_source.backward()
        on_target = _bce(self.discriminator(target_map.detach()), 1)
        on_target.backward()
        self._update()
        self.adam.step()
        return [loss.item() for loss in (seg, berhu, adversarial, on_source, on_target)]

    def _predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.net(images.contiguous())[1:]
        resize = nn.Upsample(tuple(images.shape[-2:]), mode="bilinear", align_corners=True)
        return resize(outputs[0]), resize(outputs[1])

    @torch.no_grad()
    def _update(self) -> None:
        rate, decay, momentum = self.train.LEARNING_RATE, self.train.WEIGHT_DECAY, self.train.MOMENTUM
        for parameter, times, scale in self.updates:
            if parameter.grad is None:
                continue
            for _ in range(times):
                buffer = self.momentum[parameter]
                buffer.mul_(momentum).add_(parameter.grad + decay * parameter)
                parameter.sub_(scale * rate * buffer)


class StraightforwardScoring:
    """Scoring of one image in fp32, in PyTorch's default memory format, with a copy of a network.

    The logits of all classes are upsampled to the label's size and copied to NumPy; argmax and histogram follow there.
    """

    def __init__(self, net: SegmentationNetwork, num_classes: int) -> None:
        self.net = copy.deepcopy(net).to(memory_format=torch.contiguous_format).eval()
        self.num_classes = num_classes

    @torch.no_grad()
    def __call__(self, image: Tensor, label: Tensor) -> np.ndarray:
        """Confusion matrix (C, C) int64 of an image (1, 3, h, w) with its label (H, W) uint8, 255 ignored."""
        logits = self.net(image.contiguous())[1]
        resize = nn.Upsample(tuple(label.shape), mode="bilinear", align_corners=True)
        prediction = resize(logits)[0].cpu().numpy().transpose(1, 2, 0).argmax(2)
        truth = label.cpu().numpy()
        known = truth < self.num_classes
        cells = self.num_classes * truth[known].astype(int) + prediction[known]
        return np.bincount(cells, minlength=self.num_classes**2).reshape(self.num_classes, self.num_classes)


def _cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    valid = (label >= 0) & (label != 255)
    classes = logits.shape[1]
    rows = logits.transpose(1, 2).transpose(2, 3).contiguous()
    chosen = rows[valid.view(*label.shape, 1).repeat(1, 1, 1, classes)].view(-1, classes)
    return functional.cross_entropy(chosen, label[valid].long())


def _map(logits: Tensor, depth: Tensor) -> Tensor:
    probs = functional.softmax(logits, 1)
    return -probs * torch.log2(probs + 1e-30) / torch.log2(torch.tensor(float(logits.shape[1]))).item() * depth


def _bce(domain_logits: Tensor, label: int) -> Tensor:
    return functional.binary_cross_entropy_with_logits(domain_logits, torch.full_like(domain_logits, float(label)))
