"""Memory of a training step, counted without a GPU: the peak of the bytes of all tensors that are alive.

The step runs on PyTorch's meta device, whose tensors have shapes and types but no data, under CUDA's autocast rules.
Counted are weights, teacher, optimizer states, batches, gradients, saved activations and the steps' temporaries. Not
counted are workspaces inside kernels (cuDNN, cuBLAS), the allocator's fragmentation, and the CUDA context. A count on
real tensors and the measured peak of a CPU run check the method (docs/performance.md).
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode  # documented; PyTorch has no other name for it

from advent.config.loading import load_config
from advent.config.schema import Config
from advent.methods import steps
from advent.model import outputs
from daf.model import deeplabv2_depth
from performance.networks import batches, new_learner, tensors_in
from performance.timing import Row, row

META = torch.device("meta")
BLOCK = 512  # bytes: PyTorch's CUDA allocator rounds every allocation up to a multiple
# Label -> (config, overrides). ConvNeXt cannot be dilated cheaply: stride 32, its own.
ESTIMATED: dict[str, tuple[str, tuple[str, ...]]] = {
    "ep1, DAF, fp32": ("ep1:daf", ()),
    "ep1_modern (DINOv2 ViT-B), bf16": ("ep1_modern:self_training", ("TRAIN.AMP=bf16",)),
    "ep1_modern (DINOv2 ViT-B), fp32": ("ep1_modern:self_training", ("TRAIN.AMP=off",)),
    "ep1_modern with ConvNeXt-B, bf16": (
        "ep1_modern:self_training",
        ("MODEL.ENCODER=timm:convnext_base", "MODEL.OUTPUT_STRIDE=32", "TRAIN.AMP=bf16"),
    ),
    "ep1_modern_24gb (DINOv2 ViT-S), bf16": ("ep1_modern_24gb:self_training", ("TRAIN.AMP=bf16",)),
}


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages on a device that are alive (`now`), and their maximum (`peak`).

    It sees the results of all operations inside the block; `add` counts a tensor made before.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device, self.now, self.peak = device, 0, 0
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tensors_in(result):
            self.add(tensor)
        return result

    def add(self, tensor: Tensor) -> None:
        """Count a tensor's storage until it is freed; views share one."""
        storage = tensor.untyped_storage()
        key = id(storage)
        if tensor.device.type != self.device.type or key in self._alive:
            return
        size = -(-storage.nbytes() // BLOCK) * BLOCK
        self._alive[key] = weakref.ref(storage, partial(self._free, key, size))
        self.now += size
        self.peak = max(self.peak, self.now)

    def _free(self, key: int, size: int, _: Any) -> None:
        if self._alive.pop(key, None) is not None:
            self.now -= size


class CudaAutocast(TorchFunctionMode):
    """CUDA's autocast rules for tensors of any device: inside `autocast`, with fused attention as on CUDA.

    Matrix products and convolutions run in the low precision, norms and other sums in float32, the rest in the type of
    its inputs. The low-precision copy of a weight is kept until the outermost block ends, as PyTorch does.
    """

    LOW = frozenset(
        (
            functional.linear,
            torch.conv2d,
            torch.conv_transpose2d,
            torch.matmul,
            Tensor.matmul,
            Tensor.__matmul__,
            torch.bmm,
            functional.scaled_dot_product_attention,
        )
    )
    FULL = frozenset(
        (
            functional.layer_norm,
            functional.group_norm,
            functional.softmax,
            torch.softmax,
            Tensor.softmax,
            torch.exp,
            Tensor.exp,
            torch.log,
            Tensor.log,
            Tensor.pow,
            Tensor.__pow__,
            Tensor.sum,
            functional.softplus,
        )
    )

    def __init__(self) -> None:
        super().__init__()
        self.dtype: torch.dtype | None = None
        self._weights: dict[int, Tensor] = {}

    @contextmanager
    def autocast(self, device: torch.device, dtype: torch.dtype | None) -> Iterator[None]:
        """In place of advent.model.precision.autocast."""
        outer, self.dtype = self.dtype, dtype
        try:
            yield
        finally:
            self.dtype = outer
            if outer is None:
                self._weights.clear()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.dtype is not None and (func in self.LOW or func in self.FULL):
            dtype = self.dtype if func in self.LOW else torch.float32
            args = tuple(self._cast(value, dtype) for value in args)
            kwargs = {name: self._cast(value, dtype) for name, value in kwargs.items()}
        if func is functional.scaled_dot_product_attention and args[0].device.type == "meta":
            return _FusedAttention.apply(*args[:3])
        return func(*args, **kwargs)

    def _cast(self, value: Any, dtype: torch.dtype) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.dtype == dtype:
            return value
        if not isinstance(value, nn.Parameter) or not value.requires_grad:
            return value.to(dtype)
        if id(value) not in self._weights:
            self._weights[id(value)] = value.to(dtype)
        return self._weights[id(value)]


class _FusedAttention(torch.autograd.Function):
    """Shapes of flash attention: it saves its inputs, its output and one float32 number per query and head."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        query, key, value = ctx.saved_tensors[:3]
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one training step: held all the time (weights, teacher, optimizer states), and the peak."""

    held: int
    peak: int


def step_memory(config: Config, device: torch.device = META) -> StepMemory:
    """Count one iteration of a config with random weights and batches; on a real device it also computes them."""
    with ExitStack() as stack:
        live = stack.enter_context(LiveBytes(device))
        if device == META:
            rules = stack.enter_context(CudaAutocast())
            for name in (outputs, steps, deeplabv2_depth):
                stack.enter_context(patch.object(name, "autocast", rules.autocast))
        learner = new_learner(config, device)
        context, state = learner.context, learner.context.state
        for module in (learner.net, context.discriminators, *([state] if state is not None else [])):
            for tensor in (*module.parameters(), *module.buffers()):
                live.add(tensor)
        optimizer_states = [
            torch.empty_like(parameter)
            for optimizer in learner.optimizers.values()
            for group in optimizer.param_groups
            for parameter in group["params"]
            for _ in range(1 if isinstance(optimizer, torch.optim.SGD) else 2)  # momentum; Adam's two moments
        ]
        held = live.now
        source, target = batches(config, device)
        context.iteration = config.TRAIN.MAX_ITERS // 2  # self-training labels the target by then
        for _ in range(config.TRAIN.ACCUMULATE):
            learner.method.step(context, source, target)
        del optimizer_states
        return StepMemory(held, live.peak)


def memory_estimate(device: torch.device, rounds: int) -> list[Row]:
    """Counted memory of the real configs on a GPU, without running them; `device` and `rounds` have no effect."""
    rows = []
    for label, (cfg, overrides) in ESTIMATED.items():
        config = load_config(cfg, ["TRAIN.RESTORE_FROM=null", "MODEL.ENCODER_WEIGHTS=null", *overrides])
        counted = step_memory(config)
        rows.append(row(label, peak_bytes=counted.peak, bytes=counted.held))
    return rows
