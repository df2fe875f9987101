"""Report figures (matplotlib): SVG for light and dark pages, PDF and PNG for a paper."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from advent.errors import ConfigError
from advent.utils.serialization import write_atomically
from reporting.experiment import Experiment, StageRecord

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
except ImportError:
    raise ConfigError("report: needs matplotlib; pip install -e '.[report]'") from None

logging.getLogger("fontTools").setLevel(logging.WARNING)  # it logs every glyph of a PDF
# Paul Tol's bright scheme, colour-blind safe; some colours are lighter on a dark page.
LIGHT = ("#4477aa", "#cc5566", "#228833", "#997700", "#1188aa", "#aa3377")
DARK = ("#77aadd", "#ee8899", "#66cc77", "#ddcc77", "#77ddee", "#dd77bb")
MARKERS = ("o", "s", "^", "D", "v", "P")
WIDTH = 5.0  # inches; at this width letters stay readable on a phone
BINS = 32
WIDE = 5  # losses that differ by more than this factor are drawn on a logarithmic axis


@dataclass(frozen=True)
class Look:
    """Colour theme of a page: light or dark."""

    ink: str
    faint: str
    colors: tuple[str, ...]

    def settings(self) -> Any:  # Any: matplotlib's own type is a literal of all its keys
        """matplotlib rcParams; text is drawn as outlines, so no font is needed."""
        ink = dict.fromkeys(
            ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.titlecolor"), self.ink
        )
        return {
            **ink,
            "axes.edgecolor": self.faint,
            "grid.color": self.faint,
            "grid.alpha": 0.5,
            "font.size": 10,
            "axes.titlesize": 10,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "svg.fonttype": "path",
            "svg.hashsalt": "report",
            "savefig.transparent": True,
            "pdf.fonttype": 42,
            "figure.constrained_layout.use": True,
        }


ON_LIGHT, ON_DARK = Look("#1b1f24", "#8a929b", LIGHT), Look("#e8ebee", "#7d8791", DARK)
Draw = Callable[[Look], Figure]


@dataclass(frozen=True)
class Plot:
    """A figure that can be drawn in any theme: file name, title, alternative text, draw function."""

    name: str
    title: str
    alt: str
    draw: Draw

    def data_uri(self, look: Look) -> str:
        """The figure as an SVG in a data URI."""
        buffer = io.BytesIO()
        with mpl.rc_context(look.settings()):
            self.draw(look).savefig(buffer, format="svg", metadata={"Date": None})
        return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()

    def save(self, folder: Path) -> list[Path]:
        """Save as PDF and PNG in the light theme; returns the paths."""
        paths = []
        with mpl.rc_context({**ON_LIGHT.settings(), "savefig.transparent": False}):
            figure = self.draw(ON_LIGHT)
            for suffix in ("pdf", "png"):
                path = folder / f"{self.name}.{suffix}"
                dates = {"CreationDate": None} if suffix == "pdf" else {}
                paths.append(
                    write_atomically(
                        path,
                        lambda f, s=suffix, d=dates: figure.savefig(f, format=s, dpi=200, metadata=d),  # type: ignore[misc]
                    )
                )
        return paths


def plots(experiment: Experiment, among: Sequence[Experiment]) -> list[Plot]:
    """All figures available for an experiment; axis limits are shared with the other experiments."""
    figures = []
    if experiment.trained:
        figures.append(_bars(experiment))
        if any(len(stage.scores()) > 1 for stage in experiment.trained):
            figures.append(_scores(experiment, among))
    if any(stage.losses() for stage in experiment.stages):
        figures.append(_losses(experiment))
    if experiment.ranking:
        figures.append(_ranking(experiment, among))
    if experiment.gallery.get("labels"):
        figures.append(_labels(experiment))
    return figures


def _bars(experiment: Experiment) -> Plot:
    stages, classes = experiment.trained, experiment.classes

    def draw(look: Look) -> Figure:
        height = 1.0 + len(classes) * max(0.34, 0.13 * len(stages))
        bars = [(stage.label, stage.last["iou"]) for stage in stages]  # type: ignore[index]
        return _bars_of_classes(look, classes, bars, height, "IoU, % (last snapshot)", columns=2)

    words = [f"{stage.label}: {_classes(stage.last['iou'])}" for stage in stages]  # type: ignore[index]
    alt = "Bars of IoU in percent. " + "; ".join(words)
    return Plot(f"{experiment.file_name}_classes", "IoU per class, by stage", alt, draw)


def _scores(experiment: Experiment, among: Sequence[Experiment]) -> Plot:
    stages = experiment.trained
    every = [value for other in among for stage in other.trained for _, value in stage.scores()]
    low, high = max(0.0, min(every) - 3), min(100.0, max(every) + 5)

    def draw(look: Look) -> Figure:
        figure, grid = _small_axes(len(stages))
        for at, (axes, stage) in enumerate(zip(grid, stages, strict=False)):
            steps, values = zip(*stage.scores(), strict=True)
            axes.plot(steps, values, color=look.colors[at % len(look.colors)], marker=".", linewidth=1.2)
            marks = [("last", stage.last, "s"), ("best (oracle)", stage.oracle, "*")]
            for name, row, marker in marks:
                if row is not None and row["iteration"] is not None:
                    style = {"markerfacecolor": "none" if marker == "s" else look.ink, "color": look.ink}
                    label = name if at == 0 else None
                    axes.plot(row["iteration"], row["miou"], marker, **style, markersize=9, label=label)
            axes.set(title=stage.label, ylim=(low, high), xlabel="iteration")
            axes.grid()
        grid[0].set_ylabel("mIoU, %")
        figure.legend(loc="outside upper center", ncols=2)
        return figure

    words = [_scored(stage) for stage in stages]
    return Plot(f"{experiment.file_name}_miou", "mIoU of the snapshots", "Curves of mIoU. " + "; ".join(words), draw)


def _scored(stage: StageRecord) -> str:
    last, oracle = stage.last, stage.oracle
    text = f"{stage.label}: last {_percent(last['miou'])}" if last else stage.label
    return text + (f", best (oracle) {_percent(oracle['miou'])} at iteration {oracle['iteration']}" if oracle else "")


def _losses(experiment: Experiment) -> Plot:
    stages = [stage for stage in experiment.stages if stage.losses()]
    names = list(dict.fromkeys(name for stage in stages for name in stage.losses()))

    def draw(look: Look) -> Figure:
        figure, grid = _small_axes(len(stages))
        for axes, stage in zip(grid, stages, strict=False):
            for name, rows in stage.losses().items():
                steps, values = zip(*rows, strict=True)
                at = names.index(name)
                style = {"color": look.colors[at % len(look.colors)], "marker": MARKERS[at % len(MARKERS)]}
                axes.plot(steps, values, **style, linewidth=1.2, markersize=4, markevery=max(1, len(steps) // 6))
            shown = [value for rows in stage.losses().values() for _, value in rows]
            if min(shown) > 0 and max(shown) > WIDE * min(shown):
                axes.set_yscale("log")
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
            axes.set(title=stage.label, xlabel="iteration")
            axes.grid()
        grid[0].set_ylabel("loss")
        handles = [
            mpl.lines.Line2D([], [], color=look.colors[i % len(look.colors)], marker=MARKERS[i % len(MARKERS)])
            for i in range(len(names))
        ]
        figure.legend(handles, names, loc="outside upper center", ncols=min(len(names), 4))
        return figure

    ends = [f"{s.label}: " + ", ".join(f"{n} {rows[-1][1]:.3g}" for n, rows in s.losses().items()) for s in stages]
    return Plot(f"{experiment.file_name}_losses", "Losses", "Curves of the losses; at the end " + "; ".join(ends), draw)


def _small_axes(count: int) -> tuple[Figure, list[Any]]:
    """A figure with `count` axes in two columns."""
    columns = min(2, count)
    rows = -(-count // columns)
    figure = Figure((WIDTH, 0.6 + 1.9 * rows))
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid[count:]:
        axes.remove()
    return figure, grid[:count]


def _ranking(experiment: Experiment, among: Sequence[Experiment]) -> Plot:
    scores = {half: [r["score"] for r in experiment.ranking if r["half"] == half] for half in ("easy", "hard")}
    every = [row["score"] for other in among for row in other.ranking]
    edges = np.histogram_bin_edges(every, BINS)
    split = (max(scores["easy"]) + min(scores["hard"])) / 2

    def draw(look: Look) -> Figure:
        figure = Figure((WIDTH, 2.8))
        axes = figure.subplots()
        for half, color in zip(("easy", "hard"), look.colors, strict=False):
            hatch = "" if half == "easy" else "///"
            axes.hist(
                scores[half],
                edges.tolist(),
                color=color,
                label=f"{half}: {len(scores[half])} images",
                hatch=hatch,
                edgecolor=look.ink if hatch else color,
                linewidth=0.4,
            )
        axes.axvline(split, color=look.ink, linestyle="--", linewidth=1.2, label=f"split at {split:.3g}")
        axes.set(xlabel="ranking score (low is easy)", ylabel="images")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside upper center", ncols=3)
        return figure

    alt = (
        f"Histogram of the ranking scores of {len(experiment.ranking)} images, {min(every):.3g} to {max(every):.3g}; "
        f"{len(scores['easy'])} easy ones left of the split line at {split:.3g}, {len(scores['hard'])} hard ones right"
    )
    return Plot(f"{experiment.file_name}_ranking", "Ranking of the target", alt, draw)


def _labels(experiment: Experiment) -> Plot:
    quality = experiment.gallery["labels"]
    classes = list(quality["coverage"])
    parts = (
        ("coverage: labelled share of the class", "coverage"),
        ("precision: correct share of these labels", "precision"),
    )

    def draw(look: Look) -> Figure:
        bars = [(label, quality[key]) for label, key in parts]
        return _bars_of_classes(look, classes, bars, 1.0 + 0.34 * len(classes), "%", columns=1)

    words = [
        f"{n}: coverage {_percent(quality['coverage'][n])}, precision {_percent(quality['precision'][n])}"
        for n in classes
    ]
    return Plot(
        f"{experiment.file_name}_labels", "Pseudo labels of self-learning", "Bars in percent. " + "; ".join(words), draw
    )


def _bars_of_classes(
    look: Look,
    classes: Sequence[str],
    bars: Sequence[tuple[str, Mapping[str, float | None]]],
    height: float,
    unit: str,
    columns: int,
) -> Figure:
    """Grouped bars per class, 0 to 100: one bar per label. `columns`: of the legend; `height`: inches."""
    figure = Figure((WIDTH, height))
    axes = figure.subplots()
    thick = 0.8 / len(bars)
    for at, (label, values) in enumerate(bars):
        places = np.arange(len(classes)) + (at - (len(bars) - 1) / 2) * thick
        lengths = [values[name] or 0.0 for name in classes]
        axes.barh(places, lengths, thick * 0.92, color=look.colors[at % len(look.colors)], label=label)
    axes.set(yticks=range(len(classes)), yticklabels=classes, xlim=(0, 100), xlabel=unit)
    axes.invert_yaxis()
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=columns)
    return figure


def _classes(values: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {_percent(value)}" for name, value in values.items())


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f}"
