"""A run that is killed and continued ends in the weights of one that was not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
import torch

import train

ROOT = Path(__file__).parents[2]
LONG = ["TRAIN.EARLY_STOP=30", "TRAIN.SAVE_LAST=true"]


@pytest.mark.slow
def test_killed_and_resumed(data):
    assert train.main(tiny.command_line(data, "quick/dg", "--exp-suffix=whole", *LONG)) == 0
    arguments = tiny.command_line(data, "quick/dg", "--exp-suffix=killed", *LONG)
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *arguments], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    killed = data / "exp/quick_killed/daf"
    deadline = time.monotonic() + 120
    while not (killed / "model_6.pth").exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "finished.json").exists()
    assert train.main([*arguments, "--resume"]) == 0
    whole = data / "exp/quick_whole/daf"
    assert (whole / "metrics.jsonl").read_text() == (killed / "metrics.jsonl").read_text()
    ours, theirs = (torch.load(folder / "model_30.pth", weights_only=True) for folder in (whole, killed))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
