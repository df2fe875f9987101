"""Sections of scripts/bench.py: one function each, (device, rounds) -> rows."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from advent.checkpoints.auto_precision import scoring_passes
from advent.config.class_set import class_set
from advent.config.loading import load_config
from advent.config.schema import Config
from advent.evaluation.evaluate import upsample_argmax
from advent.evaluation.predictor import Predictor, not_finite
from advent.model.deeplabv2 import SegmentationNetwork
from advent.model.outputs import eval_mode, forward, resize_bilinear
from advent.model.precision import memory_format, to_device
from advent.model.precision_probe import fastest_precision
from advent.utils.loss import cross_entropy_2d
from advent.utils.metrics import confusion_counts
from daf.inference import Model, predict_batch
from ida.pseudo_labels import pseudo_label, write_label
from ida.ranking import ranking_scores
from performance.cost import cost
from performance.data_loading import reading
from performance.memory import memory_estimate
from performance.networks import Bench, bench, count_bytes, count_flops, random_network, tensors_bytes
from performance.scaling import scaling
from performance.straightforward import Straightforward, StraightforwardScoring
from performance.timing import Row, alternate, peak_memory, row
from streets.pictures import render

LOW, FULL = "ep2_low_dg", "dg"
NATIVE = (1024, 2048)  # height and width of Cityscapes' labels
FORMATS = {"off": "fp32", "bf16": "bf16", "fp16": "fp16"}
LARGE, SECONDS_FOR_LARGE = 2048, 3.0  # side of the large matrix; limit in seconds for one product


def machine(device: torch.device, rounds: int) -> list[Row]:
    """Device limits: matrix product rate per dtype, and memory copy bandwidth."""
    rows = []
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        side = 256
        matrix = torch.randn(side, side, device=device).to(dtype)
        timing = alternate({name: partial(torch.matmul, matrix, matrix)}, rounds * 3)[name]
        # Without instructions for a dtype a processor is hundreds of times slower: then the small product is enough.
        if timing.seconds * (LARGE / side) ** 3 < SECONDS_FOR_LARGE:
            side = LARGE
            matrix = torch.randn(side, side, device=device).to(dtype)
            timing = alternate({name: partial(torch.matmul, matrix, matrix)}, rounds * 3)[name]
        rows.append(row(f"matrix product {side}, {name}", timing, gflops_per_second=2 * side**3 / timing.seconds / 1e9))
    big = torch.empty(2**26, device=device)
    other = torch.empty_like(big)
    timing = alternate({"copy": lambda: other.copy_(big)}, rounds * 3)["copy"]
    rows.append(row("copy of 256 MiB", timing, gb_per_second=2 * big.nbytes / timing.seconds / 1e9))
    return rows


def step(device: torch.device, rounds: int) -> list[Row]:
    """DAF training step at 640x320, full ResNet-101, in each precision, and the time of its parts."""
    rows = []
    for amp in ("off", "bf16", *(["fp16"] if device.type == "cuda" else [])):
        setup = bench(LOW, device, [f"TRAIN.AMP={amp}"])
        name = {"off": "fp32"}.get(amp, amp)
        work: dict[str, Callable[[], object]] = {"step": setup.step, "passes": setup.passes}
        if amp == "off":
            work["before"] = Straightforward(setup).step
        times = alternate(work, rounds)
        # Measured directly: the step minus its parts, a difference of two times of ten seconds, is mostly noise.
        times |= alternate({"overhead": setup.overhead, "discriminator": setup.discriminator}, 3 * rounds)
        rest = times["overhead"].seconds - times["discriminator"].seconds
        rows.append(row(f"step, {name}", times["step"]))
        if "before" in times:
            gain = times["before"].seconds / times["step"].seconds
            rows.append(row(f"  the same, straightforward, {name}", times["before"], times=gain))
        rows.append(row(f"  network's two passes, {name}", times["passes"]))
        rows.append(row(f"  discriminator, {name}", times["discriminator"]))
        rows.append(row(f"  everything else, {name}", share=rest / times["step"].seconds, seconds=rest))
        rows += _parts(setup, rounds, name)
    return rows


def _parts(setup: Bench, rounds: int, name: str) -> list[Row]:
    """Parts of everything else, measured separately."""
    learner = setup.learner
    setup.step()
    parameters = [p for p in learner.net.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    flag = torch.zeros((), device=setup.device)
    for optimizer in learner.optimizers.values():
        optimizer.found_inf = flag  # type: ignore[attr-defined]
    size = setup.source["image"].shape[-2:]
    classes = setup.config.NUM_CLASSES
    small = torch.randn(1, classes, size[0] // 8 + 1, size[1] // 8 + 1, device=setup.device, requires_grad=True)

    def losses() -> None:

        big = resize_bilinear(small, size)
        cross_entropy_2d(big, setup.source["label"]).backward()

    def guard() -> None:
        learner._guard.snapshot_buffers()
        learner._guard.unscale_and_check({"loss": flag})

    work: dict[str, Callable[[], object]] = {
        "optimizer (repeated update)": learner.optimizers["net"].step,
        "guard": guard,
        "upsampling and cross entropy": losses,
    }
    times = alternate(work, rounds)
    return [row(f"    {part}, {name}", timing) for part, timing in times.items()]


def memory(device: torch.device, rounds: int) -> list[Row]:
    """Peak memory and time of a step with and without recomputed activations at 640x320, and of a full EP1 step."""
    rows, times = [], {}
    benches = {word: bench(LOW, device, [f"TRAIN.CHECKPOINT_ACTIVATIONS={word}"]) for word in ("false", "true")}
    times = alternate({word: setup.step for word, setup in benches.items()}, rounds)
    peaks = {word: peak_memory(setup.step, device) for word, setup in benches.items()}
    for word, name in (("false", "activations kept"), ("true", "activations recomputed")):
        rows.append(row(f"step 640x320, {name}", times[word], peak_bytes=peaks[word]))
    if peaks["false"] and peaks["true"]:
        less = 1 - peaks["true"] / peaks["false"]
        rows.append(
            row(
                "  recomputing: less memory, more time",
                share=less,
                more_time=times["true"].seconds / times["false"].seconds - 1,
            )
        )
    weights = tensors_bytes([*benches["false"].learner.net.state_dict().values()])
    rows.append(row("  held all the time: weights, momentum, gradients", bytes=3 * weights))
    del benches
    full = bench(FULL, device)
    full.step()
    timing = alternate({"full": full.step}, 1)["full"]
    rows.append(row("step EP1, 1280x760 + 1024x512", timing, peak_bytes=peak_memory(full.step, device)))
    return rows


def compiled(device: torch.device, rounds: int) -> list[Row]:
    """Speed-up of TRAIN.COMPILE, and its compilation time."""
    plain, fast = bench(LOW, device), bench(LOW, device, ["TRAIN.COMPILE=true"])

    began = time.perf_counter()
    fast.step()
    warm_up = time.perf_counter() - began
    times = alternate({"plain": plain.step, "compiled": fast.step}, rounds)
    rows = [row(f"step 640x320, {name}", timing) for name, timing in times.items()]
    return [*rows, row("  first compiled step", seconds=warm_up)]


def formats(device: torch.device, rounds: int) -> list[Row]:
    """Network passes at 640x320 with tensors contiguous and channels last."""
    kinds = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
    work: dict[str, Callable[[], object]] = {}
    for name, kind in kinds.items():
        setup = bench(LOW, device)
        setup.learner.net.to(memory_format=kind)
        for batch in (setup.source, setup.target):
            batch["image"] = batch["image"].contiguous(memory_format=kind)  # type: ignore[index]
        work[f"two passes, forward and backward, {name}"] = setup.passes
        work[f"one pass forward, {name}"] = partial(_forward, setup)
    return [row(label, timing) for label, timing in alternate(work, rounds).items()]


@torch.inference_mode()
def _forward(setup: Bench) -> None:
    with eval_mode(setup.learner.net):
        setup.learner.net(setup.target["image"])


def evaluation(
    device: torch.device,
    rounds: int,
    overrides: Sequence[str] = (),
    label_hw: tuple[int, int] = NATIVE,
) -> list[Row]:
    """Scoring of one Cityscapes image, 1024x512 in, 2048x1024 out: straightforward, and ours in fp32 and as `auto`."""
    config = load_config(FULL, ["TRAIN.RESTORE_FROM=null", *overrides])
    net = to_device(random_network(config), device).eval()
    assert isinstance(net, SegmentationNetwork)
    width, height = config.TEST.INPUT_SIZE_TARGET
    image = 50 * torch.randn(1, 3, height, width, device=device).contiguous(memory_format=memory_format(device))
    label = torch.randint(0, config.NUM_CLASSES, label_hw, device=device).to(torch.uint8)
    auto = fastest_precision(net, device, scoring_passes(config))
    straightforward = StraightforwardScoring(net, config.NUM_CLASSES)
    work: dict[str, Callable[[], object]] = {
        "straightforward, fp32": partial(straightforward, image, label),
        "ours, fp32": partial(score_image, Predictor([net]), image, label),
    }
    chosen = FORMATS[auto.format]
    if auto.format != "off":
        work[f"ours, {chosen}"] = partial(score_image, Predictor([net], amp=auto.format), image, label)
    times = alternate(work, rounds)
    base = times["straightforward, fp32"].seconds
    rows = [row(f"one image, {name}", timing, times=base / timing.seconds) for name, timing in times.items()]
    rows.append(row(f"  auto: {chosen} ({auto.reason})", times=base / times[f"ours, {chosen}"].seconds))
    return rows + _after_the_network(config, net, image, label, rounds)


def score_image(predictor: Predictor, image: Tensor, label: Tensor) -> np.ndarray:
    """Confusion matrix (C, C) of an image, as advent.evaluation.evaluate.score computes it."""
    logits = predictor(image)
    if bad := not_finite(["image"], logits):
        raise AssertionError(bad)
    ids = upsample_argmax(logits[0], label.shape)
    return confusion_counts(label, ids, logits.shape[1]).cpu().numpy()


def _after_the_network(
    config: Config, net: SegmentationNetwork, image: Tensor, label: Tensor, rounds: int
) -> list[Row]:
    """What scoring, ranking and pseudo labels add to a forward pass, as shares of it in fp32."""
    device, classes, size = image.device, config.NUM_CLASSES, tuple(image.shape[-2:])
    with torch.inference_mode():
        logits = forward(net, image).main
    big = torch.randn(1, classes, *size, device=device)
    depth = torch.rand(1, 1, *size, device=device)

    @torch.inference_mode()
    def passed() -> None:
        net(image)

    @torch.inference_mode()
    def after() -> None:
        confusion_counts(label, upsample_argmax(logits[0], label.shape), classes)

    @torch.inference_mode()
    def released() -> None:
        prediction = functional.interpolate(logits, size=label.shape, mode="bilinear", align_corners=True)[0].argmax(0)
        cells = classes * label.cpu().numpy().astype(np.int64) + prediction.cpu().numpy()
        np.bincount(cells.ravel(), minlength=classes**2)

    @torch.inference_mode()
    def ranking() -> None:
        resize_bilinear(logits, size)
        ranking_scores(big, depth)
        pseudo_label(big)

    @torch.inference_mode()
    def pseudo() -> None:
        resize_bilinear(logits, size)
        pseudo_label(big, 0.9)

    work: dict[str, Callable[[], object]] = {
        "forward pass, fp32": passed,
        "upsampling, argmax, counting": after,
        "  the same, straightforward": released,
        "ranking: upsampling, score, label": ranking,
        "ISL: upsampling, threshold, label": pseudo,
    }
    times = alternate(work, rounds)
    base = times["forward pass, fp32"].seconds
    return [row(label, timing, share=timing.seconds / base) for label, timing in times.items()]


def pseudo_label_size(device: torch.device, rounds: int) -> list[Row]:
    """File size of a pseudo label, compared with the int64 array of the authors' code."""

    scene = render(np.random.default_rng(5), 1024, 512, "real")
    with tempfile.TemporaryDirectory() as folder:
        write_label(Path(folder), "a.png", scene.label.astype(np.uint8))
        size = (Path(folder) / "a.png").stat().st_size
    return [row("pseudo label 1024x512 as PNG", bytes=size, share=size / (8 * 1024 * 512))]


