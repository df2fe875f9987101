"""Depth evaluation on a target with disparity and camera files: standard metrics, capped at 80 m."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advent.build import build_network
from advent.checkpoints.auto_precision import scoring_passes, settle_precision
from advent.checkpoints.io import digest
from advent.checkpoints.provenance import environment
from advent.checkpoints.run_dir import RunDir
from advent.config.class_set import class_set, target_spec
from advent.config.schema import Config
from advent.dataset.base_dataset import StreetDataset
from advent.dataset.loader import load_batches, sequential_batches
from advent.dataset.resolved_layout import resolve_root
from advent.errors import ConfigError
from advent.evaluation.batch_norm import TargetStatistics
from advent.evaluation.evaluate import refuse_everywhere
from advent.evaluation.predictor import Crops, not_finite, sliding_forward
from advent.evaluation.stage import candidates
from advent.methods.registry import find_network
from advent.model.outputs import resize_bilinear
from advent.model.precision import AMP_DTYPES, to_device
from advent.runtime import distributed
from advent.runtime.device import prepare_device
from advent.runtime.progress import with_progress
from advent.utils.serialization import write_json
from daf.dataset.depth import CM_PER_M, INVERSE_SCALE, read_depth_metres

CAP_M = 80.0
LEAST_M = 0.01  # lower bound: an inverse depth >= 65536 means zero or negative distance
MEASURES = ("abs rel", "sq rel", "RMSE", "RMSE log", "d < 1.25", "d < 1.25^2", "d < 1.25^3")


def metres(inverse: np.ndarray) -> np.ndarray:
    """Predicted inverse depth 65536 / (cm + 1), (H, W) -> metres in [0.01, 80]."""
    capped = np.maximum(inverse.astype(np.float64), INVERSE_SCALE / (CM_PER_M * CAP_M + 1))
    return np.maximum((INVERSE_SCALE / capped - 1) / CM_PER_M, LEAST_M)


def depth_scores(predicted_m: np.ndarray, truth_m: np.ndarray) -> dict[str, float] | None:
    """Depth metrics of one image; both maps (H, W) in metres, ground truth NaN where it is unknown.

    Only pixels with a ground truth of at most 80 m count. The prediction is on the source's scale, so it is
    multiplied by median(truth) / median(prediction). Returns None if the image has no valid pixel.
    """
    valid = np.isfinite(truth_m) & (truth_m > 0) & (truth_m <= CAP_M)
    if not valid.any():
        return None
    truth, predicted = truth_m[valid], predicted_m[valid]
    predicted = predicted * (np.median(truth) / np.median(predicted))
    error, ratio = predicted - truth, np.maximum(predicted / truth, truth / predicted)
    values = [
        np.mean(np.abs(error) / truth),
        np.mean(error**2 / truth),
        np.sqrt(np.mean(error**2)),
        np.sqrt(np.mean(np.log(predicted / truth) ** 2)),
        *[np.mean(ratio < 1.25**k) for k in (1, 2, 3)],
    ]
    return dict(zip(MEASURES, map(float, values), strict=True))


def evaluate_depth(config: Config) -> dict[str, float]:
    """Mean depth metrics over the target's labelled set, for the checkpoint that TEST names; writes `depth.json`.

    Raises ConfigError for a TEST option that depth evaluation does not support. Raises NotFinite naming the images with
    a non-finite depth.
    """
    _refuse_other_requests(config.TEST)
    if not find_network(config).gives_depth:
        raise ConfigError(f"MODEL.NAME: {config.MODEL.NAME} predicts no depth to score; use DeepLabv2_depth")
    spec = target_spec(config.TARGET, config.GEOMETRY_TARGET)
    if spec.depth is None or spec.depth.kind != "disparity":
        raise ConfigError(f"TARGET: {config.TARGET} has no disparity with cameras to score depth on; Cityscapes has")
    test, device = config.TEST, prepare_device(config)
    root = resolve_root(config.DATA_ROOT, config.DATA_DIRECTORY_TARGET, spec)
    dataset = StreetDataset(
        spec,
        root,
        test.SET_TARGET,
        class_set(config),
        size=test.INPUT_SIZE_TARGET,
        mean=tuple(config.TRAIN.IMG_MEAN),
        with_depth=True,
    )
    (candidate,) = candidates(config)[-1:]
    statistics = TargetStatistics.for_scoring(config, dataset)
    net = to_device(build_network(config, candidate.files[0]), device).eval()
    settle_precision(config, lambda: net, device, scoring_passes(config), start=candidate.files[0])
    if statistics is not None:
        statistics.reestimate(net, device)
    truths = dict(
        zip(dataset.names, zip(dataset.depth_files or [], dataset.camera_files or [], strict=True), strict=True)
    )
    batch_scores: list[list[dict[str, float] | None]] = []
    nonfinite: list[str] = []
    order = distributed.shard(sequential_batches(len(dataset), test.BATCH_SIZE_TARGET))
    for batch in with_progress(load_batches(dataset, config.NUM_WORKERS, device, order), "depth", len(order)):
        batch_scores.append([])
        depth = _depth(net, batch["image"], config)
        nonfinite += not_finite(batch["name"], depth)
        for name, inverse in zip(batch["name"], depth, strict=True):
            truth = read_depth_metres(*truths[name])
            batch_scores[-1].append(depth_scores(metres(_sized(inverse, truth.shape)), truth))
    refuse_everywhere(nonfinite, f"{candidate}: the predicted depth", config.TRAIN.precision.format)
    scores = [score for batch in distributed.interleave(distributed.all_gather(batch_scores)) for score in batch]
    counted = [score for score in scores if score is not None]
    if not counted:
        raise ConfigError(f"{spec.name}: no image of {test.SET_TARGET} has a valid depth up to {CAP_M:.0f} m")
    means = {name: float(np.mean([score[name] for score in counted])) for name in MEASURES}
    record = {
        "schema": 1,
        **environment(),
        "snapshot": str(candidate),
        "sha256": digest(candidate.files[0]),
        "precision": config.TRAIN.precision._asdict(),
        "images": len(counted),
        "without truth": len(scores) - len(counted),
        "depth": means,
        **({"crop": test.CROP, "stride": test.STRIDE} if test.CROP is not None else {}),
        **({"batch_norm": statistics.record()} if statistics is not None else {}),
    }
    if distributed.is_main():
        write_json(Path(RunDir.of(config).path) / "depth.json", record)
    return means


def _refuse_other_requests(test: Any) -> None:
    """Raise ConfigError for TEST options that do not apply to depth: one snapshot, scored without augmentation."""
    unsupported = {
        "TEST.SAVE_PREDS: class predictions are written by the class evaluation": bool(test.SAVE_PREDS),
        "TEST.MODE: best selects a snapshot by class mIoU": test.MODE == "best",
        "TEST.ENSEMBLE: an ensemble predicts no depth": bool(test.ENSEMBLE),
        "TEST.FLIP and TEST.SCALES: apply to class predictions only": test.FLIP or list(test.SCALES) != [1.0],
    }
    for reason, requested in unsupported.items():
        if requested:
            raise ConfigError(f"{reason}; remove it for --depth, or run test.py without --depth")


@torch.inference_mode()
def _depth(net: torch.nn.Module, images: Tensor, config: Config) -> Tensor:
    crops = Crops.of(config.TEST.CROP, config.TEST.STRIDE)
    depth = sliding_forward(net, images, AMP_DTYPES[config.TRAIN.precision.format], crops).depth
    assert depth is not None
    return depth


def _sized(inverse: Tensor, size_hw: tuple[int, ...]) -> np.ndarray:
    return resize_bilinear(inverse[None], size_hw)[0, 0].cpu().numpy()
