"""Predict images, folders or videos with a trained network.

    python scripts/predict.py --input photo.jpg
    python scripts/predict.py --checkpoint experiments/ep1/ida/model_118000.pth --input photos --output predictions
    python scripts/predict.py --checkpoint model.pth --cfg dg --input drive.mp4 --output predictions --entropy --map

Without --checkpoint the shipped one is used (pretrained/streets.md).
Output folders: classes (PNG of train ids; classes.csv lists their names), color, overlay (with legend), depth (16-bit
PNG, centimetres as in SYNTHIA), depth_color; optionally entropy and map (the depth-aware map), as images and .npy.
Videos give videos. Unreadable files are reported and skipped, with exit code 1. Files of other types are reported and
ignored.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from advent.cli import OneLineParser, add_checkpoint_options
from advent.errors import ConfigError, printable
from daf.inference import load_model
from daf.predict_files import predict_files
from daf.sharing import SHIPPED
from daf.visualization import OutputOptions
from ida import cli


def make_parser() -> argparse.ArgumentParser:
    """The command line."""

    parser = OneLineParser(prog="predict.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_checkpoint_options(parser, default=f"the shipped {SHIPPED}")
    add = parser.add_argument
    add("--input", metavar="PATH", type=Path, required=True, help="an image, a video, or a folder of them")
    folder = "output folder; created if missing (default: predictions)"
    add("--output", metavar="DIR", type=Path, default=Path("predictions"), help=folder)
    add("--device", metavar="NAME", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    add("--batch-size", metavar="N", type=int, default=1, help="images in one forward pass (default: 1)")
    add("--amp", choices=("off", "bf16", "fp16", "auto"), help="precision; auto: the fastest (default: TRAIN.AMP)")
    add("--size", metavar="N", type=int, nargs=2, help="width and height of the network's input (default: config's)")
    add(
        "--crop", metavar="N", type=int, nargs=2, help="width and height of sliding crops (default: config's TEST.CROP)"
    )
    add("--stride", metavar="N", type=int, nargs=2, help="their step (default: TEST.STRIDE, or two thirds of the crop)")
    add("--geometry", choices=("stretch", "pad"), help="pad keeps the aspect (default: config's GEOMETRY_TARGET)")
    depth = parser.add_mutually_exclusive_group()
    depth.add_argument("--depth", action="store_true", default=None, help="fail if the network predicts no depth")
    depth.add_argument("--no-depth", dest="depth", action="store_false", help="do not write depth")
    add("--entropy", action="store_true", help="also the entropy of the prediction")
    add("--map", action="store_true", help="also the depth-aware map")
    add("--frames", action="store_true", help="also write every video frame as images")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and predict; returns the exit code."""

    args = make_parser().parse_args(argv)
    skipped: list[str] = []

    def body() -> None:
        if args.batch_size < 1:
            raise ConfigError(f"--batch-size: {args.batch_size} is too small; at least 1")
        model = load_model(
            args.checkpoint,
            args.cfg,
            args.device,
            amp=args.amp,
            size=args.size,
            geometry=args.geometry,
            crop=args.crop,
            stride=args.stride,
        )
        options = OutputOptions(args.depth, args.entropy, args.map)
        summary = predict_files(model, args.input, args.output, options, batch_size=args.batch_size, frames=args.frames)
        skipped.extend(summary.skipped)
        counts = [
            f"{count} {unit}" for count, unit in ((summary.images, "images"), (summary.frames, "frames")) if count
        ]
        print(f"{args.output}: {' and '.join(counts) or 'nothing'} predicted, {len(skipped)} files skipped")
        for line in [f"skipped {reason}" for reason in skipped] + [line for line in [summary.left_out()] if line]:
            print(printable(f"predict.py: {line}"), file=sys.stderr)

    code = cli.run_cli("scripts/predict.py", body, argv)
    return code or (1 if skipped else 0)
