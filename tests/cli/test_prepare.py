"""scripts/prepare.py on a config: stages train to the same bytes from the cache; interruption does no harm."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import prepare
import train
from advent.dataset.base_dataset import StreetDataset
from advent.dataset.cache import Cache
from helpers import tiny_data

SCRIPT = Path(__file__).parents[2] / "scripts/prepare.py"


def files_of(root: Path) -> dict[str, bytes]:
    """Checkpoints and metrics of all runs: relative path -> bytes."""
    kept = [p for p in sorted(root.rglob("*")) if p.is_file() and p.suffix in (".pth", ".jsonl")]
    return {str(p.relative_to(root)): p.read_bytes() for p in kept}


def entries(root: Path) -> list[Path]:
    return sorted((root / "cache").rglob("*.npz"))


def test_training_from_the_cache_writes_the_same_bytes(
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    line = tiny_data.command_line(data, "quick:daf")
    assert train.main(line) == 0
    plain = files_of(data / "exp")
    shutil.rmtree(data / "exp")
    assert prepare.main(line) == 0
    assert "8 made, 0 kept" in capsys.readouterr().out
    assert len(entries(data)) == 3 * tiny_data.COUNT
    with monkeypatch.context() as patch:
        patch.setattr(StreetDataset, "decode", None)
        with caplog.at_level(logging.INFO):
            assert train.main([*line, "DATA_CHECK=0"]) == 0
    assert files_of(data / "exp") == plain
    assert "8 of 8 images are cached" in caplog.text


def test_existing_entries_are_kept(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = tiny_data.command_line(data, "quick:daf")
    assert prepare.main([*line, "--role", "target"]) == 0
    assert len(entries(data)) == tiny_data.COUNT
    entries(data)[3].unlink()
    capsys.readouterr()
    assert prepare.main([*line, "--role", "target"]) == 0
    assert "1 made, 7 kept" in capsys.readouterr().out


def test_a_target_without_labels_has_no_test_part(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(data / "CamVid/valannot")
    line = tiny_data.command_line(data, "quick:daf")
    assert prepare.main(line) == 0
    assert "test: skipped (" in capsys.readouterr().out
    assert prepare.main([*line, "--role", "test"]) == 2


def test_a_bad_picture_is_named(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "CamVid/train/0005.png").write_bytes(b"x")
    assert prepare.main(tiny_data.command_line(data, "quick:daf", "--role=target", "--workers=1")) == 2
    assert "0005.png: cannot be read as an image" in capsys.readouterr().err
    assert all(entry.stat().st_size for entry in entries(data))


def test_full_disk(data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    original, written = Cache.write, []

    def full(self: Cache, name: str, *content: Any) -> None:
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device", name)
        written.append(name)
        original(self, name, *content)

    line = tiny_data.command_line(data, "quick:daf", "--role=source", "--workers=1")
    monkeypatch.setattr(Cache, "write", full)
    assert prepare.main(line) == 2
    assert "No space left on device; make room, then: python scripts/prepare.py" in capsys.readouterr().err
    monkeypatch.undo()
    assert len(entries(data)) == 3
    assert prepare.main(line) == 0
    assert "5 made, 3 kept" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--workers=-1"], ["--role=all"], ["DATA_CACHE=null"]])
def test_mistakes_on_the_command_line(data: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = prepare.main(tiny_data.command_line(data, "quick:daf", *arguments))
    except SystemExit as stop:
        code = int(str(stop.code))
    assert code == 2
    assert arguments[0].split("=")[0] in capsys.readouterr().err
    assert not (data / "cache").exists()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_and_called_again(tmp_path: Path, how: signal.Signals) -> None:
    tiny_data.make_source(tmp_path / "streets", 400)
    tiny_data.make_target(tmp_path / "CamVid")
    command = [
        sys.executable,
        str(SCRIPT),
        *tiny_data.command_line(tmp_path, "quick:daf", "--role=source", "--workers=1"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not entries(tmp_path) and process.poll() is None:
        time.sleep(0.002)
    os.kill(process.pid, how)
    process.wait()
    assert 0 < len(entries(tmp_path)) < 400
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0
    written = int(again.stdout.partition(" made")[0].rpartition(": ")[2])
    assert 0 < written < 400
    assert len(entries(tmp_path)) == 400
    assert not list(tmp_path.rglob("*.tmp"))
