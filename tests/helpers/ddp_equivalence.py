"""Equivalence of processes, micro-batches and one large batch: gradients, weights, statistics and losses.

python tests/helpers/ddp_equivalence.py --processes 4
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import torch

METHODS = ("AdvEnt", "AdvEnt multi-level", "MinEnt", "DAF", "DADA", "ISL", "IDA", "SelfTraining")
HEIGHT, WIDTH, CLASSES = 48, 64, 7
STEPS = 5


def make_learner(method: str, statistics: bool = False, device: str = "cpu", amp: str = "off") -> Any:
    """Learner of a tiny network; batch norm is in eval mode unless `statistics` is set. It is float64 without `amp`."""
    from advent.config.loading import default_config
    from advent.methods.registry import find_method, find_network
    from advent.methods.steps import Method, supervised_step
    from advent.model.deeplabv2 import initialise
    from advent.model.encoder import ResNetEncoder
    from advent.training.learner import Learner
    from daf.methods import register
    from ida.intra import intra_method

    register()
    config = default_config()
    config.NUM_CLASSES, config.TRAIN.MAX_ITERS, config.TRAIN.AMP = CLASSES, 100, amp
    # Large enough that five steps move every weight by far more than rounding.
    config.TRAIN.LEARNING_RATE, config.TRAIN.LEARNING_RATE_D = 1e-3, 1e-3
    config.MODEL.MULTI_LEVEL = method.endswith("multi-level")
    config.TRAIN.DA_METHOD = {"ISL": "SourceOnly", "IDA": "AdvEnt"}.get(method, method.split()[0])
    config.MODEL.NAME = {"DADA": "DeepLabv2_depth_DADA"}.get(method, "DeepLabv2_depth")
    if method.split()[0] in ("AdvEnt", "MinEnt"):
        config.MODEL.NAME = "DeepLabv2"
    if method == "SelfTraining":
        config.TRAIN.BATCH_SIZE_TARGET = config.TRAIN.BATCH_SIZE_SOURCE
        config.TRAIN.INPUT_SIZE_SOURCE = config.TRAIN.INPUT_SIZE_TARGET = [WIDTH, HEIGHT]
        config.SELF_TRAINING.THRESHOLD, config.SELF_TRAINING.MASK_RATIO, config.SELF_TRAINING.MASK_BLOCK = 0.3, 0.5, 8
        config.DEPTH.ORDER, config.DEPTH.MIX_LOSS, config.DEPTH.PRIOR, config.DEPTH.MASKED = True, 0.1, 0.3, 0.1
        config.DEPTH.TARGET = "mean"
    torch.manual_seed(3)
    net = find_network(config).build(config, ResNetEncoder((1, 1, 1, 1), 8, "trainable", "conv1"))
    initialise(net, "he")
    chosen_method = intra_method(config) if method == "IDA" else find_method(config)
    if method == "ISL":
        chosen_method = Method("ISL", supervised_step, include_last_iter=True, multi_level=True)
    result = Learner(net, chosen_method, find_network(config).supervised, config.TRAIN, torch.device(device))
    for module in (result.net, result.context.discriminators, result.context.state):
        if module is not None and amp == "off":
            module.double()
    if not statistics:
        result.net.eval()
    return result


def batches(method: str, step: int, count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The full batch of a step: `count` images per domain, each with a different share of valid pixels."""
    random = torch.Generator().manual_seed(1000 + step)

    def normal(*shape: int) -> Any:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    source = {"image": 50 * normal(count, 3, HEIGHT, WIDTH)}
    source["label"] = torch.randint(0, CLASSES, (count, HEIGHT, WIDTH), generator=random)
    for index in range(count):
        source["label"][index, : 7 * index % HEIGHT] = 255
    source["label"][0, 0, :5] = -1
    if method in ("DAF", "DADA", "SelfTraining"):
        source["depth"] = 20 * normal(count, HEIGHT, WIDTH).abs() * torch.arange(1, count + 1).view(-1, 1, 1)
        if step % 2:
            source["depth_known"] = torch.rand(count, HEIGHT, WIDTH, generator=random) < 0.7
    target = {"image": 50 * normal(count, 3, HEIGHT, WIDTH)}
    if method == "SelfTraining":
        source["position"] = target["position"] = step * count + torch.arange(count)
    return source, target


