"""The house: imports point down only, doors are short, and a foreign advent is noticed."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from daf.own_advent import foreign_advent

ROOT = Path(__file__).parents[2]
ALLOWED = {"advent": {"advent"}, "daf": {"advent", "daf"}, "ida": {"advent", "daf", "ida"}}
DOORS = ["train.py", "test.py", "train_isl.py", "entropy.py", "train_intra.py", "test_intra.py"]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


@pytest.mark.parametrize("floor", ALLOWED)
def test_imports_point_down(floor):
    files = list((ROOT / floor).rglob("*.py"))
    assert files
    own = {"advent", "daf", "ida", "scripts", *(door.removesuffix(".py") for door in DOORS)}
    for file in files:
        used = {name.split(".")[0] for name in imported(file)} & own
        assert used <= ALLOWED[floor], f"{file} imports {used - ALLOWED[floor]}"


@pytest.mark.parametrize("door", DOORS)
def test_doors_are_short(door):
    assert len((ROOT / door).read_text().splitlines()) <= 60


def test_nothing_lists_the_foreign_package_as_a_requirement():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    assert needed
    assert not [name for name in needed if re.match(r"advent\b", name, re.IGNORECASE)]


def test_own_advent_is_recognised():
    assert foreign_advent() is None


def test_a_foreign_advent_is_named(tmp_path):
    (tmp_path / "advent").mkdir()
    (tmp_path / "advent" / "__init__.py").write_text("")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import train; train.main([])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 2
    assert str(tmp_path / "advent") in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_door_runs_as_a_command():
    done = subprocess.run([sys.executable, "train.py", "--help"], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0
    assert "--resume" in done.stdout
