"""Arguments that scripts/quickstart.sh passes to the pipeline; Python and the environment are stubs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from advent.cli import make_parser, overrides_from_args
from advent.config.loading import load_config
from advent.utils.paths import CONFIGS


@pytest.mark.parametrize(("options", "protocol"), [((), "quick_modern"), (("--faithful", "--short"), "quick")])
def test_a_folder_of_any_name_reaches_the_config(tmp_path: Path, options: tuple[str, ...], protocol: str) -> None:
    scripts, bin_folder = tmp_path / "scripts", tmp_path / "bin"
    target = tmp_path / "it's set #1: 0123"
    for folder in (scripts, bin_folder, target):
        folder.mkdir()
    (scripts / "quickstart.sh").write_text((CONFIGS.parent / "scripts/quickstart.sh").read_text())
    (scripts / "environment.sh").write_text("make_environment() { :; }\n")
    (bin_folder / "python").write_text(
        f"#!{sys.executable}\nimport json, sys\nopen('called.jsonl', 'a').write(json.dumps(sys.argv[1:]) + '\\n')\n"
    )
    (bin_folder / "python").chmod(0o755)
    path = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", str(scripts / "quickstart.sh"), "--target", target.name, *options]
    subprocess.run(command, cwd=tmp_path, env={**os.environ, "PATH": path}, check=True, capture_output=True)
    called = [json.loads(line) for line in (tmp_path / "called.jsonl").read_text().splitlines()]
    script, *arguments = called[-1]
    assert script == "scripts/pipeline.py"
    parser = make_parser("pipeline.py", "x", "quick.yml")
    parser.add_argument("--picture")
    args = parser.parse_args(arguments)
    assert args.cfg == protocol
    for_all_stages = [text for text in overrides_from_args(args) if not re.match(r"[a-z_]+:", text)]
    config = load_config(protocol, for_all_stages)
    assert str(target) == config.DATA_DIRECTORY_TARGET
