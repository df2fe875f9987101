"""How a user starts this project's programs: a script of the checkout, or a subcommand of the installed `dgada`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from advent.utils.paths import CHECKOUT

COMMAND = "dgada"
DISTRIBUTION = "depth-guided-adaptation"
SUBCOMMANDS = {
    "train.py": "train",
    "test.py": "test",
    "test_intra.py": "test",
    "train_isl.py": "isl",
    "entropy.py": "rank",
    "train_intra.py": "ida",
    "pipeline.py": "pipeline",
    "predict.py": "predict",
    "export.py": "export",
    "checkpoint.py": "checkpoint",
    "doctor.py": "doctor",
    "prepare.py": "prepare",
}
_SCRIPT = re.compile(rf"(?<![\w/.])(python (?:scripts/)?|scripts/)({'|'.join(map(re.escape, SUBCOMMANDS))})(?!\w)")


def uses_command() -> bool:
    """Whether programs are started by the installed command: it is running, or there is no checkout."""
    return Path(sys.argv[0]).stem == COMMAND or not CHECKOUT


def program_name(script: str) -> str:
    """Name of a program in its messages: `train.py`, or `dgada train`."""
    name = SUBCOMMANDS.get(Path(script).name)
    return f"{COMMAND} {name}" if name and uses_command() else script


def as_typed(text: str) -> str:
    """A text with its commands, such as `python train.py` and `scripts/doctor.py`, as the user types them."""
    return _SCRIPT.sub(lambda match: program_name(match[2]), text) if uses_command() else text


def extra_command(extra: str) -> str:
    """The command that installs an optional extra."""
    return f"pip install '{DISTRIBUTION}[{extra}]'" if uses_command() else f"pip install -e '.[{extra}]'"
