"""Model card of a shared model: data, recipe, scores and limits, from its config, provenance and results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from advent.config.schema import Config
from advent.dataset.spec import load_spec
from advent.errors import ConfigError
from advent.evaluation.results import row_name
from advent.methods.registry import find_method, find_network
from advent.utils.program import DISTRIBUTION
from advent.utils.serialization import parse_yaml
from advent.utils.tables import results_table

CARD = "README.md"
NO_SCORES = "No scores recorded."
LOW_IOU = 20.0  # percent; classes below it are listed as limits
METRIC = "mean_iou"  # the hub's name
FENCE = "---\n"
HEADER = f"""library_name: {DISTRIBUTION}
pipeline_tag: image-segmentation
tags: [semantic-segmentation, domain-adaptation]
"""
USAGE = """```python
from daf import load_model, predict

model = load_model("FOLDER")  # or "hf:OWNER/NAME"
prediction = predict(model, "street.jpg")  # .classes (H, W) train ids, .depth (H, W) inverse depth or None
```"""


def model_card(
    config: Config, parameters: int, sha256: str, provenance: Mapping[str, Any], results: Mapping[str, Any]
) -> str:
    """The card as Markdown. `parameters`: their number; `sha256`: of the weights; the records may be empty."""
    parts = [
        f"{FENCE}{HEADER}{_model_index(config, results)}{FENCE}\n"
        f"# {config.EXP_NAME} {config.STAGE.NAME}: {config.SOURCE} to {config.TARGET}",
        f"Semantic segmentation of {config.NUM_CLASSES} classes of {config.TARGET}.",
        USAGE,
        "## Model",
        _facts(_model(config, parameters, sha256)),
        "## Data",
        _facts(_data(config, provenance)),
        "## Recipe",
        _facts(_recipe(config, provenance)),
        "## Scores",
        _scores(results),
        "## Limits",
        "\n".join(f"- {limit}" for limit in _limits(config, results)),
    ]
    return "\n\n".join(parts) + "\n"


def documented_miou(card: Path, dataset: str) -> float | None:
    """The mIoU in percent that a card's front matter documents for a data set (`model-index`, the hub's form).

    None if the card cannot be read, has no such front matter, or no score on this data set.
    """
    try:
        _, fence, rest = card.read_text(encoding="utf-8").partition(FENCE)
        index = parse_yaml(rest.partition(FENCE)[0])["model-index"] if fence else []
        for result in [result for model in index for result in model["results"]]:
            if result["dataset"]["name"] == dataset:
                return next(float(metric["value"]) for metric in result["metrics"] if metric["type"] == METRIC)
    except (OSError, ValueError, KeyError, TypeError, IndexError, StopIteration, yaml.YAMLError):
        pass
    return None


def _model_index(config: Config, results: Mapping[str, Any]) -> str:
    """The scores in the form that the hub reads from a card's front matter; empty without scores."""
    rows = results.get("results", [])
    if not rows:
        return ""
    score = {
        "task": {"type": "image-segmentation"},
        "dataset": {"name": results["target"], "type": results["target"], "split": results["set"]},
        "metrics": [{"type": METRIC, "value": round(rows[0]["miou"], 2)}],
    }
    return yaml.safe_dump({"model-index": [{"name": config.EXP_NAME, "results": [score]}]}, sort_keys=False)


def _facts(rows: Mapping[str, object]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in rows.items())


def _model(config: Config, parameters: int, sha256: str) -> dict[str, object]:
    model, (width, height) = config.MODEL, config.TEST.INPUT_SIZE_TARGET
    return {
        "network": f"{model.NAME}, encoder {model.ENCODER}, head {model.HEAD}",
        "parameters": f"{parameters:,}",
        "classes": ", ".join(config.CLASSES.names) if config.CLASSES and not isinstance(config.CLASSES, str) else "",
        "input": f"BGR minus {[round(value, 2) for value in config.TRAIN.IMG_MEAN]}, {width} x {height} "
        f"(width x height), {config.GEOMETRY_TARGET}",
        "depth": "inverse depth, 65536 / (centimetres + 1)" if find_network(config).gives_depth else "none",
        "SHA-256 of the weights": sha256,
    }


