"""ADVENT's evaluation module: its entry point; the evaluation stage is in advent/evaluation/stage.py."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from easydict import EasyDict
from torch import nn

from advent.checkpoints.loading import load_network
from advent.config.loading import as_config
from advent.config.schema import Config
from advent.errors import ConfigError
from advent.evaluation.evaluate import upsample_argmax
from advent.evaluation.predictor import Predictor, not_finite, refuse_not_finite
from advent.evaluation.stage import (
    CACHE,
    LABEL_FREE,
    OF_A_MACHINE,
    ORACLE,
    WAIT_SECONDS,
    Candidate,
    Scorer,
    candidates,
    evaluate_stage,
    evaluation_hook,
    predict_stage,
)
from advent.utils.metrics import confusion_matrix, intersection_over_union, mean_iou

__all__ = [
    "CACHE",
    "LABEL_FREE",
    "OF_A_MACHINE",
    "ORACLE",
    "WAIT_SECONDS",
    "Candidate",
    "Scorer",
    "candidates",
    "evaluate_domain_adaptation",
    "evaluate_stage",
    "evaluation_hook",
    "predict_stage",
]

log = logging.getLogger(__name__)


def evaluate_domain_adaptation(
    models: Sequence[nn.Module],
    test_loader: Iterable[Any],
    cfg: Config | EasyDict,
    fixed_test_size: bool = True,
    verbose: bool = True,
) -> float:
    """ADVENT's entry point: mIoU in percent of the weighted ensemble `models` on (image, label, ...) tuples.

    TEST.WEIGHTS weights the models' logits (default: 1 each). Checkpoints are loaded from TEST.ENSEMBLE, or one from
    TEST.RESTORE_FROM, if set. `fixed_test_size` is ignored and accepted for ADVENT's callers: logits are always
    resized to the label.
    """
    config = as_config(cfg)
    files = config.TEST.ENSEMBLE or ([config.TEST.RESTORE_FROM] if config.TEST.RESTORE_FROM else [])
    if files and len(files) != len(models):
        raise ConfigError(f"TEST.ENSEMBLE: {len(files)} checkpoints for {len(models)} models; give one for each")
    for model, path in zip(models, files, strict=bool(files)):
        load_network(model, path)
    predictor = Predictor(models, config.TEST.WEIGHTS)
    hist = np.zeros((config.NUM_CLASSES, config.NUM_CLASSES), np.int64)
    device = next(models[0].parameters()).device
    for image, labels, *rest in test_loader:
        logits = predictor(image.to(device))
        names = [str(name) for name in (rest[-1] if rest else range(len(image)))]
        refuse_not_finite(not_finite(names, logits), "the models' logits")
        for image_logits, label in zip(logits, labels, strict=True):
            ids = upsample_argmax(image_logits, label.shape[-2:]).cpu().numpy()
            hist += confusion_matrix(label.numpy(), ids, config.NUM_CLASSES)
    miou = mean_iou(intersection_over_union(hist))
    if verbose:
        log.info("mIoU %.2f", miou)
    return miou
