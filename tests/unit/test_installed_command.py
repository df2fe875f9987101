"""The command `dgada` and the configs of a wheel: what is in it, how it is started, where configs are found."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import advent
from advent.config.files import find_config
from advent.config.loading import load_config
from advent.dataset.spec import load_spec
from advent.errors import ConfigError
from advent.utils.paths import CONFIGS, find_yaml
from advent.utils.program import COMMAND, SUBCOMMANDS, as_typed, extra_command, program_name
from ida.main import CHECKOUT_TOOLS, COMMANDS, main

ROOT = Path(__file__).parents[2]
PACKAGE_DATA = """
import json, sys
from distutils.core import run_setup
build = run_setup("setup.py", ["--quiet"], stop_after="commandline").get_command_obj("build_py")
build.ensure_finalized()
data = [f"{folder}/{name}" for _, folder, _, names in build.data_files for name in names]
print(json.dumps([build.packages, data]))
"""


@pytest.fixture
def as_dgada(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [f"/somewhere/bin/{COMMAND}"])


def test_a_wheel_has_every_package_and_every_config() -> None:
    code = f"import setuptools\n{PACKAGE_DATA}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    packages, data = json.loads(done.stdout.splitlines()[-1])
    folders = {path.parent.relative_to(ROOT) for top in ("advent", "daf", "ida") for path in (ROOT / top).rglob("*.py")}
    with_data = {"advent.configs", "advent.pretrained"}
    assert {folder.as_posix().replace("/", ".") for folder in folders} | with_data == set(packages)
    files = [*CONFIGS.rglob("*"), *(ROOT / "pretrained").glob("streets.*")]
    assert set(data) == {path.relative_to(ROOT).as_posix() for path in files if path.is_file()}


def test_help_lists_every_command_and_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines if line.startswith("  ")} == {*COMMANDS, "--version"}
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"dgada {advent.__version__}\n"


def test_every_command_is_a_function_and_has_a_script() -> None:
    for module, function, _ in COMMANDS.values():
        assert callable(getattr(import_module(module), function))
    assert set(SUBCOMMANDS.values()) == set(COMMANDS)
    for script in SUBCOMMANDS:
        assert (ROOT / script).is_file() or (ROOT / "scripts" / script).is_file()
    assert all((ROOT / "scripts" / tool).is_file() for tool in CHECKOUT_TOOLS.values())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["report", "experiments/x"],
            "report is a tool of the checkout; in a clone of the repository run: python scripts",
        ),
        (["streets"], "scripts/make_streets.py"),
        (["trian"], "did you mean train?"),
        (["--verbose"], "not a command"),
    ],
)
def test_other_words_are_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_messages_name_the_command_that_was_typed(
    as_dgada: None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["isl", "--cfg", "quick", "--exp-root", str(tmp_path)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("dgada isl: error: ")
    assert line.endswith("Run: dgada train --cfg quick:daf")
    with pytest.raises(SystemExit) as stop:
        main(["test", "--cgf", "quick"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("dgada test: error: ")
    assert as_typed("SCRIPT: train.py; see /a/scripts/doctor.py") == "SCRIPT: train.py; see /a/scripts/doctor.py"
    assert as_typed("run scripts/doctor.py, python train.py") == "run dgada doctor, dgada train"
    assert extra_command("hub") == "pip install 'depth-guided-adaptation[hub]'"


def test_scripts_keep_their_names() -> None:
    assert program_name("train.py") == "train.py"
    assert as_typed("python scripts/doctor.py") == "python scripts/doctor.py"
    assert extra_command("hub") == "pip install -e '.[hub]'"


def test_configs_of_the_current_folder_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config("ep1").path == CONFIGS / "ep1.yml"
    (tmp_path / "configs/datasets").mkdir(parents=True)
    (tmp_path / "configs/ep1.yml").write_text("BASE: quick\nEXP_NAME: inside\n")
    assert load_config("ep1:daf").EXP_NAME == "inside"  # its BASE is still found
    (tmp_path / "ep1.yml").write_text("BASE: quick\nEXP_NAME: beside\n")
    assert load_config("ep1:daf").EXP_NAME == "beside"
    assert load_config("./configs/ep1.yml").EXP_NAME == "inside"
    (tmp_path / "configs/datasets/mine.yml").write_text("base: camvid\nname: Mine\nfolder: mine\n")
    assert load_spec("Mine").name == "Mine"
    assert find_yaml("cityscapes", "datasets") == CONFIGS / "datasets/cityscapes.yml"


def test_a_missing_config_names_the_folders_and_similar_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/ep1_mine.yml").write_text("{}")
    with pytest.raises(ConfigError) as caught:
        find_config("ep1_mien")
    message = str(caught.value)
    for words in (str(tmp_path), str(tmp_path / "configs"), str(CONFIGS), "did you mean ep1_mine or "):
        assert words in message
