"""Write an image grid of the labelled source as the network gets it: image, labels, depth.

python scripts/show_source.py --cfg quick --out streets.png
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the packages need not be installed

from ida import cli
from ida.pipeline.qualitative import source_figure


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and draw; returns the exit code."""

    parser = cli.make_parser("show_source.py", "Draw images of the source with labels and depth.")
    parser.add_argument("--out", metavar="FILE", required=True, help="the PNG file")
    parser.add_argument("--count", metavar="N", type=int, default=4, help="number of images (default: 4)")
    args = parser.parse_args(argv)

    def body() -> None:
        print(f"picture: {source_figure(cli.config_from_args(args), args.out, args.count)}")

    return cli.run_cli("scripts/show_source.py", body, argv)


if __name__ == "__main__":
    sys.exit(main())
