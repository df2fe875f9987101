"""The command line that all stages share, and how a stage's errors reach its user: one line, exit code 2."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from advent.domain_adaptation.config import load_config
from advent.errors import UserError

SPELLINGS = {"true": "true", "1": "true", "yes": "true", "false": "false", "0": "false", "no": "false"}


class OneLineParser(argparse.ArgumentParser):
    """Reports a wrong command line in one line."""

    def error(self, message: str) -> NoReturn:
        """Print the line and exit with code 2."""
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def make_parser(prog: str, description: str, default_cfg: str) -> argparse.ArgumentParser:
    """The options that every stage takes."""
    parser = OneLineParser(prog=prog, description=description, allow_abbrev=False)
    parser.set_defaults(default_cfg=default_cfg)
    add = parser.add_argument
    add("--cfg", metavar="FILE", help=f"config: a path, or a name under configs/ (default: {default_cfg}, EP1)")
    add("--data-root", "--data_root", metavar="DIR", help="where the data sets lie (DATA_ROOT)")
    add("--exp-root", "--exp_root", "--exp_root_dir", metavar="DIR", help="where results go (EXP_ROOT)")
    add("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps")
    add("--exp-suffix", metavar="NAME", help="keep this experiment apart from others of its protocol")
    add("--random-train", action="store_true", help="draw the seed instead of the config's")
    add("--tensorboard", action="store_true", help="write TensorBoard files too")
    add("--resume", action="store_true", help="continue a stopped run")
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
    pairs = [f"{key}={_quoted(value)}" for key, value in flags.items() if value is not None]
    pairs += ["TRAIN.RANDOM_TRAIN=true"] if args.random_train else []
    pairs += ["TRAIN.TENSORBOARD=true"] if args.tensorboard else []
    return [*pairs, *more, *args.overrides]


def config_from_args(args: argparse.Namespace, more: Sequence[str] = ()) -> Any:
    """The stage's config: file, then flags, then KEY=VALUE."""
    return load_config(args.cfg, overrides_from_args(args, more), default=args.default_cfg)


def _quoted(text: str) -> str:
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


def run_door(prog: str, body: Callable[[], None]) -> int:
    """Run a stage's body with logging on standard error; a user's mistake becomes one line and exit code 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        body()
    except UserError as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:  # a full disk, a folder that is a file, no permission: nothing that code could mend
        if error.filename is None and error.errno is None:
            raise
        print(f"{prog}: error: {error.filename or 'writing'}: {error.strerror}", file=sys.stderr)
        return UserError.exit_code
    except KeyboardInterrupt:
        print(f"{prog}: interrupted; continue with --resume", file=sys.stderr)
        return 130
    return 0
