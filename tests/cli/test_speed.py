"""Speed options: reduced precision with resume, compilation, the share of time spent waiting for data."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import test as test_script
import train
from helpers import tiny_data


def run(data: Path, *options: str) -> dict[str, torch.Tensor]:
    shutil.rmtree(data / "exp", ignore_errors=True)
    assert train.main(tiny_data.command_line(data, "quick:daf", *options)) == 0
    return torch.load(max((data / "exp/quick/daf").glob("model_*.pth")))


@pytest.mark.parametrize("amp", ["bf16", pytest.param("fp16", marks=pytest.mark.slow)])  # float16 is very slow on a CPU
def test_reduced_precision_resumes_to_the_same_weights(data: Path, amp: str) -> None:
    plain = run(data, f"TRAIN.AMP={amp}")
    shutil.rmtree(data / "exp")
    line = tiny_data.command_line(data, "quick:daf", f"TRAIN.AMP={amp}")
    assert train.main(line) == 0
    tiny_data.remove_end(data)
    assert train.main([*line, "--resume"]) == 0
    continued = torch.load(data / "exp/quick/daf/model_6.pth")
    assert all(torch.equal(plain[name], continued[name]) for name in plain)
    assert test_script.main(line) == 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_run_is_the_same_but_for_rounding(data: Path) -> None:
    plain, compiled = run(data), run(data, "TRAIN.COMPILE=true")
    assert plain.keys() == compiled.keys()
    for name, tensor in plain.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(compiled[name], tensor, rtol=0.05, atol=0.05)
    assert test_script.main(tiny_data.command_line(data, "quick:daf", "TRAIN.COMPILE=true")) == 0


def test_data_wait_share_is_recorded(data: Path) -> None:
    import json

    run(data)
    assert 0 <= json.loads((data / "exp/quick/daf/finished.json").read_text())["waited_for_data"] <= 1
