"""The installed command `dgada`: one subcommand for each stage and tool that works without a checkout."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import advent
from advent.errors import hint, printable
from advent.utils.program import COMMAND

# Name -> (module, function, help). Modules are imported when they run: PyTorch takes seconds.
COMMANDS = {
    "train": ("ida.commands.stages", "train", "stage 0: train an adaptation method, source to target"),
    "isl": ("ida.commands.stages", "isl", "stage 1: iterative self-learning on pseudo labels"),
    "rank": ("ida.commands.stages", "rank", "stage 2a: rank the target, split it into easy and hard"),
    "ida": ("ida.commands.stages", "ida", "stage 2b: intra-domain adaptation, easy to hard"),
    "test": ("ida.commands.stages", "evaluate", "score checkpoints on the target's labelled set"),
    "pipeline": ("ida.commands.pipeline", "main", "run all stages of a protocol"),
    "predict": ("ida.commands.predict", "main", "predict images, folders or videos"),
    "export": ("ida.commands.export", "main", "export a trained network as ONNX"),
    "checkpoint": ("ida.commands.checkpoint", "main", "identify, convert or share a checkpoint"),
    "doctor": ("ida.commands.doctor", "main", "check your data"),
    "prepare": ("ida.commands.prepare", "main", "convert SYNTHIA's labels, or cache decoded images"),
}
CHECKOUT_TOOLS = {
    "bench": "bench.py",
    "benchmark": "benchmark.py",
    "demo": "demo.py",
    "report": "report.py",
    "reproduce": "reproduce.py",
    "streets": "make_streets.py",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name == "--version":
        print(f"{COMMAND} {advent.__version__}")
        return 0
    if name in COMMANDS:
        module, function, _ = COMMANDS[name]
        return int(getattr(import_module(module), function)(rest))
    if name in CHECKOUT_TOOLS:
        tool = f"scripts/{CHECKOUT_TOOLS[name]}"
        problem = f"{name} is a tool of the checkout; in a clone of the repository run: python {tool}"
    else:
        problem = f"{name!r} is not a command; {hint(name, COMMANDS)}"
    print(printable(f"{COMMAND}: error: {problem}"), file=sys.stderr)
    return 2


def _help() -> str:
    lines = [f"  {name:<12}{text}" for name, (_, _, text) in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {COMMAND} COMMAND [OPTIONS]   ({COMMAND} COMMAND --help lists the options)",
            "",
            "Unsupervised domain adaptation for semantic segmentation, guided by depth.",
            "Data are read from ./data and results are written to ./experiments by default.",
            "",
            *lines,
            "",
            f"  {'--version':<12}show the version",
        ]
    )
