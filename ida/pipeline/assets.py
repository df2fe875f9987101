"""Report assets of an experiment: thumbnails and label quality, stored beside its results.

The pipeline exports them once, at its end, while networks and data are available; a report needs neither. The target's
ground truth is used for display only, never for selection.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from advent.build import build_network, evaluation_data, target_data
from advent.checkpoints.auto_precision import labelling_passes, settle_precision
from advent.checkpoints.io import digest
from advent.checkpoints.provenance import read_provenance
from advent.checkpoints.run_dir import experiment_folder
from advent.config.class_set import class_set
from advent.config.schema import Config
from advent.dataset.spec import load_spec
from advent.errors import DataError, UserError
from advent.evaluation.batch_norm import restore_statistics
from advent.evaluation.score_key import data_digest
from advent.evaluation.stage import Scorer
from advent.model.outputs import NetworkOutputs, predict_images
from advent.model.precision import to_device
from advent.runtime.device import pick_device
from advent.utils.image_grid import denormalize, heatmap
from advent.utils.loss import self_information
from advent.utils.sampling import evenly_spaced
from advent.utils.serialization import read_json, write_atomically, write_json
from advent.utils.viz_segmask import colorize_mask
from daf.interaction import depth_aware_map, distance_aware_map
from daf.visualization import visible_depth
from ida.pipeline.label_quality import label_quality, label_shares, ranking_quality, training_truth
from ida.pipeline.stage import Stage
from ida.pseudo_labels import label_path
from ida.rank_stage import MASKS

log = logging.getLogger(__name__)
FOLDER, FILE = "gallery", "gallery.json"
EXAMPLES, EXTREMES = 6, 3  # images of the labelled set; images of each end of the ranking
WIDTH = 320  # pixels, of a thumbnail
SCHEMA = 2  # 1: pictures of networks with the checkpoint's batch norms, whatever TEST.BN_STATISTICS said


def export_assets(stages: Sequence[Stage]) -> Path | None:
    """Write `gallery/` into the experiment's folder, unless it is up to date with networks and data; returns its path.

    gallery.json: `examples` (name, files of image, truth, prediction per stage, depth, map), `ranking` (the easiest and
    hardest images with their maps and scores), `label_shares`, and `labels` and `ranking_quality` where the target's
    training images have labels, `classes`, `credit` of the images. Parts that cannot be made (missing data or
    snapshots) are skipped with a warning and listed under `missing`.
    """
    trained = [stage for stage in stages if stage.trains and stage.run_dir.snapshots()]
    if not trained:
        return None
    folder = experiment_folder(trained[-1].config) / FOLDER
    made_from = {stage.name: digest(stage.run_dir.snapshots()[-1][1]) for stage in trained}
    known = read_json(folder / FILE) if (folder / FILE).is_file() else {}
    data = _data_digests(trained[-1].config)
    same_networks = (known.get("schema"), known.get("made_from")) == (SCHEMA, made_from)
    if same_networks and data in (None, known.get("data")):
        return folder
    classes = class_set(trained[-1].config)
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "made_from": made_from,
        "data": data,
        "classes": classes.as_mapping(),
        "missing": [],
        "credit": load_spec(trained[-1].config.TARGET).credit,
        "examples": [],
    }
    parts: list[tuple[str, Callable[[], Any]]] = [("examples", partial(_examples, trained, folder, classes.colors))]
    for stage in stages:
        if stage.script == "train_isl.py":
            parts += [("label_shares", partial(label_shares, stage)), ("labels", partial(label_quality, stage))]
        elif stage.script == "entropy.py":
            parts.append(("ranking", partial(_extremes, stage, folder, classes.colors)))
            parts.append(("ranking_quality", partial(ranking_quality, stage)))
    for part, make in parts:
        try:
            record[part] = make()
        except UserError as error:
            log.warning("%s: skipped %s (%s)", folder, part, error)
            record["missing"].append(f"{part}: {error}")
    write_json(folder / FILE, record)
    return folder


def _data_digests(config: Config) -> list[str] | None:
    """Digests of the gallery's data (images and labels of both sets); None if the data are missing."""
    try:
        images = target_data(config)
        digests = [data_digest(images)]
        for make in (partial(evaluation_data, config), partial(training_truth, config, images.names)):
            with suppress(UserError):  # a set without labels
                digests.append(data_digest(make()))
        return digests
    except UserError:
        return None


