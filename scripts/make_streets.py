"""Make synthetic street scenes with exact labels and depth, in the folder layout of a known data set.

python scripts/make_streets.py --out data/streets --count 500 --size 320x180 --seed 1
python scripts/make_streets.py --out data/streets_real --count 200 --val-count 50 --size 320x180 --seed 2 --style real
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the packages need not be installed

from advent.cli import OneLineParser, run_cli
from advent.errors import ConfigError, DataError
from advent.utils.serialization import write_json
from streets.pictures import paths, render, write_picture

VERSION = 5
VAL_OFFSET = 1_000_000  # validation images have their own seeds, independent of the count
SHAPES = ((4, 3), (16, 9), (3, 2), (4, 3), (1, 1))


def parse_size(text: str) -> tuple[int, int]:
    """WxH in pixels. Raises ConfigError."""
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and 32 <= int(width) <= 4096 and 32 <= int(height) <= 4096):
        raise ConfigError(f"--size {text}: expected WIDTHxHEIGHT in pixels, 32 to 4096 each, such as 320x180")
    return int(width), int(height)


def make_one(job: tuple[int, bool], *, out: Path, size: tuple[int, int], seed: int, style: str, layout: str) -> None:
    """Render and write image `index` unless its files exist; the bytes do not depend on the process."""
    index, val = job
    files = paths(layout, out, index, val)
    if all(path.exists() for path in files.values()):
        return
    cv2.setNumThreads(1)
    rng = np.random.default_rng([seed, index + VAL_OFFSET * val])
    width, height = size
    if layout == "mapillary":
        shape, area = SHAPES[rng.integers(len(SHAPES))], width * height * rng.uniform(0.7, 1.4)
        height = max(round((area * shape[1] / shape[0]) ** 0.5), 32)
        width = height * shape[0] // shape[1]
    write_picture(layout, files, render(rng, width, height, style))


def check_manifest(out: Path, expected: dict[str, object]) -> None:
    """Write streets.json, or compare it. Raises DataError if the folder's scenes have other settings."""
    path = out / "streets.json"
    if not path.exists():
        write_json(path, expected)
        return
    try:
        actual = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise DataError(f"{path}: not valid JSON; remove the folder or choose another --out") from None
    if isinstance(actual, dict) and actual.get("version") != expected["version"]:
        raise DataError(f"{path}: made by another version of this tool; remove the folder or choose another --out")
    wrong = [
        f"{key} {actual.get(key)} instead of {value}" for key, value in expected.items() if actual.get(key) != value
    ]
    if wrong:
        raise DataError(f"{path}: made with {', '.join(wrong)}; use the same values, or another --out")


def make(options: argparse.Namespace) -> None:
    """Render all missing images."""
    size, out = parse_size(options.size), Path(options.out)
    layout = options.layout or ("cityscapes" if options.style == "real" else "synthia")
    if min(options.count, options.val_count, options.seed) < 0:
        raise ConfigError("--count, --val-count and --seed: expected numbers not below zero")
    if options.val_count and layout == "synthia":
        raise ConfigError(
            "--val-count: the synthia layout has no validation split; leave it out or choose another --layout"
        )
    setup = {"size": list(size), "seed": options.seed, "style": options.style, "layout": layout}
    check_manifest(out, {**setup, "version": VERSION})
    work = partial(make_one, out=out, size=size, seed=options.seed, style=options.style, layout=layout)
    jobs = [(i, False) for i in range(options.count)] + [(i, True) for i in range(options.val_count)]
    workers = max(min(options.workers or os.cpu_count() or 1, len(jobs)), 1)
    progress = partial(tqdm, total=len(jobs), unit="scene", disable=None)
    if workers == 1:
        for _ in progress(map(work, jobs)):
            pass
        return
    # Ctrl-C reaches the whole process group; only the parent handles it.
    ignore_sigint = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)
    # Not multiprocessing.Pool: it waits forever for the scenes of a worker that was killed.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=ignore_sigint) as pool:
        try:
            for _ in progress(pool.map(work, jobs, chunksize=2)):
                pass
        except BrokenProcessPool:
            raise DataError(
                f"{out}: a worker process was ended from outside, perhaps for lack of memory; run the command again, "
                "with fewer --workers: finished scenes are kept"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)  # a signal waits for the scenes in work only


def main(argv: list[str] | None = None) -> int:
    """Command line. Returns the exit code."""
    parser = OneLineParser(
        prog="make_streets.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True, help="output folder; existing files are kept")
    parser.add_argument("--count", type=int, required=True, help="number of (training) scenes")
    parser.add_argument("--val-count", type=int, default=0, help="number of additional validation scenes")
    parser.add_argument("--size", required=True, help="WIDTHxHEIGHT in pixels (mapillary: the mean area)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--style", choices=["synthia", "real"], default="synthia")
    parser.add_argument("--layout", choices=["synthia", "cityscapes", "mapillary"], help="default: by style")
    parser.add_argument("--workers", type=int, default=0, help="processes; 0 = one per core")
    options = parser.parse_args(argv)
    return run_cli("scripts/make_streets.py", lambda: make(options), argv)


if __name__ == "__main__":
    sys.exit(main())
