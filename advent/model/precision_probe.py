"""TRAIN.AMP: auto: the number format in which a network is fastest on a device."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from advent.config.schema import Precision
from advent.errors import first_line
from advent.model.batch_norm import batch_norms, preserved_statistics
from advent.model.outputs import forward
from advent.model.precision import autocast, memory_format

LARGEST_AREA = 320 * 240  # pixels of a measured image
ROUNDS = 3  # of which the first warms up
WORTH = 0.9  # largest share of float32's time for which bfloat16 is chosen
HOPELESS = 10.0  # multiple of float32's time in the first round: without bfloat16 instructions it may be a hundred
ALIKE = 0.9  # least cosine similarity of a layer's results in both formats
SIDE_MULTIPLE = 32  # of a reduced image: strides and patch sizes of the encoders divide it, or they enlarge the image


@dataclass(frozen=True)
class Passes:
    """The network passes of a stage: images of a batch, their (width, height), and whether they train."""

    images: int
    size_wh: Sequence[int]
    trains: bool

    def __str__(self) -> str:
        width, height = self.size_wh
        kind = "forward and backward" if self.trains else "forward"
        return f"{kind}, {self.images} image{'' if self.images == 1 else 's'} of {width}x{height}"

    def reduced(self) -> Passes:
        """The same passes on images of at most LARGEST_AREA pixels; the aspect ratio is about the same."""
        width, height = self.size_wh
        scale = math.sqrt(LARGEST_AREA / (width * height))
        if scale >= 1:
            return self
        sides = [max(SIDE_MULTIPLE, int(side * scale) // SIDE_MULTIPLE * SIDE_MULTIPLE) for side in (width, height)]
        return Passes(self.images, sides, self.trains)


def fastest_precision(net: nn.Module, device: torch.device, passes: Passes) -> Precision:
    """The number format for a network on its device.

    CUDA: bf16 where the GPU has it, else fp16. MPS: off. CPU: measured on the network's own passes; bf16 if it is
    faster and gives the same results. The network, its gradients and all random states stay as they are.
    """
    if device.type == "cuda":
        has_bf16 = _gpu_has_bf16(device)
        return Precision(*(("bf16", "the GPU computes in bf16") if has_bf16 else ("fp16", "the GPU has no bf16")))
    if device.type != "cpu":
        return Precision("off", f"{device.type} is not measured")
    with _unchanged(net):
        net.eval()  # no dropout: both formats draw differently
        return _measured(net, passes.reduced())


def _gpu_has_bf16(device: torch.device) -> bool:
    """Whether the GPU itself computes in bfloat16; emulation is slower than float16."""
    if "including_emulation" not in inspect.signature(torch.cuda.is_bf16_supported).parameters:  # PyTorch 2.4
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def _measured(net: nn.Module, passes: Passes) -> Precision:
    """Both formats in turn on the CPU, after a check of the layers' results."""
    width, height = passes.size_wh
    generator = torch.Generator().manual_seed(0)
    images = 50 * torch.randn(passes.images, 3, height, width, generator=generator)  # pixels minus their mean
    images = images.contiguous(memory_format=memory_format(images.device))
    seconds: dict[torch.dtype | None, float] = {}
    try:
        if wrong := _wrong_layer(net, images, passes.trains):
            return Precision("off", f"bf16 is wrong here: {wrong}")
        for norm in batch_norms(net):
            norm.training = passes.trains  # not norm.train(): timm's norms contain dropout
        for turn in range(ROUNDS):
            for dtype in (None, torch.bfloat16):
                taken, finite = _timed(net, images, dtype, passes.trains)
                if dtype is not None and not finite:
                    return Precision("off", "bf16 is wrong here: infinite or not a number")
                if turn == 0 and dtype is not None and taken > HOPELESS * seconds[None]:
                    return Precision("off", f"bf16 takes {taken / seconds[None]:.0f} times as long as fp32; {passes}")
                seconds[dtype] = taken if turn <= 1 else min(taken, seconds[dtype])
    except RuntimeError as error:  # an operation that has no bfloat16 on the CPU
        return Precision("off", f"bf16 does not run here: {first_line(error)}")
    plain, reduced = seconds[None], seconds[torch.bfloat16]
    chosen = "bf16" if reduced <= WORTH * plain else "off"
    return Precision(chosen, f"bf16 {reduced:.3g} s, fp32 {plain:.3g} s; {passes}")  # type: ignore[arg-type]