def _examples(trained: Sequence[Stage], folder: Path, colors: Any) -> list[dict[str, Any]]:
    """Images spread evenly over the labelled set, with predictions of every stage's last snapshot."""
    config = trained[-1].config
    try:
        dataset = evaluation_data(config)
    except DataError:  # a target without labels
        dataset = evaluation_data(config, labelled=False)
    items = [dataset[index] for index in evenly_spaced(len(dataset), EXAMPLES)]
    rows: list[dict[str, Any]] = [{"name": item["name"], "stages": {}} for item in items]
    stems = [f"examples/{row['name']}" for row in rows]
    for row, item, stem in zip(rows, items, stems, strict=True):
        row["image"] = _photo(folder, stem, "image", denormalize(item["image"].numpy(), dataset.mean))
        if "label" in item:
            row["truth"] = _labels(folder, stem, "truth", item["label"].numpy(), colors)
    images = [item["image"][None] for item in items]
    for stage in trained:
        predictions = stage_predictions(stage, images)
        for row, stem, prediction in zip(rows, stems, predictions, strict=True):
            drawn = {"classes": _labels(folder, stem, stage.name, prediction.main.argmax(1)[0].numpy(), colors)}
            if prediction.depth is not None:
                depth = heatmap(visible_depth(prediction.depth[0, 0].numpy()))
                drawn["depth"] = _photo(folder, stem, f"{stage.name}_depth", depth)
            row["stages"][stage.name] = drawn
    return rows


def _extremes(stage: Stage, folder: Path, colors: Any) -> dict[str, list[dict[str, Any]]]:
    """The images at both ends of a ranking, with score, map and pseudo label."""
    with open(stage.run_dir.path / "ranking.csv", newline="", encoding="utf-8") as handle:
        table = list(csv.DictReader(handle))
    count = min(EXTREMES, len(table) // 2)
    ends = {"easiest": table[:count], "hardest": table[-count:]}
    record = read_provenance(stage.run_dir.path)
    made = Path(record["inputs"]["start"]["path"]) if record else None
    entries: dict[str, list[dict[str, Any]]] = {}
    for end, rows in ends.items():
        dataset = target_data(stage.config, [row["name"] for row in rows])
        items = [dataset[index] for index in range(len(dataset))]
        images = [item["image"][None] for item in items]
        maps: Sequence[NetworkOutputs | None] = [None] * len(items)
        if made is not None and made.is_file():
            maps = _ranked_predictions(stage, made, images)
        entries[end] = []
        for row, item, prediction in zip(rows, items, maps, strict=True):
            stem = f"rank/{row['name']}"
            entry = {"name": row["name"], "score": float(row["score"])}
            entry["image"] = _photo(folder, stem, "image", denormalize(item["image"].numpy(), dataset.mean))
            with Image.open(label_path(stage.run_dir.path / MASKS, row["name"])) as label:
                entry["label"] = _labels(folder, stem, "label", np.asarray(label), colors)
            if prediction is not None:
                entry["map"] = _photo(folder, stem, "map", heatmap(_ranking_map(stage.config, prediction)))
            entries[end].append(entry)
    return entries


def _ranking_map(config: Config, prediction: NetworkOutputs) -> np.ndarray:
    """Map whose mean is the ranking score: depth-aware map or self-information, summed over the classes."""
    if prediction.depth is not None and config.RANK.MAP == "depth":
        return depth_aware_map(prediction.main, prediction.depth)[0].sum(0).numpy()
    if prediction.depth is not None and config.RANK.MAP == "distance":
        return distance_aware_map(prediction.main, prediction.depth)[0].sum(0).numpy()
    return self_information(prediction.main.softmax(1))[0].sum(0).numpy()


def stage_predictions(stage: Stage, batches: Iterable[Tensor]) -> list[NetworkOutputs]:
    """Predictions of a stage's last snapshot on image batches (B, 3, H, W), at input size, in full precision.

    The network is the one that is scored (TEST.BN_STATISTICS), so figures show what the table's numbers say.
    """
    scorer = Scorer(stage.config, labelled=False)
    return predict_images(scorer.network(stage.run_dir.snapshots()[-1][1]), batches, scorer.device)


def _ranked_predictions(stage: Stage, checkpoint: Path, batches: Iterable[Tensor]) -> list[NetworkOutputs]:
    """Predictions of the network that a ranking scored (TRAIN.RESTORE_BN), as `stage_predictions`."""
    config, device = stage.config, pick_device(stage.config.DEVICE)
    net = to_device(build_network(config, checkpoint), device)
    settle_precision(config, lambda: net, device, labelling_passes(config), start=checkpoint)
    restore_statistics(net, config, device)
    return predict_images(net, batches, device)


def _photo(folder: Path, name: str, kind: str, rgb: np.ndarray) -> str:
    picture = Image.fromarray(np.ascontiguousarray(rgb))
    small = picture.resize(_small(picture.size), Image.Resampling.LANCZOS) if picture.width > WIDTH else picture
    file = Path(name).with_suffix("") / f"{kind}.jpg"
    write_atomically(folder / file, lambda handle: small.save(handle, "JPEG", quality=85))
    return file.as_posix()


def _labels(folder: Path, name: str, kind: str, ids: np.ndarray, colors: Any) -> str:
    picture = colorize_mask(ids, colors)
    small = picture.resize(_small(picture.size), Image.Resampling.NEAREST) if picture.width > WIDTH else picture
    file = Path(name).with_suffix("") / f"{kind}.png"
    write_atomically(folder / file, lambda handle: small.save(handle, "PNG", optimize=True))
    return file.as_posix()


def _small(size: tuple[int, int]) -> tuple[int, int]:
    return WIDTH, max(1, round(WIDTH * size[1] / size[0]))
