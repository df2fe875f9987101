"""How good the predicted depth is on a target with disparity and camera: the usual measures, capped at 80 m."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from advent.build.network import build_network
from advent.checkpoints.io import digest
from advent.checkpoints.provenance import environment
from advent.checkpoints.run_dir import RunDir
from advent.config.class_set import class_set, target_spec
from advent.config.schema import Config
from advent.dataset.base_dataset import StreetDataset
from advent.dataset.loader import load_batches, sequential_batches
from advent.dataset.resolved_layout import resolve_root
from advent.errors import ConfigError
from advent.evaluation.evaluate import refuse_everywhere
from advent.evaluation.predictor import not_finite, outputs
from advent.evaluation.stage import candidates
from advent.methods.registry import find_network
from advent.model.precision import AMP_DTYPES, to_device
from advent.runtime import distributed
from advent.runtime.device import prepare_device
from advent.runtime.progress import with_progress
from advent.utils.serialization import write_json
from daf.dataset.depth import CM_PER_M, INVERSE_SCALE, read_depth_metres

CAP_M = 80.0
LEAST_M = 0.01  # an inverse depth of 65536 and more would be no distance at all, or a negative one
MEASURES = ("abs rel", "sq rel", "RMSE", "RMSE log", "d < 1.25", "d < 1.25^2", "d < 1.25^3")


def metres(inverse: np.ndarray) -> np.ndarray:
    """Predicted inverse depth 65536 / (cm + 1), (H, W) -> metres in [0.01, 80]."""
    capped = np.maximum(inverse.astype(np.float64), INVERSE_SCALE / (CM_PER_M * CAP_M + 1))
    return np.maximum((INVERSE_SCALE / capped - 1) / CM_PER_M, LEAST_M)


def depth_scores(predicted_m: np.ndarray, truth_m: np.ndarray) -> dict[str, float] | None:
    """The measures of one image; both (H, W) in metres, truth NaN where there is none.

    Pixels with a truth of at most 80 m count; the prediction is scaled by median(truth) / median(prediction), since
    its scale is the source's. None for an image without such a pixel.
    """
    valid = np.isfinite(truth_m) & (truth_m > 0) & (truth_m <= CAP_M)
    if not valid.any():
        return None
    truth, found = truth_m[valid], predicted_m[valid]
    found = found * (np.median(truth) / np.median(found))
    error, ratio = found - truth, np.maximum(found / truth, truth / found)
    values = [
        np.mean(np.abs(error) / truth),
        np.mean(error**2 / truth),
        np.sqrt(np.mean(error**2)),
        np.sqrt(np.mean(np.log(found / truth) ** 2)),
        *[np.mean(ratio < 1.25**k) for k in (1, 2, 3)],
    ]
    return dict(zip(MEASURES, map(float, values), strict=True))


def evaluate_depth(config: Config) -> dict[str, float]:
    """Mean over the images of the target's labelled set, for the checkpoint that TEST names; leaves `depth.json`.

    Raises ConfigError where TEST asks for what is not done with depth, NotFinite naming images whose depth is none.
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
    net = to_device(build_network(config, candidate.files[0]), device).eval()
    truths = dict(
        zip(dataset.names, zip(dataset.depth_files or [], dataset.camera_files or [], strict=True), strict=True)
    )
    found: list[list[dict[str, float] | None]] = []
    spoilt: list[str] = []
    order = distributed.shard(sequential_batches(len(dataset), test.BATCH_SIZE_TARGET))
    for batch in with_progress(load_batches(dataset, config.NUM_WORKERS, device, order), "depth", len(order)):
        found.append([])
        depth = _depth(net, batch["image"], config)
        spoilt += not_finite(batch["name"], depth)
        for name, inverse in zip(batch["name"], depth, strict=True):
            truth = read_depth_metres(*truths[name])
            found[-1].append(depth_scores(metres(_sized(inverse, truth.shape)), truth))
    refuse_everywhere(spoilt, f"{candidate}: the predicted depth", config.TRAIN.AMP)
    scores = [one for batch in distributed.interleave(distributed.all_gather(found)) for one in batch]
    counted = [score for score in scores if score is not None]
    if not counted:
        raise ConfigError(f"{spec.name}: no image of {test.SET_TARGET} has a valid depth up to {CAP_M:.0f} m")
    means = {name: float(np.mean([score[name] for score in counted])) for name in MEASURES}
    record = {
        "schema": 1,
        **environment(),
        "snapshot": str(candidate),
        "sha256": digest(candidate.files[0]),
        "images": len(counted),
        "without truth": len(scores) - len(counted),
        "depth": means,
    }
    if distributed.is_main():
        write_json(Path(RunDir.of(config).path) / "depth.json", record)
    return means


def _refuse_other_requests(test: Any) -> None:
    """One snapshot's depth is scored, as the network gives it: what TEST asks for beyond that is not dropped unseen."""
    wrong = {
        "TEST.SAVE_PREDS: predictions of classes are written when classes are scored": bool(test.SAVE_PREDS),
        "TEST.MODE: best is chosen by the score of classes": test.MODE == "best",
        "TEST.ENSEMBLE: networks together have no depth": bool(test.ENSEMBLE),
        "TEST.FLIP and TEST.SCALES: are for classes": test.FLIP or list(test.SCALES) != [1.0],
    }
    for reason, asked in wrong.items():
        if asked:
            raise ConfigError(f"{reason}; leave it out with --depth, and run test.py again without --depth for it")


@torch.inference_mode()
def _depth(net: torch.nn.Module, images: Tensor, config: Config) -> Tensor:
    depth = outputs(net, images, AMP_DTYPES[config.TRAIN.AMP])[1]
    assert depth is not None
    return depth


def _sized(inverse: Tensor, size_hw: tuple[int, ...]) -> np.ndarray:
    resized = functional.interpolate(inverse[None], size=size_hw, mode="bilinear", align_corners=True)
    return resized[0, 0].cpu().numpy()
