"""How each documented command is run in its shortest form: by a call in this process, or by a file that runs it."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import torch

from advent.build import build_network
from advent.checkpoints.io import save
from advent.config.loading import dump_config, load_config
from helpers import tiny_data
from helpers.documented import ROOT, Documented, words_of

CITYSCAPES_IDS = [7, 8, 11, 17, 21, 23, 24, 26]  # as tiny_data.SYNTHIA_IDS
TINY = [*tiny_data.NETWORK, *tiny_data.SIZES, *tiny_data.SHORT, "ISL.THRESHOLD=0.01", "DEVICE=cpu"]


@dataclass(frozen=True)
class Call:
    """A command of this project, called with tiny data; `extra` arguments come last and win.

    `slow`: it runs in tests/slow. `change`: words that are replaced (a count of scenes). `codes`: allowed exit codes.
    """

    pattern: str
    extra: Sequence[str] = ()
    change: tuple[tuple[str, str], ...] = ()
    slow: bool = False
    codes: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Covered:
    """A command that another file runs: the file must contain `words`, else this entry is wrong."""

    pattern: str
    file: str
    words: str


@dataclass(frozen=True)
class Install:
    """`pip install` with extras and constraints: both must exist. scripts/environment.sh installs."""

    pattern: str = r"pip install (-c constraints\.txt )?(-e )?['\"]?\.(\[[\w,]+\])?['\"]?"


Entry = Call | Covered | Install

TABLE: tuple[Entry, ...] = (
    Covered(r"python3 -m venv \.venv", "scripts/environment.sh", "-m venv .venv"),
    Covered(r"source \.venv/bin/activate", "scripts/environment.sh", "source .venv/bin/activate"),
    Install(),
    Covered(
        r"bash scripts/quickstart\.sh( --target DIR)?( --faithful)?",
        ".ci/run",
        'bash scripts/quickstart.sh --short --faithful "${target[@]}"',
    ),
    Covered(r"bash scripts/check\.sh", ".ci/run", "bash scripts/check.sh"),
    Covered(r"bash scripts/check\.sh --slow", "scripts/check.sh", '[ "${1:-}" = "--slow" ]'),
    Covered(r"bash scripts/docs\.sh", ".ci/run", "bash scripts/docs.sh"),
    Covered(r"python scripts/tutorial\.py( --short)?", ".ci/run", "python scripts/tutorial.py --short"),
    Covered(
        r'python -m pytest -m "not slow"',
        "scripts/check.sh",
        'python -m pytest -n auto --maxprocesses=8 --dist worksteal -m "not slow"',
    ),
    Covered(r"python -m pytest tests/golden", "pyproject.toml", 'testpaths = ["tests"]'),
    Call(r"dgada train .*", TINY),
    Call(
        r"python scripts/make_streets\.py .*",
        ["--workers", "1"],
        change=((r"--count \d+", "--count 2"), (r"--size \S+", "--size 64x48")),
    ),
    Call(r"python scripts/doctor\.py .*", codes=(0, 1)),
    Call(r"python scripts/prepare\.py --synthia-labels .*"),
    Call(r"python scripts/prepare\.py --cfg .*", [*tiny_data.SIZES, "DATA_CACHE=cache"]),
    Call(r"python scripts/pipeline\.py .*--status", TINY),
    Call(r"python scripts/pipeline\.py .*", TINY, slow=True),
    Covered(
        r"python test\.py --cfg pretrained/streets\.yml",
        "tests/cli/test_shipped_checkpoint.py",
        '"pretrained/streets.yml"',
    ),
    Covered(
        r"python scripts/compare_rankings\.py .*",
        "tests/unit/scripts/test_compare_rankings.py",
        "compare_rankings.main(",
    ),
    Covered(r"python scripts/score_coarse\.py .*", "tests/unit/scripts/test_score_coarse.py", "score_coarse.main("),
    Covered(r"python scripts/demo\.py", "tests/cli/test_demo.py", 'str(ROOT / "scripts/demo.py")'),
    Covered(r"python scripts/benchmark\.py( --benchmark \w+)? --cost", "tests/cli/test_benchmark_tool.py", '"--cost"'),
    Covered(
        r"python scripts/benchmark\.py --target DIR --picture \S+", "tests/cli/test_benchmark_tool.py", '"--picture"'
    ),
    Covered(r"python scripts/benchmark\.py --benchmark \w+", "tests/cli/test_benchmark_tool.py", '"--benchmark"'),
    Covered(
        r"python scripts/benchmark\.py --summary --curves --page \S+ \S+ --plot \S+",
        "tests/cli/test_benchmark_tool.py",
        '"--summary", "--curves"',
    ),
    Call(r"python (train|test)\.py .*", TINY, change=((r"CROP=\[512,512\]", "CROP=[32,32]"),)),
    Call(r"python scripts/predict\.py .*", ["--device", "cpu"]),
    Call(r"python scripts/export\.py .*"),
    Call(r"python scripts/report\.py .*"),
    Call(r"python scripts/reproduce\.py .*--dry-run", ["--steps", "1", *TINY]),
    Call(
        r"python scripts/reproduce\.py .*",
        ["--steps", "1", *TINY],
        change=((r"--seeds [\d ]+", "--seeds 1 2"),),
        slow=True,
    ),
    Call(
        r"python scripts/benchmark\.py --target DIR",
        ["--benchmark", "BENCHMARK", "--results", "results", "--seeds", "1", *TINY],
        change=((r"\bDIR\b", "DIR/CamVid"),),
    ),
)
EXECUTED_PAGES = {"docs/own-data.md": "tests/cli/test_custom_data.py"}  # every block of the page is run there, in order


def entry_of(command: Documented) -> Entry | None:
    """The first entry of the table that fits the whole command."""
    return next((entry for entry in TABLE if re.fullmatch(entry.pattern, command.text)), None)


def check_covered(entry: Covered) -> str | None:
    """What is wrong with the entry; None if the file contains the words."""
    text = (ROOT / entry.file).read_text(encoding="utf-8")
    return None if entry.words in text else f"{entry.file} does not contain {entry.words!r}"


def check_install(command: Documented) -> str | None:
    """What is wrong with the requirements that a `pip install` names; None if they exist."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = re.search(r"\[([\w,]+)\]", command.text)
    missing = set(named[1].split(",") if named else []) - set(project["optional-dependencies"])
    if missing:
        return f"no extra {', '.join(sorted(missing))} in pyproject.toml"
    if "-c constraints.txt" in command.text and not (ROOT / "constraints.txt").is_file():
        return "no constraints.txt"
    return None


