"""Measurements of scripts/gpu_check.py: memory and time of the real configs' steps, rates of the stages after them."""

from __future__ import annotations

import gc
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

import make_streets
import predict
from advent.config.loading import dump_config, load_config
from advent.errors import first_line
from advent.utils.serialization import write_text
from ida.cli import evaluation_command, ranking_command
from performance.memory import ESTIMATED, step_memory
from performance.networks import bench, random_network
from performance.timing import Row, alternate, row
from streets.pictures import paths

# Rehearsal on a CPU: the same step with a small network on small images.
SMALL_RESNET = ["MODEL.LAYERS=[1,1,1,1]", "MODEL.WIDTH=8"]
SMALL_RESNET += ["TRAIN.INPUT_SIZE_SOURCE=[64,48]", "TRAIN.INPUT_SIZE_TARGET=[64,48]"]
SMALL_CROPS = ["MODEL.ENCODER=timm:vit_tiny_patch16_224", "MODEL.HEAD_WIDTH=[8,16]", "SELF_TRAINING.MASK_BLOCK=8"]
SMALL_CROPS += [f"{key}=[56,56]" for key in ("AUGMENT.CROP", "TRAIN.PREDICT_CROP", "TRAIN.PREDICT_STRIDE")]
RUNS = 5
RENDERED = 8  # scenes per split; further images are copies, because rendering takes seconds per image of 1024x512


def real_steps(device: torch.device, small: bool) -> Iterator[Row]:
    """Memory and time of one training step of each real config, with random weights and batches."""
    for label, (cfg, overrides) in ESTIMATED.items():
        shrunk = () if not small else SMALL_RESNET if cfg.startswith("ep1:") else SMALL_CROPS
        words = ["MODEL.ENCODER_WEIGHTS=null", *overrides, *shrunk]
        config = load_config(cfg, ["TRAIN.RESTORE_FROM=null", *words])
        estimate = step_memory(config).peak
        try:
            yield _one_step(label, cfg, words, device, small, estimate)
        except torch.cuda.OutOfMemoryError as error:
            yield row(label, skipped=f"not enough memory: {first_line(error, 120)}", estimate_bytes=estimate)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _one_step(label: str, cfg: str, words: list[str], device: torch.device, small: bool, estimate: int) -> Row:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    setup = bench(cfg, device, words)
    setup.step()  # makes the optimizer's states
    timing = alternate({label: setup.step}, 1 if small else RUNS)[label]
    peaks = {}
    if device.type == "cuda":
        reserved = torch.cuda.max_memory_reserved(device)
        peaks = {"peak_bytes": torch.cuda.max_memory_allocated(device), "reserved_bytes": reserved}
    return row(label, timing, **peaks, estimate_bytes=estimate)


def rates(device: torch.device, small: bool) -> Iterator[Row]:
    """Images per second of scoring, ranking and prediction as commands, on rendered streets: EP1's network and sizes.

    A command's whole work counts: loading the checkpoint, decoding, writing. Imports do not.
    """
    count, size = (10, "80x60") if small else (48, "1024x512")
    overrides = ["TARGET=streets_real", "TRAIN.RESTORE_FROM=null", "NUM_WORKERS=0" if small else "NUM_WORKERS=4"]
    overrides += [*SMALL_RESNET, "TEST.INPUT_SIZE_TARGET=[64,48]"] if small else []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _render(root / "streets_real", size, count)
        config, weights = load_config("ep1:daf", overrides), root / "model_0.pth"
        torch.save(random_network(config).state_dict(), weights)
        write_text(root / "config.yml", dump_config(config))  # predict.py reads it
        common = ["--data-root", str(root), "--exp-root", str(root / "exp"), f"--device={device}", *overrides]
        score = ["--cfg", "ep1:daf", *common, "TEST.MODE=single", f"TEST.RESTORE_FROM={weights}"]
        rank = ["--cfg", "ep1:rank", *common, f"TRAIN.RESTORE_FROM={weights}"]
        show = ["--checkpoint", str(weights), f"--device={device}", "--output", str(root / "out")]
        show += ["--input", str(root / "streets_real/leftImg8bit/val")]
        commands: dict[str, Callable[[], int]] = {
            "scoring (test.py)": lambda: evaluation_command("test.py", "", score),
            "ranking with pseudo labels (entropy.py)": lambda: ranking_command("entropy.py", "", rank),
            "prediction (predict.py)": lambda: predict.main(show),
        }
        for label, command in commands.items():
            began = time.perf_counter()
            if command():
                raise RuntimeError(f"{label} failed")
            seconds = time.perf_counter() - began
            yield row(f"{label}, {size}", seconds=seconds, per_second=count / seconds)


def _render(out: Path, size: str, count: int) -> None:
    """`count` images per split in Cityscapes' layout, of which the first RENDERED are different ones."""
    scenes = min(count, RENDERED)
    options = ["--style", "real", "--size", size, "--count", str(scenes), "--val-count", str(scenes)]
    if make_streets.main(["--out", str(out), *options]):
        raise RuntimeError("make_streets.py failed")
    for val in (False, True):
        for index in range(scenes, count):
            originals, copies = (paths("cityscapes", out, i, val) for i in (index % scenes, index))
            for name, original in originals.items():
                copies[name].parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(original, copies[name])


MEASUREMENTS: dict[str, Callable[[torch.device, bool], Iterator[Row]]] = {"steps": real_steps, "rates": rates}
