"""Tests of a device, run by `bash scripts/check.sh --gpu` with TEST_DEVICE set; not part of the ordinary suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import make_streets
from helpers.device import DEVICE

collect_ignore_glob = [] if "TEST_DEVICE" in os.environ else ["test_*.py"]
SMALL = DEVICE.type == "cpu"  # a rehearsal


@pytest.fixture(scope="session")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data root with rendered streets as source (`streets`) and in another style as target (`streets_real`)."""
    root = tmp_path_factory.mktemp("data")
    common = ["--size", "80x60" if SMALL else "320x240", "--workers", "1", "--count", "6"]
    assert make_streets.main(["--out", str(root / "streets"), *common]) == 0
    real = ["--out", str(root / "streets_real"), "--style", "real", "--val-count", "2", "--seed", "2"]
    assert make_streets.main([*real, *common]) == 0
    return root
