"""Performance benchmark: training step, memory, data loading, inference. Prints a table and writes JSON.

    python scripts/bench.py --out bench.json
    python scripts/bench.py --only step memory --rounds 3 --device cuda
    python scripts/bench.py --plot bench.json --out docs/performance.png

Sections: machine, step, formats, memory, memory_estimate, compile, evaluation, labels, data, predict, operations,
scaling, cost. Variants alternate in one process; medians and quartiles are reported. All sections take about 45 minutes
on two cores. Nothing else should run at the same time.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the packages need not be installed

import torch

from advent.checkpoints.provenance import environment
from advent.cli import OneLineParser
from advent.errors import ConfigError, hint
from advent.runtime.device import pick_device
from advent.utils.serialization import read_json, write_atomically, write_json
from advent.utils.tables import markdown_table
from ida import cli
from performance.sections import SECTIONS

COLORS = ("#4477aa", "#66ccee", "#ccbb44", "#ee6677")  # colour-blind safe
UNITS = {
    "share": ("", 100, "%"),
    "more_time": ("+", 100, "% time"),
    "per_second": ("", 1, "images/s"),
    "times": ("x", 1, ""),
    "gflops_per_second": ("", 1, "GFLOP/s"),
    "gb_per_second": ("", 1, "GB/s"),
    "gflop": ("", 1, "GFLOP"),
    "gb": ("", 1, "GB moved"),
    "peak_bytes": ("", 2**-30, "GiB peak"),
    "bytes": ("", 2**-20, "MiB"),
}


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """All results as a Markdown table."""

    rows = []
    for section, section_rows in results.items():
        for entry in section_rows:
            median, low, high = (entry.get(key) for key in ("seconds", "low", "high"))
            spread = f"{low:.3g} to {high:.3g}" if low is not None else ""
            extras = [
                f"{UNITS[k][0]}{v * UNITS[k][1]:.3g} {UNITS[k][2]}".strip()
                for k, v in entry.items()
                if k in UNITS and v is not None
            ]
            rows.append(
                [section, entry["what"], "" if median is None else f"{median:.3g} s", spread, ", ".join(extras)]
            )
    return markdown_table(["section", "what", "median", "quartiles", ""], rows)


def plot(results: Path, out: Path) -> Path:
    """Write the plot as PNG. Raises ConfigError without matplotlib, or if the JSON is not from scripts/bench.py."""
    try:
        from matplotlib.figure import Figure  # an optional extra
    except ImportError:
        raise ConfigError("--plot: needs matplotlib; pip install -e '.[report]'") from None

    record = read_json(results)
    if "results" not in record:
        raise ConfigError(f"{results}: no results of scripts/bench.py")
    sections = {section: {row["what"].strip(): row for row in rows} for section, rows in record["results"].items()}
    figure = Figure((13, 3.6), layout="constrained")
    axes = figure.subplots(1, 3)
    _plot_step(axes[0], sections.get("step", {}))
    _plot_evaluation(axes[1], sections.get("evaluation", {}))
    _plot_data(axes[2], sections.get("data", {}))
    figure.suptitle(f"{record['processor']}, {record['threads']} threads", fontsize=9)
    write_atomically(out, lambda handle: figure.savefig(handle, format="png", dpi=110))
    return out


def _plot_step(axes: Any, rows: dict[str, Any]) -> None:
    """Stacked bars: the network's passes, the discriminator, everything else."""
    parts = ("network's two passes", "discriminator", "everything else")
    kinds = [kind for kind in ("fp32", "bf16", "fp16") if f"step, {kind}" in rows]
    left = [0.0] * len(kinds)
    for part, color in zip(parts, COLORS, strict=False):
        seconds = [max(0.0, rows[f"{part}, {kind}"]["seconds"]) for kind in kinds]
        axes.barh(kinds, seconds, left=left, color=color, label=part)
        left = [a + b for a, b in zip(left, seconds, strict=True)]
    axes.set(xlabel="seconds", title="DAF step, 640x320, ResNet-101")
    if kinds:
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3, frameon=False)


def _plot_evaluation(axes: Any, rows: dict[str, Any]) -> None:
    names = [name for name in rows if not name.startswith(("one image", "auto", "forward"))]
    axes.barh(names, [1000 * rows[name]["seconds"] for name in names], color=COLORS[0])
    axes.set(xlabel="milliseconds", title="after the forward pass")
    axes.tick_params(axis="y", labelsize=8)
    axes.invert_yaxis()


def _plot_data(axes: Any, rows: dict[str, Any]) -> None:
    names = list(rows)
    axes.barh(names, [rows[name]["per_second"] for name in names], color=COLORS[1])
    axes.set(xlabel="images per second", title="one worker")
    axes.tick_params(axis="y", labelsize=8)
    axes.invert_yaxis()


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and measure, or plot; returns the exit code."""

    parser = OneLineParser(prog="bench.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="SECTION", help="measure only these sections")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="runs of each variant (default: 5)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--out", metavar="FILE", type=Path, help="output file: JSON, or PNG with --plot")
    parser.add_argument("--plot", metavar="JSON", type=Path, help="plot the results of an earlier run")
    args = parser.parse_args(argv)

    def body() -> None:
        if args.plot is not None:
            if args.out is None:
                raise ConfigError("--plot: name the output image with --out FILE")

            print(f"picture: {plot(args.plot, args.out)}")
            return
        if args.rounds < 1:
            raise ConfigError("--rounds: expected a number above zero")
        measure(args.only, args.rounds, args.device, args.out)

    return cli.run_cli("scripts/bench.py", body, argv)


def measure(only: Sequence[str] | None, rounds: int, device_name: str, out: Path | None) -> None:
    """Run the sections; the JSON is written after each one, so an interrupted run keeps its results."""

    for name in only or ():
        if name not in SECTIONS:
            raise ConfigError(f"--only {name}: there is no such section; {hint(name, SECTIONS)}")
    device = pick_device(device_name)
    results: dict[str, list[dict[str, Any]]] = {}
    head = {
        "schema": 1,
        **environment(),
        "device": str(device),
        "processor": _processor(device),
        "threads": torch.get_num_threads(),
        "rounds": rounds,
    }
    for name in only or SECTIONS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        results[name] = list(SECTIONS[name](device, rounds))
        if out is not None:
            write_json(out, {**head, "results": results})
    print(table(results))


def _processor(device: Any) -> str:

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    known = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags.split()]
    return f"{names[0] if names else platform.processor()} ({' '.join(known)})"


if __name__ == "__main__":
    sys.exit(main())
