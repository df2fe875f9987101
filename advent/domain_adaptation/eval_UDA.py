"""Evaluation: confusion matrix at label resolution, IoU per class, mIoU; one checkpoint, the last, or every one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from advent.dataset.base_dataset import StreetDataset
from advent.dataset.classes import ClassSet
from advent.domain_adaptation.config import config_digest, plain
from advent.engine.build import build_network, class_set, test_data
from advent.engine.checkpoint import digest, load_network
from advent.engine.device import pick_device
from advent.engine.learner import AMP_DTYPES
from advent.engine.metrics import confusion_matrix, intersection_over_union, mean_iou
from advent.engine.progress import tracked
from advent.engine.provenance import environment, names_digest
from advent.engine.runlog import StageFolder
from advent.engine.streams import loader, to_device
from advent.errors import MissingStage
from advent.utils.serialization import write_json

log = logging.getLogger(__name__)
ORACLE = "best (oracle)"  # chosen by its score on the very labels it is reported on
WAIT_SECONDS = 30.0


@torch.inference_mode()
def confusion(
    net: nn.Module, dataset: StreetDataset, device: torch.device, *, batch_size: int = 1, workers: int = 0,
    amp: str = "off", what: str = "evaluate",
) -> np.ndarray:  # fmt: skip
    """(C, C) int64 confusion matrix over a labelled data set; logits are resized to each label's own size.

    The network is put into eval mode meanwhile and left in the mode that it came in.
    """
    was_training = net.training
    net.eval()
    num_classes = int(net.num_classes)  # type: ignore[arg-type]
    hist = np.zeros((num_classes, num_classes), np.int64)
    batches = loader(dataset, workers, batch_size=batch_size, shuffle=False)
    for batch in tracked(batches, what, -(-len(dataset) // batch_size)):
        batch = to_device(batch, device)
        with torch.autocast(device.type, dtype=AMP_DTYPES[amp], enabled=amp != "off"):
            logits = net(batch["image"])[1]
        for one, label in zip(logits.float(), batch["label"], strict=True):
            hist += confusion_matrix(label.cpu().numpy(), predicted(one, label.shape[-2:]), num_classes)
    net.train(was_training)
    return hist


def predicted(logits: Tensor, size_hw: Sequence[int]) -> np.ndarray:
    """(C, h, w) logits -> (H, W) uint8 train ids: bilinear with corners aligned, then argmax."""
    resized = functional.interpolate(logits[None], size=tuple(size_hw), mode="bilinear", align_corners=True)
    return resized[0].argmax(0).to(torch.uint8).cpu().numpy()


def summary(hist: np.ndarray, classes: ClassSet) -> dict[str, Any]:
    """The results schema's scores of a confusion matrix, all in percent; a class that occurs nowhere is null."""
    iou = intersection_over_union(hist)
    total = int(hist.sum())
    return {
        "miou": mean_iou(iou),
        **{name: mean_iou(iou, members) for name, members in classes.subset.items()},
        "pixel_accuracy": 100 * float(np.trace(hist)) / total if total else None,
        "iou": {name: None if np.isnan(v) else 100 * float(v) for name, v in zip(classes.names, iou, strict=True)},
        "pixels": total,
    }


