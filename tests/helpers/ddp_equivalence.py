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

METHODS = ("AdvEnt", "AdvEnt multi-level", "MinEnt", "DAF", "DADA", "ISL", "IDA")
HEIGHT, WIDTH, CLASSES = 48, 64, 7
STEPS = 5


def learner(method: str, statistics: bool = False) -> Any:
    """Learner of a tiny float64 network; batch norm is in eval mode unless `statistics` is set."""
    import daf.methods  # noqa: F401
    from advent.config.loading import default_config
    from advent.methods.registry import find_method, find_network
    from advent.methods.steps import Method, supervised_step
    from advent.model.deeplabv2 import initialise
    from advent.model.encoder import ResNetEncoder
    from advent.training.learner import Learner
    from ida.intra import intra_method

    config = default_config()
    config.NUM_CLASSES, config.TRAIN.MAX_ITERS = CLASSES, 100
    # Large enough that five steps move every weight by far more than rounding.
    config.TRAIN.LEARNING_RATE, config.TRAIN.LEARNING_RATE_D = 1e-3, 1e-3
    config.MODEL.MULTI_LEVEL = method.endswith("multi-level")
    config.TRAIN.DA_METHOD = {"ISL": "SourceOnly", "IDA": "AdvEnt"}.get(method, method.split()[0])
    config.MODEL.NAME = {"DADA": "DeepLabv2_depth_DADA"}.get(method, "DeepLabv2_depth")
    if method.split()[0] in ("AdvEnt", "MinEnt"):
        config.MODEL.NAME = "DeepLabv2"
    torch.manual_seed(3)
    net = find_network(config).build(config, ResNetEncoder((1, 1, 1, 1), 8, "trainable", "conv1"))
    initialise(net, "he")
    chosen = intra_method(config) if method == "IDA" else find_method(config)
    if method == "ISL":
        chosen = Method("ISL", supervised_step, include_last_iter=True, multi_level=True)
    made = Learner(net, chosen, find_network(config).supervised, config.TRAIN, torch.device("cpu"))
    made.net.double()
    made.context.discriminators.double()
    if not statistics:
        made.net.eval()
    return made


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
    if method in ("DAF", "DADA"):
        source["depth"] = 20 * normal(count, HEIGHT, WIDTH).abs() * torch.arange(1, count + 1).view(-1, 1, 1)
        if step % 2:
            source["depth_known"] = torch.rand(count, HEIGHT, WIDTH, generator=random) < 0.7
    return source, {"image": 50 * normal(count, 3, HEIGHT, WIDTH)}


def cut(batch: dict[str, Any], first: int, last: int) -> dict[str, Any]:
    return {name: value[first:last] for name, value in batch.items()}


def train(method: str, images: int, micro: int = 1, statistics: bool = False, steps: int = STEPS) -> dict[str, Any]:
    """Train on batches of `images` images; this process takes its share in `micro` micro-batches.

    Returns the gradients of the first STEPS steps, the losses of all, and the weights and statistics at the end.
    """
    from advent.runtime import distributed

    made = learner(method, statistics)
    made.broadcast_weights()
    own = images // (distributed.world_size() * micro)
    found: dict[str, Any] = {"gradients": {}, "losses": []}
    for step in range(steps):
        source, target = batches(method, step, images)
        at = [own * (distributed.rank() * micro + index) for index in range(micro)]
        parts = [[cut(batch, a, a + own) for a in at] for batch in (source, target)]
        values = made.update(step, parts[0], None if method == "ISL" else parts[1])
        found["losses"].append({name: float(value) for name, value in values.items()})
        if step < STEPS:
            found["gradients"] |= {f"{step} {n}": p.grad.clone() for n, p in parameters(made) if p.grad is not None}
    found["weights"] = {n: p.detach().clone() for n, p in parameters(made)}
    found["statistics"] = {n: b.clone() for n, b in made.net.named_buffers()}
    return found


def parameters(made: Any) -> list[tuple[str, Any]]:
    return [*made.net.named_parameters(), *made.context.discriminators.named_parameters(prefix="D")]


def together(function: str, *arguments: Any) -> Any:
    """Call a function of this module inside the process group."""
    from advent.runtime import distributed

    with distributed.process_group():
        return globals()[function](*arguments)


def largest_difference(one: dict[str, Any], other: dict[str, Any], what: str) -> float:
    """Largest |a - b| / max(|b|) over the tensors of one key; both dictionaries have the same names."""
    assert one[what].keys() == other[what].keys()
    differences = [0.0]
    for name, wanted in other[what].items():
        scale = float(wanted.abs().max()) or 1.0
        differences.append(float((one[what][name].to(wanted.dtype) - wanted).abs().max()) / scale)
    return max(differences)


def loss_difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Largest relative difference of the logged losses and gradient norms."""
    pairs = zip(one["losses"], other["losses"], strict=True)
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
            whole = pool.alone(train, method, count)
            cells = []
            for parts in (pool.run(together, "train", method, count)[0], pool.alone(train, method, count, count)):
                cells += [largest_difference(parts, whole, what) for what in ("gradients", "weights")]
                cells.append(loss_difference(parts, whole))
            print(f"| {method} | " + " | ".join(f"{cell:.1e}" for cell in cells) + " |", flush=True)
    finally:
        pool.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
