"""Plot of scripts/bench.py's results: time of a step's parts, evaluation, data loading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from advent.errors import ConfigError
from advent.utils.serialization import read_json, write_atomically

COLORS = ("#4477aa", "#66ccee", "#ccbb44", "#ee6677")  # colour-blind safe


def plot(results: Path, out: Path) -> Path:
    """Write the plot as PNG. Raises ConfigError without matplotlib, or if the JSON is not from scripts/bench.py."""
    try:
        import matplotlib
    except ImportError:
        raise ConfigError("--plot: needs matplotlib; pip install matplotlib") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    record = read_json(results)
    if "results" not in record:
        raise ConfigError(f"{results}: no results of scripts/bench.py")
    sections = {section: {row["what"].strip(): row for row in rows} for section, rows in record["results"].items()}
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), constrained_layout=True)
    _step(axes[0], sections.get("step", {}))
    _evaluation(axes[1], sections.get("evaluation", {}))
    _data(axes[2], sections.get("data", {}))
    figure.suptitle(f"{record['processor']}, {record['threads']} threads", fontsize=9)
    write_atomically(out, lambda handle: figure.savefig(handle, format="png", dpi=110))
    plt.close(figure)
    return out


def _step(axes: Any, rows: dict[str, Any]) -> None:
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


def _evaluation(axes: Any, rows: dict[str, Any]) -> None:
    names = [name for name in rows if not name.startswith("forward")]
    axes.barh(names, [1000 * rows[name]["seconds"] for name in names], color=COLORS[0])
    axes.set(xlabel="milliseconds", title="after the forward pass")
    axes.tick_params(axis="y", labelsize=8)
    axes.invert_yaxis()


def _data(axes: Any, rows: dict[str, Any]) -> None:
    names = list(rows)
    axes.barh(names, [rows[name]["per_second"] for name in names], color=COLORS[1])
    axes.set(xlabel="images per second", title="one worker")
    axes.tick_params(axis="y", labelsize=8)
    axes.invert_yaxis()