def evaluate_stage(config: Any) -> list[dict[str, Any]]:
    """Score snapshots of the config's stage on the target's labelled set and write `results.json`.

    TEST.MODE `single` takes TEST.RESTORE_FROM, `last` the last snapshot, `best` every one; the best is then marked as
    an oracle's choice, since it was chosen on the labels that it is scored on. Returns the results, last one last.
    """
    device = pick_device(config.DEVICE)
    classes, dataset = class_set(config), test_data(config)
    results = []
    for iteration, path in _chosen(config):
        net = build_network(config, path).to(device)
        hist = confusion(
            net, dataset, device, batch_size=config.TEST.BATCH_SIZE_TARGET, workers=config.NUM_WORKERS,
            amp=config.TRAIN.AMP, what=path.name,
        )  # fmt: skip
        results.append(
            {"iteration": iteration, "snapshot": str(path), "sha256": digest(path), **summary(hist, classes)}
        )
    for result in results:
        result["selected"] = config.TEST.MODE if config.TEST.MODE == "single" else "snapshot"
    if config.TEST.MODE != "single":
        results[-1]["selected"] = "last"
        if config.TEST.MODE == "best":
            best = max(results, key=lambda result: result["miou"])
            results.insert(0, best | {"selected": ORACLE})
    record = {
        "schema": 1, "experiment": config.EXP_NAME, "stage": config.STAGE.NAME, "seed": config.TRAIN.RANDOM_SEED,
        "target": config.TARGET, "set": config.TEST.SET_TARGET, "images": len(dataset),
        **environment(), "names": names_digest(dataset.names),
        "config": config_digest(config), "test": plain(config.TEST), "results": results,
    }  # fmt: skip
    write_json(StageFolder.of(config).path / "results.json", record)
    return results


def evaluation_hook(config: Any, net: nn.Module, device: torch.device) -> Callable[[int], dict[str, float]]:
    """A loop hook that scores the network every TRAIN.EVAL_EVERY iterations (its rows read `test_miou`)."""
    dataset, classes = test_data(config), class_set(config)

    def hook(iteration: int) -> dict[str, float]:
        if (iteration + 1) % config.TRAIN.EVAL_EVERY:
            return {}
        scores = summary(confusion(net, dataset, device, workers=0, amp=config.TRAIN.AMP), classes)
        return {"test_miou": scores["miou"]}

    return hook


def _chosen(config: Any) -> list[tuple[int | None, Path]]:
    test, folder = config.TEST, StageFolder.of(config)
    if test.RESTORE_FROM:
        return [(None, Path(test.RESTORE_FROM))]
    while test.WAIT_MODEL and not folder.finished():
        log.info("%s: TEST.WAIT_MODEL is set and the stage is not finished; waiting", folder.path)
        time.sleep(WAIT_SECONDS)
    snapshots: list[tuple[int | None, Path]] = list(folder.snapshots())
    if not snapshots:
        raise MissingStage(
            f"{folder.path}: no snapshot to test. Run its training first, with the same --cfg and "
            "--exp-root, or name a checkpoint: TEST.RESTORE_FROM=FILE"
        )
    return snapshots if test.MODE == "best" else snapshots[-1:]


def evaluate_domain_adaptation(
    models: Sequence[nn.Module],
    test_loader: Iterable[Any],
    cfg: Any,
    fixed_test_size: bool = True,
    verbose: bool = True,
) -> float:
    """ADVENT's entry point: mIoU in percent of the weighted ensemble `models` on (image, label, ...) tuples.

    Checkpoints are loaded from TEST.RESTORE_FROM when it is set. `fixed_test_size` is accepted for callers of ADVENT;
    logits are always resized to the label.
    """
    if cfg.TEST.RESTORE_FROM:
        paths = cfg.TEST.RESTORE_FROM if isinstance(cfg.TEST.RESTORE_FROM, list) else [cfg.TEST.RESTORE_FROM]
        for model, path in zip(models, paths, strict=True):
            load_network(model, path)
    hist = np.zeros((cfg.NUM_CLASSES, cfg.NUM_CLASSES), np.int64)
    for model in models:
        model.eval()
    device = next(models[0].parameters()).device
    with torch.inference_mode():
        for image, labels, *_ in test_loader:
            logits = sum(
                (model(image.to(device))[1].float() for model in models[1:]), models[0](image.to(device))[1].float()
            )
            for one, label in zip(logits, labels, strict=True):
                hist += confusion_matrix(label.numpy(), predicted(one, label.shape[-2:]), cfg.NUM_CLASSES)
    score = mean_iou(intersection_over_union(hist))
    if verbose:
        log.info("mIoU %.2f", score)
    return score
