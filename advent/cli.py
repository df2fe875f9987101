"""The command line that all stages share, and how a stage's errors reach its user: one line, exit code 2."""

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

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What only the user can mend: a full or broken disk, a folder that is a file, no permission.
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
    """Reports a wrong command line in one line; flags and KEY=VALUE may come in any order."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As argparse's, with positional arguments anywhere, also behind a flag of several values (`--seeds 1 A=3`)."""
        pairs: list[str] = []
        others: list[str] = []
        for argument in map(_at_home, sys.argv[1:] if args is None else args):
            is_value = bool(others) and self._takes_one_value(others[-1])
            (pairs if PAIR.match(argument) and not is_value else others).append(argument)
        return self.parse_intermixed_args([*pairs, *others], namespace)

    def _takes_one_value(self, flag: str) -> bool:
        """Whether what follows a flag is its value whatever it looks like (`--exp-suffix LR=1e-3`)."""
        action = self._option_string_actions.get(flag)
        return action is not None and action.nargs is None

    def error(self, message: str) -> NoReturn:
        """Print the line and exit with code 2."""
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def _at_home(argument: str) -> str:
    """`--flag=~/path` with the home folder in it: a shell expands `~` at the beginning of a word alone."""
    flag, equals, value = argument.partition("=")
    return f"{flag}={os.path.expanduser(value)}" if equals and flag.startswith("--") else argument


def make_parser(prog: str, description: str, default_cfg: str = "ep1", trains: bool = False) -> argparse.ArgumentParser:
    """The options that every stage takes; `trains` adds those of stages that can be started anew."""
    parser = OneLineParser(prog=prog, description=description, allow_abbrev=False)
    parser.set_defaults(default_cfg=default_cfg, script=prog)
    add = parser.add_argument
    add("--cfg", metavar="FILE", help=f"config: a path or a name in configs/, or NAME:STAGE (default: {default_cfg})")
    add("--method", metavar="NAME", help="a baseline in configs/methods: source_only, minent, advent, dada, intrada")
    add("--data-root", "--data_root", metavar="DIR", help="where the data sets lie (DATA_ROOT)")
    add("--exp-root", "--exp_root", "--exp_root_dir", metavar="DIR", help="where results go (EXP_ROOT)")
    add("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps")
    add("--exp-suffix", metavar="NAME", help="keep this experiment apart from others of its protocol")
    add("--random-train", action="store_true", help="draw the seed instead of the config's")
    add("--tensorboard", action="store_true", help="write TensorBoard files too")
    add("--deterministic", action="store_true", help="the same bits every time, where the device allows it")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--resume", action="store_true", help="continue a stopped run")
    if trains:
        either.add_argument("--overwrite", action="store_true", help="start anew where an earlier run's results lie")
    add("overrides", nargs="*", metavar="KEY=VALUE", help="config keys, for example TRAIN.MAX_ITERS=1000")
    return parser


def overrides_from_args(args: argparse.Namespace, more: Sequence[str] = ()) -> list[str]:
    """The command line as KEY=VALUE pairs: flags first, explicit pairs last."""
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
    """The stage's config: file, then flags, then KEY=VALUE. Restarted by torchrun, a stage resumes without a flag."""
    overrides = overrides_from_args(args, more)
    config = load_config(args.cfg, overrides, default=args.default_cfg, script=args.script, method=args.method)
    if distributed.under_torchrun() and distributed.broadcast_object(lambda: _began_here(config)):
        args.resume, args.overwrite = True, False
    return config


def _began_here(config: Config) -> bool:
    """Whether the torchrun start above this process began what lies in the stage's folder.

    Then this is a restart, and its --overwrite has been obeyed. What lay there before the start is never resumed so: a
    first process that refused it is restarted, too.
    """
    launcher, record = distributed.launcher(), read_provenance(RunDir.of(config).path)
    return launcher is not None and record is not None and record.get("launcher") == launcher


def quoted(text: str) -> str:
    """A path such as `1e3` or `no` must stay text in YAML."""
    return "'" + text.replace("'", "''") + "'"


def normalize_mode(text: str) -> str:
    """`--normalize`: true or false in any usual spelling, or release. The release's `type=bool` took False for true."""
    word = text.strip().lower()
    if word == "release":
        return word
    if word not in SPELLINGS:
        raise argparse.ArgumentTypeError(f"{text!r} is none of true, false, 1, 0, yes, no, release")
    return SPELLINGS[word]


def run_cli(prog: str, body: Callable[[], None], argv: Sequence[str] | None = None, resumes: bool = False) -> int:
    """Run a stage's body with logging on standard error; a user's mistake becomes one line and exit code 2.

    A signal ends it with 128 plus its number and the command that continues: the same one, with `--resume` where the
    door has it (`resumes`). Of several processes that torchrun started, rank 0 logs and one says why the run ended.
    """
    single = "/" in prog  # scripts/: not a stage
    distributed.set_single(single)
    level = logging.INFO if distributed.launched_rank() == 0 else logging.ERROR
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    again = _command(prog, sys.argv[1:] if argv is None else argv, resumes)
    with signals.handle_signals(speaks=distributed.launched_rank() == 0):
        try:
            if distributed.is_distributed_launch() and single:
                raise ConfigError(f"{prog} works in one process; start it with python, not with torchrun")
            with distributed.process_group():
                body()
            return 0
        except UserError as error:
            words, code = f"error: {error}", error.exit_code
        except OSError as error:
            if error.errno not in USER_FIXABLE:
                raise
            fix = f"; make room, then: {again}" if error.errno in DISK_FULL else ""
            words, code = f"error: {error.filename or 'writing'}: {error.strerror}{fix}", UserError.exit_code
        except torch.OutOfMemoryError as error:
            fix = "lower the batch or input size, or set TRAIN.AMP=bf16"
            words = f"error: the device's memory is full ({first_line(error)}); {fix}"
            code = UserError.exit_code
        except RuntimeError as error:
            cause = lost_worker(error)
            if cause is None:
                raise
            words, code = f"error: {cause}", UserError.exit_code
        except signals.Interrupted as stop:
            words, code = f"stopped by {stop}; continue with: {again}", stop.exit_code
        except KeyboardInterrupt:
            words, code = f"stopped at once; continue with: {again}", 130
        except distributed.LostPeer as lost:
            words, code = f"error: {lost}; what that one said, or torchrun's report, tells why", lost.exit_code
            signals.ignore_from_now()
            distributed.wait_for_torchrun()
        signals.ignore_from_now()
        if distributed.is_error_reporter():
            print(printable(f"{prog}: {words}"), file=sys.stderr, flush=True)
        return code


def _command(prog: str, argv: Sequence[str], resumes: bool) -> str:
    kept = [argument for argument in argv if argument not in ("--resume", "--overwrite")]
    launcher = ["python"]
    if distributed.is_distributed_launch():
        launcher = ["torchrun", f"--nproc_per_node={os.environ.get('LOCAL_WORLD_SIZE', '1')}"]
    return shlex.join([*launcher, prog, *kept, *(["--resume"] if resumes else [])])
