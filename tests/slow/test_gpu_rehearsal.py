"""scripts/check.sh --gpu cpu: the GPU check in small, as the real command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from advent.utils.paths import CONFIGS


@pytest.mark.slow
def test_all_parts_pass_on_the_cpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = ["bash", str(CONFIGS.parent / "scripts/check.sh"), "--gpu", "cpu", "--out", str(out)]
    done = subprocess.run(command, env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True)
    record = json.loads(out.read_text())
    assert done.returncode == 0, record["parts"]
    assert record["rehearsal"]
    states = {name: part["state"] for name, part in record["parts"].items()}
    assert list(states.values()).count("skipped") == 3, states
    assert set(states.values()) == {"ok", "skipped"}
    assert sum(len(part["rows"]) for part in record["parts"].values()) > 40
