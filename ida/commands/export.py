"""Export a trained network as ONNX with dynamic batch and image size, checked against PyTorch by onnxruntime.

    python scripts/export.py --checkpoint experiments/ep1/ida/model_118000.pth --out model.onnx

The file's metadata describe inputs and outputs: colour order, mean, classes, depth, opset. Needs the extra
`export`: pip install -e '.[export]'
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from advent.cli import OneLineParser, add_checkpoint_options
from daf.export import OPSET, OPSETS, export_onnx
from daf.inference import load_model
from ida import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and export; returns the exit code."""

    parser = OneLineParser(prog="export.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_checkpoint_options(parser)
    add = parser.add_argument
    add("--out", metavar="FILE", type=Path, required=True, help="the ONNX file")
    add("--opset", metavar="N", type=int, default=OPSET, choices=OPSETS, help=f"16 to 20 (default: {OPSET})")
    args = parser.parse_args(argv)

    def body() -> None:
        model = load_model(args.checkpoint, args.cfg, "cpu", amp="off")
        assert model.checkpoint is not None
        errors = export_onnx(model, args.out, model.checkpoint, args.opset)
        print(f"{args.out}: {args.out.stat().st_size / 2**20:.1f} MiB, opset {args.opset}")
        for output, error in errors.items():
            print(f"  differs from PyTorch by {error:.1e} of the largest value ({output})")

    return cli.run_cli("scripts/export.py", body, argv)
