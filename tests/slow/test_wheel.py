"""A wheel in a fresh environment: the command, training and inference from an empty folder, without a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

import advent
from helpers import tiny_data

ROOT = Path(__file__).parents[2]
FOLDERS, FILES = (
    ("advent", "daf", "ida", "configs", "pretrained"),
    ("pyproject.toml", "setup.py", "README.md", "LICENSE"),
)
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | {"OMP_NUM_THREADS": "1"}

pytestmark = pytest.mark.slow


def run(command: Sequence[object], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), cwd=folder, env=CLEAN, capture_output=True, text=True, timeout=1800)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", "dist"]
    done = run([sys.executable, "-m", "pip", "wheel", *options, "."], source)
    assert done.returncode == 0, done.stderr
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def dgada(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of a new environment with the wheel; the libraries are those of this environment."""
    folder = tmp_path_factory.mktemp("new") / "venv"
    venv.create(folder, system_site_packages=True, with_pip=False)
    bin_folder = folder / ("Scripts" if os.name == "nt" else "bin")
    python = next(bin_folder.glob("python*"))
    options = ["--no-deps", "--no-index", "--disable-pip-version-check"]
    done = run([sys.executable, "-m", "pip", "--python", python, "install", *options, wheel], folder)
    assert done.returncode == 0, done.stderr
    found = run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).stdout.strip()
    # A folder in a .pth file is added without its own .pth files, so an editable install of this project stays out.
    (Path(found) / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return bin_folder / "dgada"


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "eigene Dateien/Übung 1"
    folder.mkdir(parents=True)
    return folder


def test_the_wheel_has_packages_and_configs_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"advent", "daf", "ida", "depth_guided_adaptation"}
    shipped = {name.removeprefix("advent/") for name in names if name.startswith("advent/configs/")}
    assert shipped == {p.relative_to(ROOT).as_posix() for p in (ROOT / "configs").rglob("*") if p.is_file()}
    checkpoint = {name for name in names if name.startswith("advent/pretrained/")}
    assert checkpoint == {f"advent/pretrained/streets.{suffix}" for suffix in ("safetensors", "yml", "md")}


def test_train_test_share_and_predict_from_an_empty_folder(dgada: Path, empty: Path) -> None:
    assert run([dgada, "--version"], empty).stdout == f"dgada {advent.__version__}\n"
    tiny_data.make_data(empty / "data")
    tiny = [*tiny_data.NETWORK, *tiny_data.SIZES, *tiny_data.SHORT]
    done = run([dgada, "train", "--cfg", "quick:daf", "--device", "cpu", *tiny], empty)
    assert done.returncode == 0, done.stderr
    stage = empty / "experiments/quick/daf"
    assert (stage / "model_6.pth").is_file()
    assert "commit" not in (stage / "provenance.json").read_text()
    done = run([dgada, "test", "--cfg", "quick:daf", "--device", "cpu", *tiny], empty)
    assert done.returncode == 0, done.stderr
    done = run([dgada, "checkpoint", stage / "model_6.pth", "--to", "folder", "--out", "shared model"], empty)
    assert done.returncode == 0, done.stderr
    assert "dgada test --cfg" in done.stdout
    assert "CamVid val, 8 images" in (empty / "shared model/README.md").read_text()
    photos = empty / "data/CamVid/val"
    done = run([dgada, "predict", "--checkpoint", "shared model", "--input", photos, "--output", "out"], empty)
    assert done.returncode == 0, done.stderr
    assert len(list((empty / "out/classes").glob("*.png"))) == tiny_data.COUNT


def test_the_shipped_checkpoint_predicts_without_a_checkout(dgada: Path, empty: Path) -> None:
    tiny_data.make_target(empty / "photos", count=1)
    done = run([dgada, "predict", "--input", "photos/val", "--device", "cpu"], empty)
    assert done.returncode == 0, done.stderr
    assert "using the shipped pretrained/streets.safetensors" in done.stderr
    assert (empty / "predictions/classes/0000.png").is_file()
    done = run([dgada, "test", "--cfg", "pretrained/streets.yml", "--device", "cpu"], empty)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if "error:" in line]
    assert "streets_test is rendered by a tool of the checkout" in line


def test_errors_are_one_line_and_name_the_command(dgada: Path, empty: Path) -> None:
    for arguments, words in (
        (["train", "--cfg", "quik"], ["no such config", str(empty), "site-packages", "did you mean quick"]),
        (["isl", "--cfg", "quick"], ["Run: dgada train --cfg quick:daf"]),
        (["report"], ["report is a tool of the checkout"]),
    ):
        done = run([dgada, *arguments], empty)
        assert done.returncode == 2
        (line,) = [line for line in done.stderr.splitlines() if "error:" in line]
        assert "Traceback" not in done.stderr
        for word in words:
            assert word in line
