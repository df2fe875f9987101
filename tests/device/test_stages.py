"""Stages on rendered streets: every method in every precision, compiled, and resumed to the same bytes."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from advent.training.learner import Learner
from helpers import kill_resume_stress, tiny_data
from helpers.device import DEVICE, needs_cuda
from helpers.process_pool import run_script

FUSION = ["MODEL.HEAD=fusion", "MODEL.HEAD_WIDTH=[8,16]", "TRAIN.OPTIMIZER=adamw", "TRAIN.DA_METHOD=SelfTraining"]
LABELS = ["SELF_TRAINING.THRESHOLD=0.2"]
GUIDED = [
    *(FUSION + LABELS),
    "MODEL.DEPTH_OUTPUT=log",
    "TRAIN.DEPTH_LOSS=log_l1",
    "SELF_TRAINING.MASK_RATIO=0.5",
    "SELF_TRAINING.MASK_BLOCK=8",
    "DEPTH.ORDER=true",
    "DEPTH.MIX_LOSS=0.1",
    "DEPTH.PRIOR=0.3",
    "DEPTH.MASKED=0.1",
]
METHODS = {
    "SourceOnly": ["TRAIN.DA_METHOD=SourceOnly", "MODEL.NAME=DeepLabv2"],
    "MinEnt": ["TRAIN.DA_METHOD=MinEnt", "MODEL.NAME=DeepLabv2"],
    "AdvEnt": ["TRAIN.DA_METHOD=AdvEnt", "MODEL.NAME=DeepLabv2"],
    "DADA": ["TRAIN.DA_METHOD=DADA", "MODEL.NAME=DeepLabv2_depth_DADA"],
    "DAF": [],
    "SelfTraining": [*FUSION, *LABELS],
    "SelfTraining, masks and depth": GUIDED,
}
PRECISIONS = ["off", "bf16", "fp16"]
THREE = ["TRAIN.EARLY_STOP=3", "TRAIN.LOG_EVERY=1", "TRAIN.SAVE_LAST=true"]


def run(root: Path, script: str, cfg: str, name: str, *options: str) -> Path:
    """Run a stage on the device; returns the experiment's folder."""
    line = tiny_data.command_line(root, cfg, f"--device={DEVICE}", f"--exp-suffix={name}", "TARGET=streets_real")
    code, _, error = run_script(script, [*line, *options])
    assert code == 0, error.strip()[-2000:]
    return root / f"exp/quick_{name}"


def require_finite(folder: Path) -> None:
    """The logged losses and the weights are finite numbers."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) >= 3
    for record in lines:
        assert all(math.isfinite(value) for value in record.values() if isinstance(value, float)), record
    for tensor in torch.load(max(folder.glob("model_*.pth")), map_location="cpu").values():
        assert bool(torch.isfinite(tensor).all())


@pytest.mark.parametrize("amp", PRECISIONS)
@pytest.mark.parametrize("method", METHODS)
def test_three_iterations(streets: Path, method: str, amp: str) -> None:
    name = f"{list(METHODS).index(method)}_{amp}"
    require_finite(run(streets, "train", "quick:daf", name, *THREE, f"TRAIN.AMP={amp}", *METHODS[method]) / "daf")


@pytest.mark.parametrize("amp", PRECISIONS)
def test_isl_ranking_ida_and_scores(streets: Path, amp: str) -> None:
    name, options = f"chain_{amp}", (*THREE, f"TRAIN.AMP={amp}")
    for script, cfg in (("train", "quick:daf"), ("train_isl", "quick:isl"), ("entropy", "quick:rank")):
        folder = run(streets, script, cfg, name, *options)
    folder = run(streets, "train_intra", "quick:ida", name, *options)
    require_finite(folder / "isl")
    require_finite(folder / "ida")
    run(streets, "test_intra", "quick:ida", name, *options)
    assert (folder / "ida/results.json").is_file()


@needs_cuda
@pytest.mark.parametrize("method", ["DAF", "SelfTraining, masks and depth"])
def test_a_compiled_run_is_the_eager_run_but_for_rounding(streets: Path, method: str) -> None:
    """Both in channels last, the format of CUDA."""
    weights = []
    for compiled in ("false", "true"):
        name = f"compiled_{compiled}_{list(METHODS).index(method)}"
        options = [*THREE, "TRAIN.TF32=off", f"TRAIN.COMPILE={compiled}", *METHODS[method]]
        folder = run(streets, "train", "quick:daf", name, *options) / "daf"
        require_finite(folder)
        weights.append(torch.load(max(folder.glob("model_*.pth")), map_location="cpu"))
    eager, fast = weights
    assert eager.keys() == fast.keys()
    for name, tensor in eager.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(fast[name], tensor, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("amp", ["off", "bf16"])
@pytest.mark.parametrize("method", ["DAF", "SelfTraining, masks and depth"])
def test_a_resumed_run_writes_the_same_bytes(
    streets: Path, monkeypatch: pytest.MonkeyPatch, method: str, amp: str
) -> None:
    name = f"resumed_{list(METHODS).index(method)}_{amp}"
    options = ["--resume", "--deterministic", "TRAIN.EARLY_STOP=5", "TRAIN.SAVE_LAST=true", f"TRAIN.AMP={amp}"]
    folder = run(streets, "train", "quick:daf", name, *options, *METHODS[method]) / "daf"
    reference = shutil.move(folder, folder.with_name("reference"))
    really = Learner.update

    def update(self: Learner, iteration: int, *batches: object) -> object:
        if iteration == 4:
            raise KeyboardInterrupt
        return really(self, iteration, *batches)  # type: ignore[arg-type]

    monkeypatch.setattr(Learner, "update", update)
    line = tiny_data.command_line(streets, "quick:daf", f"--device={DEVICE}", f"--exp-suffix={name}")
    assert run_script("train", [*line, "TARGET=streets_real", *options, *METHODS[method]])[0] == 130
    monkeypatch.undo()
    run(streets, "train", "quick:daf", name, *options, *METHODS[method])
    ours, theirs = kill_resume_stress.contents(folder), kill_resume_stress.contents(Path(reference))
    assert {file for file in theirs if ours.get(file) != theirs[file]} == set()
