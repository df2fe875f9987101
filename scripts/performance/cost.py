"""Cost of one training step of each method, in units of a source-only step, and what of it is no network pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from advent.config.loading import load_config
from advent.config.schema import Config
from advent.errors import ConfigError
from advent.methods.registry import find_method
from advent.methods.steps import Method
from ida.intra import intra_method
from ida.isl import isl_method
from performance.data_loading import augmented_rate
from performance.networks import Bench, bench_of
from performance.timing import Row, alternate, row

BASE = "SourceOnly"
# Step -> (section of the protocol, overrides).
STEPS: dict[str, tuple[str, list[str]]] = {
    BASE: ("source_only", []),
    "MinEnt": ("self_training", ["TRAIN.DA_METHOD=MinEnt"]),
    "AdvEnt": ("self_training", ["TRAIN.DA_METHOD=AdvEnt"]),
    "DADA": ("self_training", ["TRAIN.DA_METHOD=DADA", "MODEL.NAME=DeepLabv2_depth_DADA"]),
    "DAF": ("self_training", ["TRAIN.DA_METHOD=DAF"]),
    "SelfTraining": ("self_training", []),
    "SelfTraining, masked": ("self_training", ["SELF_TRAINING.MASK_RATIO=0.7"]),
    "SelfTraining, depth order and mix loss": ("self_training", ["DEPTH.ORDER=true", "DEPTH.MIX_LOSS=0.1"]),
    "ISL": ("isl", []),
    "IDA": ("ida", []),
}
OVERHEADS = (BASE, "SelfTraining", "SelfTraining, masked", "SelfTraining, depth order and mix loss")


def cost(device: torch.device, rounds: int, cfg: str = "quick_modern", overrides: Sequence[str] = ()) -> list[Row]:
    """A step of every method at the protocol's training size, fp32, one thread.

    Then what is left of some steps when the network, the teacher included, returns at once: losses, upsampling, mixing,
    augmentation, moving average, optimizer. A method that does not fit the network has a row without times. The last
    row is the rate of one data worker with augmentation, which uses all cores and has no training beside it; `times`
    is this rate over the one that the source-only step needs.
    """
    setups: dict[str, Bench] = {}
    rows = []
    for name, (section, keys) in STEPS.items():
        try:
            setups[name] = _setup(f"{cfg}:{section}", device, [*keys, *overrides])
        except ConfigError as error:
            rows.append(row(f"step, {name}: does not fit the network ({error})"))
    with one_thread():
        times = alternate({name: setup.step for name, setup in setups.items()}, rounds)
        rests = alternate({name: setups[name].overhead for name in OVERHEADS}, rounds)
    base = times[BASE].seconds
    rows += [row(f"step, {name}, one thread", timing, times=timing.seconds / base) for name, timing in times.items()]
    rows += [
        row(f"  no network pass, {name}, one thread", timing, share=timing.seconds / times[name].seconds)
        for name, timing in rests.items()
    ]
    config = setups[BASE].config
    rate, need = augmented_rate(config, device), config.TRAIN.BATCH_SIZE_SOURCE / base
    rows.append(row(f"  data worker, {BASE}: source images, augmented", per_second=rate, times=rate / need))
    return rows


def _setup(cfg: str, device: torch.device, overrides: Sequence[str]) -> Bench:
    config = load_config(cfg, [f"DEVICE={device}", "TRAIN.RESTORE_FROM=null", "TRAIN.AMP=off", *overrides])
    script = {"isl": "train_isl.py", "ida": "train_intra.py"}.get(cfg.partition(":")[2], "train.py")
    return stage_bench(config, script, device)


def method_of(config: Config, script: str) -> Method:
    """The method that a training script runs with a config."""
    if script == "train_isl.py":
        return isl_method()
    return intra_method(config) if script == "train_intra.py" else find_method(config)


def stage_bench(config: Config, script: str, device: torch.device) -> Bench:
    """The network of a stage, its method and batches. Pseudo labels come without depth."""
    setup = bench_of(config, device, method_of(config, script))
    if script != "train.py":
        setup.source = {name: tensor for name, tensor in setup.source.items() if name != "depth"}
    return setup


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread within the context."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