def prediction(device: torch.device, rounds: int) -> list[Row]:
    """`daf.predict` of one 1024x512 image in memory: resize, forward pass, class map and depth at image size."""
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (512, 1024, 3), np.uint8))
    rows = []
    for cfg, name in (("quick:daf", "quick"), (FULL, "full ResNet-101")):
        config = load_config(cfg, ["TRAIN.RESTORE_FROM=null", "MODEL.ENCODER_WEIGHTS=null"])
        plain = Model(
            to_device(random_network(config), device).eval(),
            config,
            class_set(config),
            (1024, 512),
            tuple(config.TRAIN.IMG_MEAN),
            "stretch",
            device,
            "off",
            True,
        )
        work = {amp: partial(predict_batch, replace(plain, amp=amp), [picture]) for amp in ("off", "bf16")}
        for amp, timing in alternate(work, rounds).items():
            words = f"one image 1024x512, {name}, {'fp32' if amp == 'off' else amp}"
            rows.append(row(words, timing, per_second=1 / timing.seconds))
    return rows


def operations(device: torch.device, rounds: int) -> list[Row]:
    """Counted FLOPs of a step's two network passes for each protocol's sizes, and bytes moved for the smallest."""
    rows = []
    for cfg in (LOW, FULL, "ep3_dg"):
        setup = bench(cfg, device)
        rows.append(row(f"two passes, {cfg}", gflop=count_flops(setup.passes) / 1e9))
        if cfg == LOW:
            rows.append(row(f"  whole step, {cfg}", gb=count_bytes(setup.step) / 1e9))
    return rows


SECTIONS: dict[str, Callable[[torch.device, int], Sequence[Row]]] = {
    "machine": machine,
    "step": step,
    "formats": formats,
    "memory": memory,
    "memory_estimate": memory_estimate,
    "compile": compiled,
    "evaluation": evaluation,
    "labels": pseudo_label_size,
    "data": reading,
    "predict": prediction,
    "operations": operations,
    "scaling": scaling,
    "cost": cost,
}