def to_device(batch: dict[str, Any], device: str, amp: str = "off") -> dict[str, Any]:
    """The batch on the device, in float64 or with `amp` in float32; positions stay on the CPU."""
    moved = {name: value if name == "position" else value.to(device) for name, value in batch.items()}
    return {n: x.float() if amp != "off" and x.is_floating_point() else x for n, x in moved.items()}


def cut(batch: dict[str, Any], first: int, last: int) -> dict[str, Any]:
    return {name: value[first:last] for name, value in batch.items()}


def train(
    method: str, images: int, micro: int = 1, statistics: bool = False, steps: int = STEPS, device: str = "cpu"
) -> dict[str, Any]:
    """Train on batches of `images` images; this process takes its share in `micro` micro-batches.

    Returns the gradients of the first STEPS steps, the losses of all, and the weights and statistics at the end.
    """
    from advent.runtime import distributed

    learner = make_learner(method, statistics, device)
    learner.broadcast_weights()
    size = images // (distributed.world_size() * micro)
    record: dict[str, Any] = {"gradients": {}, "losses": []}
    for step in range(steps):
        source, target = batches(method, step, images)
        starts = [size * (distributed.rank() * micro + index) for index in range(micro)]
        parts = [[to_device(cut(batch, start, start + size), device) for start in starts] for batch in (source, target)]
        values = learner.update(step, parts[0], None if method == "ISL" else parts[1])
        record["losses"].append({name: float(value) for name, value in values.items()})
        if step < STEPS:
            record["gradients"] |= {f"{step} {n}": _copy(p.grad) for n, p in parameters(learner) if p.grad is not None}
    record["weights"] = {n: _copy(p) for n, p in parameters(learner)}
    record["statistics"] = {n: _copy(b) for n, b in learner.net.named_buffers()}
    return record


def _copy(tensor: Any) -> Any:
    return tensor.detach().to("cpu", copy=True)


def parameters(learner: Any) -> list[tuple[str, Any]]:
    return [*learner.net.named_parameters(), *learner.context.discriminators.named_parameters(prefix="D")]


def in_process_group(function: str, *arguments: Any) -> Any:
    """Call a function of this module inside the process group."""
    from advent.runtime import distributed

    with distributed.process_group():
        return globals()[function](*arguments)


def largest_difference(actual: dict[str, Any], expected: dict[str, Any], key: str) -> float:
    """Largest |a - b| / max(|b|) over the tensors of one key; both dictionaries have the same names."""
    assert actual[key].keys() == expected[key].keys()
    differences = [0.0]
    for name, tensor in expected[key].items():
        scale = float(tensor.abs().max()) or 1.0
        differences.append(float((actual[key][name].to(tensor.dtype) - tensor).abs().max()) / scale)
    return max(differences)


def loss_difference(actual: dict[str, Any], expected: dict[str, Any]) -> float:
    """Largest relative difference of the logged losses and gradient norms."""
    pairs = zip(actual["losses"], expected["losses"], strict=True)
    return max(abs(a[name] - b[name]) / max(abs(b[name]), 1e-30) for a, b in pairs for name in b)


def main() -> int:
    """Command line: print the table of errors per method."""
    from helpers.process_pool import ProcessPool

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    count = parser.parse_args().processes
    pool = ProcessPool(count)
    try:
        print(f"{count} processes x batch 1 and 1 process x batch 1 x ACCUMULATE {count}, against 1 process x {count}")
        print("| method | processes: gradients | weights | losses | ACCUMULATE: gradients | weights | losses |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        for method in METHODS:
            expected = pool.alone(train, method, count)
            cells = []
            for actual in (
                pool.run(in_process_group, "train", method, count)[0],
                pool.alone(train, method, count, count),
            ):
                cells += [largest_difference(actual, expected, key) for key in ("gradients", "weights")]
                cells.append(loss_difference(actual, expected))
            print(f"| {method} | " + " | ".join(f"{cell:.1e}" for cell in cells) + " |", flush=True)
    finally:
        pool.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
