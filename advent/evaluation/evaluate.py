"""Scoring: confusion matrices at label resolution, predictions for files, and a choice of snapshots without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from advent.dataset.base_dataset import StreetDataset
from advent.dataset.image_io import picture_size
from advent.dataset.loader import load_batches, sequential_batches
from advent.dataset.resize import GEOMETRIES
from advent.errors import DataError
from advent.evaluation.predictor import Predictor, not_finite, refuse_not_finite
from advent.runtime import distributed
from advent.runtime.progress import with_progress
from advent.utils.loss import entropy_loss
from advent.utils.metrics import confusion_counts

CLASSES_AT_ONCE = 8
OnPrediction = Callable[[str, np.ndarray], None]  # an image's name, (H, W) uint8 train ids


def confusion(
    net: nn.Module,
    dataset: StreetDataset,
    device: torch.device,
    *,
    batch_size: int = 1,
    workers: int = 0,
    amp: str = "off",
    what: str = "evaluate",
) -> np.ndarray:
    """(C, C) int64 confusion matrix of one network over a labelled data set; left in the mode that it came in."""
    was_training = net.training
    try:
        return score(Predictor([net], amp=amp), dataset, device, batch_size=batch_size, workers=workers, what=what)
    finally:
        net.train(was_training)


def score(
    predictor: Predictor,
    dataset: StreetDataset,
    device: torch.device,
    *,
    batch_size: int = 1,
    workers: int = 0,
    what: str = "evaluate",
    on_prediction: OnPrediction | None = None,
) -> np.ndarray:
    """(C, C) int64 confusion matrix; logits are resized to each label's own size, whatever the batch.

    Several processes share the images and get the same matrix. `on_prediction` also gets every prediction, on the process that
    made it. Without labels in the data set the matrix is empty, and predictions have the
    size at which the data set is scored, else the image's own. Raises NotFinite, on all processes, naming the images
    whose logits are not finite: they have no class; DataError where no labelled pixel has one.
    """
    num_classes = len(dataset.classes)
    hist = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
    order = distributed.shard(sequential_batches(len(dataset), batch_size))
    spoilt: list[str] = []
    for batch in with_progress(load_batches(dataset, workers, device, order), what, len(order)):
        found = predictor(batch["image"])
        spoilt += not_finite(batch["name"], found)
        for index, (name, logits) in enumerate(zip(batch["name"], found, strict=True)):
            label = batch["label"][index].to(device) if "label" in batch else None
            ids = upsample_argmax(logits, label.shape[-2:] if label is not None else _padded_size(dataset, name))
            if label is not None:
                hist += confusion_counts(label, ids, num_classes)
            if on_prediction is not None and not spoilt:
                on_prediction(name, ids.cpu().numpy())
    refuse_everywhere(spoilt, f"{what}: the network's logits", predictor.amp)
    counts = distributed.all_reduce_sum(hist.cpu()).numpy()
    if dataset.label_files is not None and not counts.any():  # the mean over no class is no number to choose by
        raise DataError(
            f"{dataset.resolved.root}: no labelled pixel of {dataset.split} has a class of {dataset.classes.name}, so "
            "there is nothing to score; scripts/doctor.py shows which ids the labels hold"
        )
    return counts


@torch.inference_mode()
def upsample_argmax(logits: Tensor, size_hw: Sequence[int]) -> Tensor:
    """(C, h, w) logits -> (H, W) uint8 train ids: bilinear with corners aligned, then argmax.

    A few classes at a time: the logits at full size are never all held, and the running maximum stays near.
    """
    best = ids = None
    for first in range(0, len(logits), CLASSES_AT_ONCE):
        some = logits[None, first : first + CLASSES_AT_ONCE]
        resized = functional.interpolate(some, size=tuple(size_hw), mode="bilinear", align_corners=True)[0]
        value, index = resized.max(0)  # several times as fast as argmax on a CPU
        found = index.to(torch.uint8) + first
        if best is None or ids is None:
            best, ids = value, found
        else:
            ids = torch.where(value > best, found, ids)
            torch.maximum(best, value, out=best)
    assert ids is not None
    return ids


def native_size(dataset: StreetDataset, name: str) -> tuple[int, int]:
    """(height, width) at which an image's prediction is asked for: the data set's score size, else the image's own."""
    width, height = dataset.spec.score_size or picture_size(Path(dataset.resolved.images) / name)
    return height, width


def _padded_size(dataset: StreetDataset, name: str) -> tuple[int, int]:
    """(height, width) of `native_size` with the padding that the network's input has: what is predicted on."""
    height, width = native_size(dataset, name)
    if dataset.size is None or dataset.spec.score_size:
        return height, width
    wide, high = GEOMETRIES[dataset.spec.geometry].native_canvas((width, height), dataset.size)
    return high, wide


def mean_entropy(
    predictor: Predictor,
    dataset: StreetDataset,
    device: torch.device,
    *,
    batch_size: int = 1,
    workers: int = 0,
    images: int = 0,
    what: str = "entropy",
) -> float:
    """Mean entropy of the predictions, in [0, 1], over `images` evenly spread ones (0: all). Needs no label.

    Low entropy is certainty: what adversarial adaptation by entropy drives down, and so a choice of snapshots that
    looks at no label. It can be wrong: a network that calls everything road is certain, too. Raises NotFinite as
    `score` does.
    """
    count = min(images or len(dataset), len(dataset))
    spoilt: list[str] = []
    chosen = np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist()
    subset = torch.utils.data.Subset(dataset, chosen)
    order = distributed.shard(sequential_batches(count, batch_size))
    found: list[list[float]] = []
    for batch in with_progress(load_batches(subset, workers, device, order), what, len(order)):
        logits = predictor(batch["image"])
        spoilt += not_finite(batch["name"], logits)
        found.append([float(entropy_loss(one[None].softmax(1))) for one in logits])
    refuse_everywhere(spoilt, f"{what}: the network's logits", predictor.amp)
    # Added up in the order of one process: a sum of floats depends on it.
    return sum(sum(batch) for batch in distributed.interleave(distributed.all_gather(found))) / count


def refuse_everywhere(spoilt: list[str], what: str, amp: str) -> None:
    """Refuse on every process what one of them found, so that none waits for the others' results."""
    everywhere = [name for names in distributed.all_gather(spoilt) for name in names]
    refuse_not_finite(everywhere, what, amp)
