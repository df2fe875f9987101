"""Import rules: advent <- daf <- ida <- scripts, and the layers inside advent."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from daf.import_check import foreign_advent

ROOT = Path(__file__).parents[2]
STAGE_SCRIPTS = ["train.py", "test.py", "train_isl.py", "entropy.py", "train_intra.py", "test_intra.py"]
TOOLS = sorted(path.stem for path in (ROOT / "scripts").iterdir() if path.suffix == ".py" or path.is_dir())
PACKAGES = {
    "advent": {"advent"},
    "daf": {"advent", "daf"},
    "ida": {"advent", "daf", "ida"},
    "scripts": {"advent", "daf", "ida", *TOOLS},
}
# A module of advent imports from its own folder and from rows above it, not from the other folders in its row.
LAYERS = [
    ["errors"],
    ["utils"],
    ["config.schema"],
    ["runtime"],
    ["dataset", "model"],
    ["config", "methods"],
    ["checkpoints", "doctor"],
    ["build"],
    ["evaluation"],
    ["training"],
    ["domain_adaptation"],
    ["cli"],
]
# Allowed imports within a row: (importing folder, imported folder).
NEIGHBOURS: set[tuple[str, str]] = set()


def imported(path: Path) -> list[str]:
    """Dotted names of the modules that a file imports, at any depth."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # `from package import name`: the name may be a module.
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def layer_of(name: str) -> str:
    """The folder (or top-level module) of advent that a dotted name belongs to."""
    # The typed config is plain data: every layer above utils may take a section of it.
    plain = ("advent.config.schema", "advent.config.value_types")
    return "config.schema" if name.startswith(plain) else name.split(".")[1]


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_depend_one_way(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    known = {"advent", "daf", "ida", "scripts", *TOOLS, *(Path(script).stem for script in STAGE_SCRIPTS)}
    for file in files:
        used = {name.split(".")[0] for name in imported(file)} & known
        assert used <= PACKAGES[package], f"{file} imports {used - PACKAGES[package]}"


def test_every_folder_of_advent_has_a_layer():
    ranked = {name for row in LAYERS for name in row}
    folders = {
        path.stem for path in (ROOT / "advent").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert folders - {"__init__"} == ranked - {"config.schema"}


def test_layers_of_advent_depend_one_way():
    rank = {name: number for number, row in enumerate(LAYERS) for name in row}
    upward = []
    for file in sorted((ROOT / "advent").rglob("*.py")):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        if module == "advent.__init__":
            continue
        for name in imported(file):
            # Every module may `import advent` for its version.
            if not name.startswith("advent.") or name == "advent.__version__":
                continue
            layer, imported_layer = layer_of(module), layer_of(name)
            if (
                layer != imported_layer
                and rank[imported_layer] >= rank[layer]
                and (layer, imported_layer) not in NEIGHBOURS
            ):
                upward.append(f"{module} -> {name}")
    assert not upward, "\n".join(upward)


def test_no_two_modules_import_each_other():
    files = {
        ".".join(f.relative_to(ROOT).with_suffix("").parts): f
        for p in ("advent", "daf", "ida")
        for f in (ROOT / p).rglob("*.py")
    }
    graph = {
        name: {next((m for m in (i, i.rpartition(".")[0]) if m in files), name) for i in imported(f)} - {name}
        for name, f in files.items()
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in graph[name]:
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("script", STAGE_SCRIPTS)
def test_stage_scripts_are_short(script):
    assert len((ROOT / script).read_text().splitlines()) <= 60


def test_pypi_advent_is_not_a_requirement():
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


def test_a_stage_script_runs_as_a_command():
    done = subprocess.run([sys.executable, "train.py", "--help"], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0
    assert "--resume" in done.stdout
