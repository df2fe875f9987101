"""Benchmark setup: a network in training (low protocol: full ResNet-101, 640x320), and the parts of its step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode  # documented; PyTorch has no other name for it
from torch.utils.flop_counter import FlopCounterMode

from advent.build import build_encoder
from advent.config.loading import load_config
from advent.config.schema import Config
from advent.methods.registry import find_method, find_network
from advent.methods.steps import Batch, Method
from advent.model.deeplabv2 import SegmentationNetwork, initialise
from advent.model.outputs import NetworkOutputs, forward, forward_at_input_size
from advent.training.learner import Learner


@dataclass
class Bench:
    """A learner and one batch of each domain.

    `iteration`: that of the steps. Self-training begins with steps on the source alone; then the teacher follows the
    student from the second one on. So its steps are taken to be the second one with pseudo labels.
    """

    config: Config
    learner: Learner
    source: Batch
    target: Batch
    device: torch.device
    iteration: int = 0
    _gradients: list[Tensor] = field(default_factory=list)
    _outputs: list[Tensor] = field(default_factory=list)

    def step(self) -> object:
        """One complete iteration."""
        return self.learner.update(self.iteration, self.source, self.target)

    def passes(self) -> None:
        """Only the network's two passes, forward and backward from given output gradients."""
        context = self.learner.context
        for batch in (self.source, self.target):
            outputs = [x for x in forward(context.net, batch["image"], context.amp_dtype) if x is not None]
            torch.autograd.backward(outputs, [torch.ones_like(x) for x in outputs])
        for parameter in self.learner.net.parameters():
            parameter.grad = None

    def overhead(self) -> None:
        """An iteration with precomputed network outputs: everything in a step except the network's passes."""
        context, net = self.learner.context, self.learner.net
        parameters = [p for p in net.parameters() if p.requires_grad]
        if not self._gradients:
            self._gradients = [torch.full_like(p, 1e-6) for p in parameters]
            with torch.no_grad():
                outputs = net(self.source["image"])
            self._outputs = [x.requires_grad_() for x in outputs[1:]]

        def fill() -> None:
            for parameter, gradient in zip(parameters, self._gradients, strict=True):
                parameter.grad = gradient

        stub = _PrecomputedNet(self._outputs, fill)

        def predict(_: nn.Module, images: Tensor) -> NetworkOutputs:
            return forward_at_input_size(stub, images, context.amp_dtype)

        context.predict_with = predict  # type: ignore[assignment, method-assign]  # of the network and of a teacher
        try:
            self.step()
        finally:
            del context.predict_with  # type: ignore[method-assign]

    def discriminator(self) -> None:
        """The discriminator's part of a step: two forward and three backward passes."""
        context = self.learner.context
        size = self.target["image"].shape[-2:]
        maps = torch.rand(1, self.config.NUM_CLASSES, *size, device=self.device)
        leaf = maps.requires_grad_()
        parameters = list(context.discriminators.parameters())
        domain_logits = context.discriminate("main", leaf)
        torch.autograd.grad(domain_logits.sum(), leaf, retain_graph=True)
        domain_logits.sum().backward(inputs=parameters)
        context.discriminate("main", maps.detach()).sum().backward()
        for parameter in parameters:
            parameter.grad = None


class _PrecomputedNet(nn.Module):
    """Network stub: returns precomputed outputs; its backward pass calls `fill` to set gradients."""

    def __init__(self, outputs: Sequence[Tensor], fill: Callable[[], None]) -> None:
        super().__init__()
        self.outputs, self.fill = outputs, fill

    def forward(self, images: Tensor) -> tuple[Tensor | None, ...]:
        """(None, logits[, depth]), like a network."""
        return None, *_FillOnBackward.apply(self.fill, *self.outputs)


class _FillOnBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, fill: Callable[[], None], *outputs: Tensor) -> tuple[Tensor, ...]:
        ctx.fill = fill
        return tuple(output.clone() for output in outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, ...]:
        ctx.fill()
        return (None,) * (len(gradients) + 1)


def bench(cfg: str, device: torch.device, overrides: Sequence[str] = (), method: Method | None = None) -> Bench:
    """A randomly initialised network of a shipped config, and random batches of its sizes.

    `method`: by default TRAIN.DA_METHOD.
    """
    config = load_config(cfg, [f"DEVICE={device}", "TRAIN.RESTORE_FROM=null", "TRAIN.AMP=off", *overrides])
    return bench_of(config, device, method)


def bench_of(config: Config, device: torch.device, method: Method | None = None) -> Bench:
    """A randomly initialised network of a config, and random batches of its sizes; `method` as in `bench`."""
    torch.manual_seed(0)
    learner = new_learner(config, device, method)
    iteration = getattr(learner.context.state, "first", -1) + 1
    return Bench(config, learner, *batches(config, device), device, iteration)


def new_learner(config: Config, device: torch.device, method: Method | None = None) -> Learner:
    """A learner of the config's network with random weights; `method`: by default TRAIN.DA_METHOD."""
    net = random_network(config)
    return Learner(net, method or find_method(config), find_network(config).supervised, config.TRAIN, device)


def batches(config: Config, device: torch.device) -> tuple[Batch, Batch]:
    """Random batches of source and target, of the sizes that the config trains with."""
    train, crop = config.TRAIN, config.AUGMENT.CROP
    source = batch(config, crop or train.INPUT_SIZE_SOURCE, train.BATCH_SIZE_SOURCE, device)
    return source, batch(config, crop or train.INPUT_SIZE_TARGET, train.BATCH_SIZE_TARGET, device)


def random_network(config: Config) -> SegmentationNetwork:
    """The network of a config with random weights."""
    net = find_network(config).build(config, build_encoder(config, weights=False))
    initialise(net, "he", backbone=config.MODEL.ENCODER == "resnet101")
    return net


def batch(config: Config, size: Sequence[int], count: int, device: torch.device) -> Batch:
    """A random batch: noise images, blocks of labels, uniform depth."""
    width, height = size
    image = 50 * torch.randn(count, 3, height, width, device=device)
    blocks = torch.randint(0, config.NUM_CLASSES, (count, height // 20 + 1, width // 20 + 1), device=device)
    label = blocks.repeat_interleave(20, 1).repeat_interleave(20, 2)[:, :height, :width].to(torch.uint8).contiguous()
    depth = 1 + 200 * torch.rand(count, height, width, device=device)
    return {"image": image.contiguous(memory_format=torch.channels_last), "label": label, "depth": depth}


def count_flops(work: Callable[[], object]) -> int:
    """Floating point operations (two per multiplication and addition) of matrix products and convolutions."""

    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


class _Traffic(TorchDispatchMode):
    """Sums the bytes that operations read and write, except views."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.bytes += tensors_bytes(list(tensors_in((args, kwargs or {}, result))))
        return result


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in an operation's arguments or results, which may be nested in lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(part)


def count_bytes(work: Callable[[], object]) -> int:
    """Bytes that the operations of `work` read and write, without any cache reuse."""
    with _Traffic() as traffic:
        work()
    return traffic.bytes


def tensors_bytes(tensors: Sequence[Tensor]) -> int:
    """Total bytes of tensors."""
    return sum(tensor.nbytes for tensor in tensors)