def _data(config: Config, provenance: Mapping[str, Any]) -> dict[str, object]:
    rows: dict[str, object] = {}
    counts = {role: facts["images"] for role, facts in provenance.get("data", {}).items()}
    target = "without labels" if find_method(config).uses_target else "not used in training"
    for role, name, use in (("source", config.SOURCE, "labelled"), ("target", config.TARGET, target)):
        rows[role] = "; ".join(part for part in (f"{name}, {use}", _credit(name)) if part)
    for role, count in counts.items():
        rows[f"{role} images of the last stage"] = f"{count:,}"
    return rows if counts else {**rows, "images": "numbers not recorded"}


def _credit(name: str) -> str | None:
    try:
        return load_spec(name).credit
    except ConfigError:
        return None  # a spec of the author's own


def _recipe(config: Config, provenance: Mapping[str, Any]) -> dict[str, object]:
    train, code = config.TRAIN, provenance.get("code", {})
    start = provenance.get("inputs", {}).get("start", {}).get("path")
    initial = start or train.RESTORE_FROM or config.MODEL.ENCODER_WEIGHTS
    rows: dict[str, object] = {
        "method": train.DA_METHOD,
        "protocol and stage": config.STAGE.PROTOCOL or config.STAGE.NAME,
        "iterations": f"{train.EARLY_STOP} (schedule: {train.MAX_ITERS})",
        "batch": f"{train.BATCH_SIZE_SOURCE} source + {train.BATCH_SIZE_TARGET} target",
        "initial weights": initial or "random",
        "optimizer": f"{train.OPTIMIZER}, learning rate {train.LEARNING_RATE:g}",
        "seed": provenance.get("seed", train.RANDOM_SEED),
    }
    if "checkpoint" in provenance:
        rows["checkpoint"] = provenance["checkpoint"]["path"]
    if code:
        rows["code"] = f"version {code['version']}" + (f", commit {code['commit']}" if "commit" in code else "")
        rows["trained with"] = ", ".join(f"{name} {value}" for name, value in provenance.get("versions", {}).items())
        rows["trained on"] = provenance.get("device", {}).get("name", "not recorded")
    return rows


def _scores(results: Mapping[str, Any]) -> str:
    if not results:
        return NO_SCORES
    test = results.get("test", {})
    settings = f"input {test.get('INPUT_SIZE_TARGET')}, scales {test.get('SCALES')}, flip {test.get('FLIP')}"
    crop = f", crops {test['CROP']}" if test.get("CROP") else ""
    rows = {row_name(row): row for row in results["results"]}
    return (
        f"IoU in percent on {results['target']} {results['set']}, {results['images']:,} images, one seed "
        f"({settings}{crop}).\n\n{results_table(rows, accuracy=True)}"
    )


def _limits(config: Config, results: Mapping[str, Any]) -> list[str]:
    limits = [f"Meant for images as in {config.TARGET}. Other cameras, places and weather are not measured."]
    if not results:
        limits.append("No scores recorded: nothing here says how good this model is.")
    else:
        iou = results["results"][0]["iou"]
        low = [f"{name} ({value:.1f})" for name, value in iou.items() if value is not None and value < LOW_IOU]
        absent = [name for name, value in iou.items() if value is None]
        limits += [f"IoU below {LOW_IOU:g} %: {', '.join(low)}."] if low else []
        limits += [f"Not in the scored labels: {', '.join(absent)}."] if absent else []
        if any("oracle" in row.get("selected", "") for row in results["results"]):
            limits.append("A row named oracle was selected on the labels that it is scored on.")
    if find_network(config).gives_depth:
        limits.append("Depth is on the source domain's scale and is not metric on the target.")
    limits.append("No license is stated here. The licenses of the data sets and of the initial weights apply.")
    limits.append("Not for decisions that concern safety.")
    return limits
