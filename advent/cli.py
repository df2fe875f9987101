"""Command line shared by all stages: options, config overrides, logging, one-line errors and exit codes."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch

from advent.checkpoints.provenance import read_provenance
from advent.checkpoints.run_dir import RunDir
from advent.config.loading import load_config
from advent.config.schema import Config
from advent.dataset.loader import lost_worker
from advent.errors import ConfigError, UserError, first_line, printable
from advent.runtime import distributed, signals
from advent.utils.program import COMMAND, as_typed, program_name, uses_command

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# errno values that the user can fix: a full or broken disk, a folder that is a file, no permission.
USER_FIXABLE = (
    *DISK_FULL,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOENT,
    errno.ENAMETOOLONG,
    errno.EIO,
)
PAIR = re.compile(r"(\w+:)?[A-Z][A-Z0-9_.]*=")  # KEY=VALUE, or NAME:KEY=VALUE
SPELLINGS = {"true": "true", "1": "true", "yes": "true", "false": "false", "0": "false", "no": "false"}


class OneLineParser(argparse.ArgumentParser):
    """Argument parser with one-line errors; flags and KEY=VALUE pairs may come in any order."""

    def __init__(self, *, prog: str, description: str | None = None, **options: Any) -> None:
        """`prog`: the script's name; the parser shows how it was started (`dgada train` for `train.py`)."""
        super().__init__(prog=program_name(prog), description=as_typed(description or ""), **options)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse arguments; KEY=VALUE may come anywhere, even after a flag with several values (`--seeds 1 A=3`)."""
        pairs: list[str] = []
        others: list[str] = []
        for argument in map(_expand_home, sys.argv[1:] if args is None else args):
            is_value = bool(others) and self._takes_one_value(others[-1])
            (pairs if PAIR.match(argument) and not is_value else others).append(argument)
        return self.parse_intermixed_args([*pairs, *others], namespace)

    def _takes_one_value(self, flag: str) -> bool:
        """Whether the next argument is the flag's value even if it looks like KEY=VALUE (`--exp-suffix LR=1e-3`)."""
        action = self._option_string_actions.get(flag)
        return action is not None and action.nargs is None

    def error(self, message: str) -> NoReturn:
        """Print the error in one line and exit with code 2."""
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def add_checkpoint_options(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add `--checkpoint` and `--cfg` of the tools that load a trained network; `default` is what is loaded without."""
    add = parser.add_argument
    network = "a trained network: a checkpoint, a folder, PROTOCOL:STAGE, or hf:OWNER/NAME"
    shown = f"{network} (default: {default})" if default else network
    add("--checkpoint", metavar="FILE", required=default is None, help=shown)
    add("--cfg", metavar="FILE", help="its config: a path, or a name under configs/ (default: config.yml beside it)")


def _expand_home(argument: str) -> str:
    """Expand `~` in `--flag=~/path`: a shell expands it only at the start of a word."""
    flag, equals, value = argument.partition("=")
    return f"{flag}={os.path.expanduser(value)}" if equals and flag.startswith("--") else argument


def make_parser(prog: str, description: str, default_cfg: str = "ep1", trains: bool = False) -> argparse.ArgumentParser:
    """Parser with the options of every stage; `trains` adds `--overwrite`."""
    parser = OneLineParser(prog=prog, description=description, allow_abbrev=False)
    parser.set_defaults(default_cfg=default_cfg, script=prog)
    add = parser.add_argument
    add("--cfg", metavar="FILE", help=f"config: a path or a name in configs/, or NAME:STAGE (default: {default_cfg})")
    add("--method", metavar="NAME", help="a baseline in configs/methods: source_only, minent, advent, dada, intrada")
    add("--data-root", "--data_root", metavar="DIR", help="folder of the data sets (DATA_ROOT)")
    add("--exp-root", "--exp_root", "--exp_root_dir", metavar="DIR", help="folder for results (EXP_ROOT)")
    add("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps")
    add("--exp-suffix", metavar="NAME", help="suffix of the experiment's folder, to run a protocol several times")
    add("--random-train", action="store_true", help="use a random seed instead of the config's")
    add("--tensorboard", action="store_true", help="write TensorBoard files too")
    add("--deterministic", action="store_true", help="deterministic algorithms, if the device supports them")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--resume", action="store_true", help="resume an interrupted run")
    if trains:
        either.add_argument("--overwrite", action="store_true", help="replace the results of an earlier run")
    add("overrides", nargs="*", metavar="KEY=VALUE", help="config keys, for example TRAIN.MAX_ITERS=1000")
    return parser


def overrides_from_args(args: argparse.Namespace, more: Sequence[str] = ()) -> list[str]:
    """The command line as KEY=VALUE overrides: flags, then `more`, then explicit pairs (the last wins)."""
    flags = {
        "DATA_ROOT": args.data_root,
        "EXP_ROOT": args.exp_root,
        "DEVICE": args.device,
        "EXP_SUFFIX": args.exp_suffix,
    }
    pairs = [f"{key}={quoted(value)}" for key, value in flags.items() if value is not None]
    pairs += ["TRAIN.RANDOM_TRAIN=true"] if args.random_train else []
    pairs += ["TRAIN.TENSORBOARD=true"] if args.tensorboard else []
    pairs += ["TRAIN.DETERMINISTIC=true"] if args.deterministic else []
    return [*pairs, *more, *args.overrides]


def config_from_args(args: argparse.Namespace, more: Sequence[str] = ()) -> Any:
    """The stage's config: file, then flags, then KEY=VALUE.

    A stage that torchrun restarts resumes without `--resume`.
    """
    overrides = overrides_from_args(args, more)
    config = load_config(args.cfg, overrides, default=args.default_cfg, script=args.script, method=args.method)
    if distributed.under_torchrun() and distributed.broadcast_object(lambda: _is_restart(config)):
        args.resume, args.overwrite = True, False
    return config


def _is_restart(config: Config) -> bool:
    """Whether the run in the stage's folder was started by the same torchrun launch as this process.

    If so, torchrun has restarted this process, and `--overwrite` has already taken effect. Results of an earlier launch
    are never resumed this way, since torchrun also restarts a process that refused them.
    """
    launcher, record = distributed.launcher(), read_provenance(RunDir.of(config).path)
    return launcher is not None and record is not None and record.get("launcher") == launcher


def quoted(text: str) -> str:
    """Quote text for YAML, so that a path such as `1e3` or `no` stays text."""
    return "'" + text.replace("'", "''") + "'"


def normalize_mode(text: str) -> str:
    """Value of `--normalize`: true, false (any spelling) or release. The authors' `type=bool` parses False as true."""
    word = text.strip().lower()
    if word == "release":
        return word
    if word not in SPELLINGS:
        raise argparse.ArgumentTypeError(f"{text!r} is none of true, false, 1, 0, yes, no, release")
    return SPELLINGS[word]


def run_cli(prog: str, body: Callable[[], None], argv: Sequence[str] | None = None, resumes: bool = False) -> int:
    """Run a stage's body with logging to standard error; returns the exit code.

    A user error prints one line and exits with 2. A signal exits with 128 plus its number and prints the command that
    continues the run: the same one, with `--resume` if the entry point supports it (`resumes`). Under torchrun, rank 0
    logs, and one process prints why the run ended.
    """
    single = "/" in prog  # scripts/: not a stage
    distributed.set_single(single)
    level = logging.INFO if distributed.launched_rank() == 0 else logging.ERROR
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    command = _command(prog, sys.argv[1:] if argv is None else argv, resumes)
    with signals.handle_signals(speaks=distributed.launched_rank() == 0):
        try:
            if distributed.is_distributed_launch() and single:
                raise ConfigError(f"{prog} works in one process; start it with python, not with torchrun")
            with distributed.process_group():
                body()
            return 0
        except UserError as error:
            message, code = f"error: {error}", error.exit_code
        except OSError as error:
            if error.errno not in USER_FIXABLE:
                raise
            fix = f"; make room, then: {command}" if error.errno in DISK_FULL else ""
            message, code = f"error: {error.filename or 'writing'}: {error.strerror}{fix}", UserError.exit_code
        except torch.OutOfMemoryError as error:
            fix = "lower the batch or input size, or set TRAIN.AMP=bf16"
            message = f"error: out of device memory ({first_line(error)}); {fix}"
            code = UserError.exit_code
        except RuntimeError as error:
            cause = lost_worker(error)
            if cause is None:
                raise
            message, code = f"error: {cause}", UserError.exit_code
        except signals.Interrupted as stop:
            message, code = f"stopped by {stop}; continue with: {command}", stop.exit_code
        except KeyboardInterrupt:
            message, code = f"stopped at once; continue with: {command}", 130
        except distributed.LostPeer as lost:
            message, code = (
                f"error: {lost}; see that process's error or torchrun's report for the cause",
                lost.exit_code,
            )
            signals.ignore_from_now()
            distributed.wait_for_torchrun()
        signals.ignore_from_now()
        if distributed.is_error_reporter():
            print(printable(f"{program_name(prog)}: {as_typed(message)}"), file=sys.stderr, flush=True)
        return code


def _command(prog: str, argv: Sequence[str], resumes: bool) -> str:
    kept = [argument for argument in argv if argument not in ("--resume", "--overwrite")]
    program = program_name(prog).split()
    by_command = uses_command() and program[0] == COMMAND
    launcher = [] if by_command else ["python"]
    if distributed.is_distributed_launch():
        launcher = ["torchrun", f"--nproc_per_node={os.environ.get('LOCAL_WORLD_SIZE', '1')}"]
        launcher += ["--no-python"] if by_command else []
    return shlex.join([*launcher, *program, *kept, *(["--resume"] if resumes else [])])
