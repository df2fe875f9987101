"""Open a demo page in the browser: classes, depth and entropy of a photograph or a short video.

    python scripts/demo.py
    python scripts/demo.py --port 8000 --checkpoints experiments/ep1 shared

Then open the printed address. The page offers the checkpoints found in pretrained and experiments, or in the folders of
--checkpoints. It is served to this machine alone, and no request leaves the machine. Needs the extra `demo`:
pip install -e '.[demo]'
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the packages need not be installed

from advent.cli import OneLineParser
from advent.errors import ConfigError
from advent.runtime.device import pick_device
from advent.runtime.signals import Interrupted
from advent.utils.program import extra_command
from ida import cli
from web_demo.checkpoints import default_folders, find_choices
from web_demo.environment import keep_local
from web_demo.predictor import Predictor

PORT = 7860


def serve(args: argparse.Namespace) -> None:
    """Serve the page until a signal."""
    if not 1 <= args.port <= 65535:
        raise ConfigError(f"--port {args.port}: ports are 1 to 65535")
    choices = find_choices(args.checkpoints or default_folders())
    pick_device(args.device)
    with tempfile.TemporaryDirectory(prefix="demo_") as folder:
        keep_local(Path(folder))
        try:
            from web_demo.page import build_page, served  # Gradio is an optional extra, and reads the environment
        except ModuleNotFoundError as error:
            if error.name != "gradio":
                raise
            raise ConfigError(f"the demo page needs the package gradio; {extra_command('demo')}") from None
        page = build_page(Predictor(choices, Path(folder), args.device))
        with served(page, args.port) as url:
            count = f"{len(choices)} checkpoint{'s' if len(choices) > 1 else ''}"
            print(f"demo page with {count}: {url} (Ctrl-C ends it)", flush=True)
            try:
                while True:
                    time.sleep(3600)
            except Interrupted:
                print("demo page ended")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and serve the page; returns the exit code."""

    parser = OneLineParser(prog="demo.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--port", metavar="N", type=int, default=PORT, help=f"port on 127.0.0.1 (default: {PORT})")
    add("--checkpoints", metavar="DIR", type=Path, nargs="+", help="folders with trained networks")
    add("--device", metavar="NAME", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    args = parser.parse_args(argv)
    return cli.run_cli("scripts/demo.py", lambda: serve(args), argv)


if __name__ == "__main__":
    sys.exit(main())
