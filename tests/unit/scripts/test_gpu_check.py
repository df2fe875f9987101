"""scripts/gpu_check.py: records of parts that pass, fail and hang; the page's blocks."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

import gpu_check
import make_streets
from advent.errors import ConfigError
from advent.utils.paths import CONFIGS
from advent.utils.serialization import read_json
from performance import gpu

CPU = torch.device("cpu")
PAGE = "# Page\n\n<!-- gpu: rates -->\nold\n<!-- end -->\nrest\n"


def part_of(tmp_path: Path, body: str) -> gpu_check.Part:
    file = tmp_path / "test_part.py"
    file.write_text(f"def test_one():\n    {body}\n")
    return gpu_check.Part("a part", 60, (str(file), "--noconftest"))


def test_a_part_that_fails_tells_its_first_error(tmp_path: Path) -> None:
    record = gpu_check.run_part(part_of(tmp_path, "raise ValueError('broken')"), CPU, 300)
    assert record["state"] == "failed"
    assert record["error"] == "ValueError: broken"


def test_a_part_that_hangs_is_stopped(tmp_path: Path) -> None:
    record = gpu_check.run_part(part_of(tmp_path, "import time; time.sleep(600)"), CPU, 0.5)
    assert record["state"] == "timed out"
    assert record["error"] == "no end within 0 s"


def test_an_unknown_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--only ratess"):
        gpu_check.check("cpu", tmp_path / "gpu.json", ["ratess"])


def test_the_tree_fits_on_a_machine_without_a_network() -> None:
    """Tracked files only, as `git archive` sends them; at most 64 MiB with everything that the check needs."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=gpu_check.ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git checkout")
    files = [gpu_check.ROOT / name for name in listed.stdout.split("\0") if name]
    needed = {Path(option.partition("::")[0]) for part in gpu_check.PARTS for option in part.tests if "/" in option}
    assert all((gpu_check.ROOT / name).exists() for name in needed)
    assert sum(file.stat().st_size for file in files if file.is_file()) < 64 * 2**20


def test_every_part_of_a_gpu_is_there() -> None:
    """The limits of the parts, and one limit for all of them: nine minutes with start and report."""
    names = [part.name for part in gpu_check.PARTS]
    for words in ("golden", "fp32", "bf16", "fp16", "compile", "waiting", "resume", "gloo", "NCCL", "steps", "rates"):
        assert any(words in name for name in names), words
    assert all(0 < part.seconds <= gpu_check.TOTAL < 540 for part in gpu_check.PARTS)
    assert {part.name for part in gpu_check.PARTS if not part.tests} == set(gpu_check.MEASUREMENTS)


def test_further_images_are_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "RENDERED", 1)
    rendered: list[list[str]] = []
    really = make_streets.main

    def main(argv: list[str]) -> int:
        rendered.append(argv)
        return really([*argv, "--workers", "1"])

    monkeypatch.setattr(make_streets, "main", main)
    gpu._render(tmp_path, "64x48", 3)
    assert rendered[0][-4:] == ["--count", "1", "--val-count", "1"]
    for folder in ("leftImg8bit", "gtFine"):
        images = [file.read_bytes() for file in (tmp_path / folder / "train").rglob("*.png")]
        assert len(images) == 3
        assert len(set(images)) == 1


def test_blocks_of_a_page() -> None:
    assert "Not yet run on a GPU.\n<!-- end -->\nrest" in gpu_check.fill_page(PAGE, None)
    parts = {"rates": {"state": "ok", "seconds": 3.0, "rows": [{"what": "scoring", "per_second": 12.5}]}}
    record = {
        "rehearsal": False,
        "device": {"name": "Some GPU"},
        "versions": {"torch": "2.14"},
        "parts": parts,
    }
    filled = gpu_check.fill_page(PAGE, record)
    assert "Some GPU, PyTorch 2.14:" in filled
    assert "12.5" in filled
    assert "old" not in filled
    assert gpu_check.fill_page(PAGE, {**record, "rehearsal": True}) == gpu_check.fill_page(PAGE, None)
    with pytest.raises(ConfigError, match="expected one of parts"):
        gpu_check.fill_page(PAGE.replace("rates", "speed"), None)


def test_the_performance_page_is_up_to_date() -> None:
    text = (CONFIGS.parent / "docs/performance.md").read_text(encoding="utf-8")
    record = read_json(gpu_check.OUT) if gpu_check.OUT.is_file() else None
    assert gpu_check.fill_page(text, record) == text
    assert text.count("<!-- gpu: ") == len(gpu_check.BLOCKS)
