"""TRAIN.AMP: auto: the number format in which a network is fastest on a device."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn import functional

from advent.config.schema import Precision
from advent.errors import first_line
from advent.model.batch_norm import batch_norms, preserved_statistics
from advent.model.outputs import forward
from advent.model.precision import memory_format

LARGEST_AREA = 320 * 240  # pixels of a measured image
ROUNDS = 3  # of which the first warms up
WORTH = 0.9  # largest share of float32's time for which bfloat16 is chosen
HOPELESS = 10.0  # share of float32's time in the warm-up at which the measurement ends
ALIKE = 0.9  # least cosine similarity of the results of both formats
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
    with _unchanged(net, passes.trains):
        return _measured(net, passes.reduced())


def _gpu_has_bf16(device: torch.device) -> bool:
    """Whether the GPU itself computes in bfloat16; emulation is slower than float16."""
    if "including_emulation" not in inspect.signature(torch.cuda.is_bf16_supported).parameters:  # PyTorch 2.4
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def _measured(net: nn.Module, passes: Passes) -> Precision:
    """Both formats in turn on the CPU. Without bfloat16 instructions it may be a hundred times slower: then one try."""
    width, height = passes.size_wh
    generator = torch.Generator().manual_seed(0)
    images = 50 * torch.randn(passes.images, 3, height, width, generator=generator)  # pixels minus their mean
    images = images.contiguous(memory_format=memory_format(images.device))
    plain, reduced, similarity = math.inf, math.inf, 1.0
    for turn in range(ROUNDS):
        seconds, expected = _timed(net, images, None, passes.trains)
        try:
            seconds_reduced, results = _timed(net, images, torch.bfloat16, passes.trains)
        except RuntimeError as error:  # an operation that has no bfloat16 on the CPU
            return Precision("off", f"bf16 does not run here: {first_line(error)}")
        # In every round: a faulty kernel may read memory that only later holds anything.
        similarity = min(similarity, _cosine(expected, results))
        if not similarity >= ALIKE:
            what = "gradients" if passes.trains else "outputs"
            return Precision("off", f"bf16 {what} are wrong here: cosine similarity {similarity:.2f} with fp32's")
        if turn or seconds_reduced > HOPELESS * seconds:
            plain, reduced = min(plain, seconds), min(reduced, seconds_reduced)
        if reduced > HOPELESS * plain:
            break
    chosen = "bf16" if reduced <= WORTH * plain else "off"
    return Precision(chosen, f"bf16 {reduced:.3g} s, fp32 {plain:.3g} s; {passes}")  # type: ignore[arg-type]


def _timed(net: nn.Module, images: Tensor, dtype: torch.dtype | None, trains: bool) -> tuple[float, list[Tensor]]:
    """Seconds of a pass, and its results: the gradients of the weights if it trains, else the outputs."""
    began = perf_counter()
    if not trains:
        with torch.inference_mode():
            results = [x.float() for x in forward(net, images, dtype) if x is not None]
    else:
        outputs = [x.float() for x in forward(net, images, dtype) if x is not None]
        # Not `backward`: it would leave gradients on the weights.
        weights = [parameter for parameter in net.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(torch.stack([_loss(x) for x in outputs]).sum(), weights, allow_unused=True)
        results = [gradient for gradient in gradients if gradient is not None]
    return perf_counter() - began, results


def _loss(output: Tensor) -> Tensor:
    """A linear loss with smooth random weights, relative to the size of the output: depth may be in the thousands."""
    height, width = output.shape[-2:]
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(*output.shape[:2], -(-height // 8), -(-width // 8), generator=generator)
    weights = functional.interpolate(coarse, size=(height, width))
    return (weights * output).mean() / output.detach().abs().mean().clamp_min(1e-6)


def _cosine(expected: Sequence[Tensor], results: Sequence[Tensor]) -> float:
    """Cosine similarity of two lists of tensors, as if each were one vector; NaN if a value is not finite."""

    def dot(left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
        return sum(float((a * b).sum(dtype=torch.float64)) for a, b in zip(left, right, strict=True))

    lengths = dot(expected, expected) * dot(results, results)
    return dot(expected, results) / math.sqrt(lengths) if lengths > 0 else math.nan


@contextmanager
def _unchanged(net: nn.Module, trains: bool) -> Iterator[None]:
    """Eval mode inside; with `trains`, batch norms train, but dropout is off. Modes and statistics are restored."""
    modes = [(part, part.training) for part in net.modules()]
    try:
        net.eval()
        for norm in batch_norms(net):
            norm.training = trains  # not norm.train(): timm's norms contain dropout
        with preserved_statistics(net), torch.random.fork_rng(devices=[]):
            yield
    finally:
        for part, mode in modes:
            part.training = mode
