"""scripts/doctor.py as the tests call it: its exit code and its text."""

from __future__ import annotations

from pathlib import Path

import pytest

import doctor


def examine(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Exit code and text, each finding on one line."""
    try:
        code = doctor.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = int(str(stop.code))
    captured = capsys.readouterr()
    return code, captured.out.replace("\n           ", " ") + captured.err


def on_dataset(capsys: pytest.CaptureFixture[str], name: str, root: Path, *more: object) -> tuple[int, str]:
    return examine(capsys, "--dataset", name, "--root", root, *more)