def _timed(net: nn.Module, images: Tensor, dtype: torch.dtype | None, trains: bool) -> tuple[float, bool]:
    """Seconds of a pass, with that of the gradients if it trains; and whether its results are finite."""
    began = perf_counter()
    with torch.set_grad_enabled(trains):
        results = [x.float() for x in forward(net, images, dtype) if x is not None]
        if trains:
            # Not `backward`: it would leave gradients on the weights.
            weights = [parameter for parameter in net.parameters() if parameter.requires_grad]
            loss = torch.stack([x.mean() for x in results]).sum()
            results += [x for x in torch.autograd.grad(loss, weights, allow_unused=True) if x is not None]
    taken = perf_counter() - began
    return taken, all(bool(torch.isfinite(x).all()) for x in results)


def _wrong_layer(net: nn.Module, images: Tensor, trains: bool) -> str | None:
    """The first kind of layer whose results in bfloat16 differ from those in float32, in words; None if all agree.

    Layers are compared alone, on random inputs. Gradients of the whole network do not tell: rounding alone turns those
    of a healthy encoder with batch norms by a cosine of 0 to 0.9.
    """
    layers: dict[str, tuple[nn.Module, Sequence[int]]] = {}

    def note(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].is_floating_point():
            layers.setdefault(f"{layer} on {tuple(inputs[0].shape)}", (layer, inputs[0].shape))

    hooks = [
        part.register_forward_pre_hook(note)
        for part in net.modules()
        if not list(part.children()) and any(weight.dim() > 1 for weight in part.parameters())
    ]
    try:
        with torch.no_grad():
            forward(net, images)
    finally:
        for hook in hooks:
            hook.remove()
    for words, (layer, shape) in layers.items():
        expected, results = (_layer_results(layer, shape, dtype, trains) for dtype in (None, torch.bfloat16))
        similarity = min(map(_cosine, expected, results))
        if not similarity >= ALIKE:  # NaN, too
            return f"{words}: cosine similarity {similarity:.2f} with fp32"
    return None


def _layer_results(layer: nn.Module, shape: Sequence[int], dtype: torch.dtype | None, trains: bool) -> list[Tensor]:
    """A layer's output on a random input; if it trains, also the gradients of its input and its weights."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(*shape, generator=generator)
    if x.dim() == 4:
        x = x.contiguous(memory_format=memory_format(x.device))
    with torch.set_grad_enabled(trains):
        x.requires_grad_(trains)
        with autocast(x.device, dtype):
            output = layer(x)
        if not trains:
            return [output.float()]
        weights = [x, *(weight for weight in layer.parameters() if weight.requires_grad)]
        gradient = torch.randn(output.shape, generator=generator).to(output)
        gradients = torch.autograd.grad(output, weights, gradient, allow_unused=True)
        return [x.detach().float() for x in (output, *gradients) if x is not None]


def _cosine(expected: Tensor, result: Tensor) -> float:
    """Cosine similarity of two tensors as vectors; 1 for two of zeros, NaN if a value is not finite."""
    a, b = expected.double().flatten(), result.double().flatten()
    lengths = float(a.norm() * b.norm())
    return float(a @ b) / lengths if lengths else float(torch.equal(a, b))


@contextmanager
def _unchanged(net: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards modes, batch-norm statistics and random states are what they were."""
    modes = [(part, part.training) for part in net.modules()]
    try:
        with preserved_statistics(net), torch.random.fork_rng(devices=[]):
            yield
    finally:
        for part, mode in modes:
            part.training = mode
