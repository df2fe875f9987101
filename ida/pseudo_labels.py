"""Pseudo labels of the target: thresholded for self-learning, plain argmax for intra-domain adaptation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from advent.config.schema import Config
from advent.dataset.pseudo_labels import PSEUDO_DEPTH_SUFFIX
from advent.errors import ConfigError
from advent.methods.registry import find_network
from advent.model.outputs import NetworkOutputs
from advent.runtime import distributed
from advent.utils.loss import IGNORE_LABEL
from advent.utils.serialization import write_atomically
from advent.utils.writer import Writer
from daf.class_thresholds import class_thresholds, probability_counts
from daf.dataset.depth import to_centimetres
from ida.predictions import Predictions

log = logging.getLogger(__name__)
BINS = 1000  # of the histogram of a class's probabilities


def pseudo_label(logits: Tensor, threshold: float | Tensor | None = None) -> Tensor:
    """(B, C, H, W) logits -> (B, H, W) uint8 train ids: the most likely class, 255 where its probability < threshold.

    A threshold of shape (C,) has one value per class. Resize the logits to the output size first: the authors' code
    takes the softmax after the resize.
    """
    if threshold is None:
        return logits.max(1).indices.to(torch.uint8)  # several times as fast as argmax on a CPU
    confidence, labels = logits.softmax(1).max(1)
    least = threshold[labels] if isinstance(threshold, Tensor) else threshold
    return labels.masked_fill(confidence < least, IGNORE_LABEL).to(torch.uint8)


def label_path(folder: Path, name: str, suffix: str = ".png") -> Path:
    """Path of an image's pseudo label: its relative path, always as PNG (lossy formats corrupt labels)."""
    return folder / PurePosixPath(name).with_suffix("").with_name(PurePosixPath(name).stem + suffix)


def write_label(
    folder: Path, name: str, labels: np.ndarray, colors: Callable[[np.ndarray], Image.Image] | None = None
) -> None:
    """Write (H, W) uint8 train ids as PNG; with `colors` also a coloured copy `<stem>_color.png`."""
    write_atomically(label_path(folder, name), lambda f: Image.fromarray(labels).save(f, "PNG"))
    if colors is not None:
        write_atomically(label_path(folder, name, "_color.png"), lambda f: colors(labels).save(f, "PNG"))


def writes_depth(config: Config, key: Literal["ISL", "RANK"]) -> bool:
    """Whether the labels of ISL, or of the ranking for IDA, come with depth (PSEUDO_DEPTH).

    Raises ConfigError for a network without depth.
    """
    wanted = (config.ISL if key == "ISL" else config.RANK).PSEUDO_DEPTH
    if wanted and not find_network(config).gives_depth:
        raise ConfigError(
            f"{key}.PSEUDO_DEPTH: true: MODEL.NAME {config.MODEL.NAME} predicts no depth; use DeepLabv2_depth, or set "
            f"{key}.PSEUDO_DEPTH=false"
        )
    return wanted


def write_depth(folder: Path, name: str, inverse: np.ndarray) -> None:
    """Write (H, W) inverse depth as a 16-bit PNG of centimetres, `<stem>_depth.png`, beside the image's label."""
    depth = Image.fromarray(to_centimetres(inverse))
    write_atomically(label_path(folder, name, PSEUDO_DEPTH_SUFFIX), lambda f: depth.save(f, "PNG"))


def submit_depth(writer: Writer, folder: Path, names: Sequence[str], prediction: NetworkOutputs) -> None:
    """Let the writer write the predicted depth of a batch."""
    assert prediction.depth is not None, "writes_depth refuses a network without depth"
    for name, inverse in zip(names, prediction.depth.squeeze(1).cpu().numpy(), strict=True):
        writer.submit(write_depth, folder, name, inverse)


def label_dataset(net: nn.Module, dataset: Any, config: Config, device: torch.device, folder: Path, what: str) -> float:
    """Write thresholded pseudo labels of a data set, with ISL.PSEUDO_DEPTH also depth, by background threads.

    Each process writes its share of the images. Returns, when all files are written, the share of labelled pixels over
    all images.
    """
    kept, total, with_depth = 0, 0, writes_depth(config, "ISL")
    predictions = Predictions(net, dataset, config, device, again=config.ISL.CLASS_SHARE > 0)
    threshold = find_threshold(predictions, what, config.ISL.THRESHOLD, config.ISL.CLASS_SHARE)
    with Writer() as writer:
        for names, prediction in predictions.read(what):
            labels = pseudo_label(prediction.main, threshold).cpu().numpy()
            kept += int((labels != IGNORE_LABEL).sum())
            total += labels.size
            for name, label in zip(names, labels, strict=True):
                writer.submit(write_label, folder, name, label)
            if with_depth:
                submit_depth(writer, folder, names, prediction)
    kept, total = distributed.all_reduce_sum(torch.tensor([kept, total])).tolist()
    return kept / total


def find_threshold(predictions: Predictions, what: str, threshold: float, share: float) -> float | Tensor:
    """`threshold`, or with a class `share` above 0 class-wise thresholds (C,) from an extra pass over the data set."""
    if share == 0:
        return float(threshold)
    classes, device = predictions.config.NUM_CLASSES, predictions.device
    counts = torch.zeros(classes, BINS, dtype=torch.int64, device=device)  # float32 cannot count a data set's pixels
    for _, prediction in predictions.read(f"{what} thresholds"):
        confidence, labels = prediction.main.softmax(1).max(1)
        counts += probability_counts(confidence, labels, classes, BINS).long()
    thresholds = class_thresholds(distributed.all_reduce_sum(counts.cpu()).double(), threshold, share)
    log.info("%s: thresholds %s", what, " ".join(f"{value:.3f}" for value in thresholds))
    return thresholds.to(torch.float32).to(device)  # in this order: MPS has no float64
