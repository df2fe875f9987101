"""HTML page of the report: one self-contained file without external requests."""

from __future__ import annotations

import base64
import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from advent import __version__
from advent.errors import ConfigError
from advent.utils.serialization import write_text
from ida.pipeline.assets import FOLDER as GALLERY
from reporting.experiment import Experiment
from reporting.figures import ON_DARK, ON_LIGHT, Plot, plots
from reporting.grid import Grid
from reporting.table import Table, difference_class, result_table, shown

try:
    import jinja2
except ImportError:
    raise ConfigError("report: needs jinja2; pip install -e '.[report]'") from None

TEMPLATES = Path(__file__).parent / "templates"
TYPES = {".png": "image/png", ".jpg": "image/jpeg"}
KINDS = ("classes", "miou", "losses", "ranking", "labels")  # figure sections, by the last part of a plot's name


def write_page(experiments: Sequence[Experiment], out: Path, examples: int) -> Path:
    """Write the page atomically. `examples`: largest number of images in the grid."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(shown=shown, difference_class=difference_class, duration=duration, data_uri=data_uri)
    text = environment.get_template("report.html").render(
        experiments=experiments,
        tables=_tables(experiments),
        figures=_figures(experiments),
        grid=Grid(experiments, examples),
        extremes=[_extremes(experiment) for experiment in experiments],
        differences=_differences(experiments),
        settings=_settings,
        made_from=_made_from,
        protocols=_protocol,
        style=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
        version=__version__,
        written=time.strftime("%Y-%m-%d %H:%M"),
        legend=_legend(experiments),
        credits=sorted({e.gallery["credit"] for e in experiments if e.gallery.get("credit")}),
    )
    return write_text(out, text)


def duration(seconds: float | None) -> str:
    """Duration in hours, minutes and seconds."""
    if seconds is None:
        return "not recorded"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


@functools.lru_cache(maxsize=4096)
def data_uri(file: Path) -> str:
    """An image file as a data URI; empty if the file is missing."""
    if not file.is_file():
        return ""
    return f"data:{TYPES[file.suffix]};base64,{base64.b64encode(file.read_bytes()).decode()}"


def _tables(experiments: Sequence[Experiment]) -> list[tuple[Experiment, Table]]:
    return [(experiment, result_table(experiment)) for experiment in experiments if experiment.trained]


def _figures(experiments: Sequence[Experiment]) -> dict[str, list[tuple[str, Plot, str, str]]]:
    """Kind -> [(experiment, plot, light SVG, dark SVG)]."""
    figures: dict[str, list[tuple[str, Plot, str, str]]] = {kind: [] for kind in KINDS}
    for experiment in experiments:
        for plot in plots(experiment, experiments):
            kind = plot.name.rsplit("_", 1)[1]
            figures[kind].append((experiment.name, plot, plot.data_uri(ON_LIGHT), plot.data_uri(ON_DARK)))
    return figures


def _extremes(experiment: Experiment) -> list[tuple[str, list[dict[str, Any]]]]:
    """[(easiest or hardest, entries with images as data URIs)]."""
    ranking = experiment.gallery.get("ranking") or {}
    return [
        (
            end,
            [
                {
                    "name": e["name"],
                    "score": e["score"],
                    "pictures": [
                        (caption, data_uri(experiment.path / GALLERY / e[key]))
                        for caption, key in (("image", "image"), ("map", "map"), ("pseudo label", "label"))
                        if key in e
                    ],
                }
                for e in entries
            ],
        )
        for end, entries in ranking.items()
    ]


def _legend(experiments: Sequence[Experiment]) -> list[tuple[str, str]]:
    """[(class, CSS colour)] of all experiments."""
    colors_by_class: dict[str, str] = {}
    for experiment in experiments:
        classes = experiment.config["CLASSES"]
        for name, (red, green, blue) in zip(classes["names"], classes["colors"], strict=True):
            colors_by_class.setdefault(name, f"rgb({red} {green} {blue})")
    return list(colors_by_class.items())


def _settings(values: dict[str, Any]) -> str:
    return yaml.safe_dump(values, sort_keys=False, default_flow_style=None, allow_unicode=True).strip()


def _made_from(experiment: Experiment) -> dict[str, str]:
    """Label -> text of an experiment's setup: protocol, data, network, seeds, code, time."""
    config, last = experiment.config, experiment.stages[-1].provenance
    seeds = sorted({str(stage.config["TRAIN"]["RANDOM_SEED"]) for stage in experiment.stages})
    seconds = [stage.seconds for stage in experiment.stages if stage.seconds is not None]
    code = last.get("code", {})
    versions = ", ".join(f"{name} {value}" for name, value in last.get("versions", {}).items())
    commit = f", commit {code['commit'][:10]}" if "commit" in code else ""
    images = {
        role: facts["images"]
        for stage in experiment.stages
        for role, facts in stage.provenance.get("data", {}).items()
        if stage.name != "ida"
    }
    size = " x ".join(map(str, config["TRAIN"]["INPUT_SIZE_TARGET"]))
    return {
        "protocol": _protocol(experiment),
        "source": f"{config['SOURCE']}" + (f", {images['source']:,} images" if "source" in images else ""),
        "target": f"{config['TARGET']}"
        + (f", {images['target']:,} images without labels" if "target" in images else ""),
        "classes": f"{config['NUM_CLASSES']} ({config['CLASSES']['name']})",
        "network": f"{config['MODEL']['NAME']} on {config['MODEL']['ENCODER']}, target input {size}",
        "seeds": ", ".join(seeds),
        "code": f"{code.get('version', 'not recorded')}{commit}, digest {code.get('sha256', '?')[:10]}",
        "libraries": versions or "not recorded",
        "started": experiment.stages[0].provenance.get("time", "not recorded"),
        "time": f"{duration(sum(seconds))} in all" if seconds else "not recorded",
    }


def _protocol(experiment: Experiment) -> str:
    config, protocol = experiment.config, experiment.protocol
    if protocol is None:
        return f"{config['EXP_NAME']} (none of the paper's)"
    return f"{protocol.name} of the paper, {protocol.resolution}"


def _differences(experiments: Sequence[Experiment]) -> list[tuple[str, list[str]]]:
    """[(stage and key, values per experiment)] of all settings that differ."""
    if len(experiments) < 2:
        return []
    flat = [
        {f"{stage.name}: {key}": str(value) for stage in experiment.stages for key, value in stage.settings().items()}
        for experiment in experiments
    ]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    rows = [(key, [settings.get(key, "default") for settings in flat]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]
