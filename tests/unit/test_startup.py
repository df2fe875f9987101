"""Start of a command: it must not import what it does not use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = ("torchvision", "timm", "sympy", "matplotlib", "pandas", "onnx")  # each takes up to seconds


def test_a_command_starts_without_the_packages_of_single_options() -> None:
    code = f"import sys, ida.cli; print([name for name in {HEAVY} if name in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
