"""Run scripts/doctor.py in process and return its exit code and output."""

from __future__ import annotations

from pathlib import Path

import pytest

import doctor


def examine(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Exit code and output of the doctor, one line per finding."""
    try:
        code = doctor.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = int(str(stop.code))
    captured = capsys.readouterr()
    return code, captured.out.replace("\n           ", " ") + captured.err


def on_dataset(capsys: pytest.CaptureFixture[str], name: str, root: Path, *options: object) -> tuple[int, str]:
    return examine(capsys, "--dataset", name, "--root", root, *options)