def call(command: Documented, entry: Call, reader: Path, index: int) -> int:
    """Run a command with the reader's folder as the current one; returns the exit code."""
    text = command.text
    for pattern, replacement in entry.change:
        text = re.sub(pattern, replacement, text)
    words = [placed(word, reader) for word in (*words_of(text), *entry.extra)]
    program, arguments = ("ida.main", words[1:]) if words[0] == "dgada" else (Path(words[1]).stem, words[2:])
    if any(argument.startswith("MODEL.") for argument in arguments):
        arguments.append(f"EXP_ROOT={reader / f'experiments/{index}'}")
        for stage in re.findall(r"--cfg (gta5:advent)", text):
            snapshot(reader / f"experiments/{index}/gta5/advent", stage, reader)
    module = import_module(program)
    here = Path.cwd()
    os.chdir(reader)
    try:
        return int(module.main(arguments))
    finally:
        os.chdir(here)


def placed(word: str, reader: Path) -> str:
    """A word of a command with the placeholders of the documentation replaced by the reader's files."""
    places = {
        "DIR": str(reader / "data"),
        "FILE": str(reader / "experiments/quick/daf/model_6.pth"),
        "EXP": str(reader / "experiments/quick"),
        "IMAGE|FOLDER|VIDEO": str(reader / "data/CamVid/val"),
        "BENCHMARK": str(reader / "benchmark.yml"),
    }
    name, slash, rest = word.partition("/")
    return f"{places[name]}{slash}{rest}" if name in places else word


def make_reader(root: Path) -> Path:
    """The folder of a reader who has tiny data in the published layouts, and one finished stage."""
    data = tiny_data.make_data(root / "data")
    tiny_data.make_source(data / "SYNTHIA")
    (data / "SYNTHIA/GT/LABELS").mkdir(parents=True)
    for file in sorted((data / "SYNTHIA/parsed_LABELS").glob("*.png")):
        ids = cv2.imread(str(file), cv2.IMREAD_UNCHANGED).astype(np.uint16)
        cv2.imwrite(str(data / "SYNTHIA/GT/LABELS" / file.name), np.stack([np.zeros_like(ids), ids % 2, ids], 2))
    for split in ("train", "val", "test"):
        for index in range(4):
            image, stripe = tiny_data.picture(index, 1)
            name = f"aachen/{split}_{index:06d}_000019"
            tiny_data.write_png(data / f"Cityscapes/leftImg8bit/{split}/{name}_leftImg8bit.png", image)
            if split != "test":
                labels = np.asarray(CITYSCAPES_IDS, np.uint8)[stripe]
                tiny_data.write_png(data / f"Cityscapes/gtFine/{split}/{name}_gtFine_labelIds.png", labels)
    cv2.imwrite(str(root / "photo.jpg"), tiny_data.picture(0, 1)[0])
    snapshot(root / "experiments/quick/daf", "quick:daf", root)
    cells = "{name: source_only, label: source only, script: train.py, cfg: 'quick:source_only'}"
    (root / "benchmark.yml").write_text(
        f"results: results\nseeds: [1]\nscores: {{val: {{}}}}\ncells: [{cells}]\n"
        "tables: [{name: main, rows: [source_only], differences: []}]\n"
    )
    return root


def snapshot(folder: Path, cfg: str, reader: Path) -> None:
    """A stage's folder with a checkpoint of random weights."""
    config = load_config(cfg, [*TINY, f"DATA_ROOT={reader / 'data'}", f"EXP_ROOT={reader / 'experiments'}"])
    torch.manual_seed(1)
    save(folder / "model_6.pth", build_network(config).state_dict())
    (folder / "config.yml").write_text(dump_config(config))
