"""Scoring: confusion matrices at label resolution, predictions, and mean entropy for label-free model selection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from advent.dataset.base_dataset import StreetDataset
from advent.dataset.image_io import picture_size
from advent.dataset.loader import load_batches, sequential_batches
from advent.dataset.resize import GEOMETRIES
from advent.errors import DataError
from advent.evaluation.predictor import Crops, Predictor, not_finite, refuse_not_finite
from advent.model.outputs import eval_mode, resize_bilinear
from advent.runtime import distributed
from advent.runtime.progress import with_progress
from advent.utils.loss import entropy_loss
from advent.utils.metrics import confusion_counts
from advent.utils.sampling import evenly_spaced

CLASSES_AT_ONCE = 8
OnPrediction = Callable[[str, np.ndarray], None]  # image name, (H, W) uint8 train ids


def confusion(
    net: nn.Module,
    dataset: StreetDataset,
    device: torch.device,
    *,
    batch_size: int = 1,
    workers: int = 0,
    amp: str = "off",
    crops: Crops | None = None,
    what: str = "evaluate",
) -> np.ndarray:
    """(C, C) int64 confusion matrix of one network over a labelled data set; restores the network's train/eval mode."""
    with eval_mode(net):
        predictor = Predictor([net], amp=amp, crops=crops)
        return score(predictor, dataset, device, batch_size=batch_size, workers=workers, what=what)


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
    """(C, C) int64 confusion matrix; logits are resized to each label's own size.

    Several processes share the images and return the same matrix. `on_prediction` is called with every prediction, on
    the process that made it. Without labels the matrix is zero, and predictions have the data set's score size, or else
    the image's own size. Raises NotFinite on all processes, naming the images with non-finite logits, which have no
    class. Raises DataError if no labelled pixel belongs to a class.
    """
    num_classes = len(dataset.classes)
    hist = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
    order = distributed.shard(sequential_batches(len(dataset), batch_size))
    bad_images: list[str] = []
    for batch in with_progress(load_batches(dataset, workers, device, order), what, len(order)):
        batch_logits = predictor(batch["image"])
        bad_images += not_finite(batch["name"], batch_logits)
        for index, (name, logits) in enumerate(zip(batch["name"], batch_logits, strict=True)):
            label = batch["label"][index].to(device) if "label" in batch else None
            ids = upsample_argmax(logits, label.shape[-2:] if label is not None else _padded_size(dataset, name))
            if label is not None:
                hist += confusion_counts(label, ids, num_classes)
            if on_prediction is not None and not bad_images:
                on_prediction(name, ids.cpu().numpy())
    refuse_everywhere(bad_images, f"{what}: the network's logits", predictor.amp)
    counts = distributed.all_reduce_sum(hist.cpu()).numpy()
    if (
        dataset.label_files is not None and not counts.any()
    ):  # the mean over no class is undefined, so it cannot select a snapshot
        raise DataError(
            f"{dataset.resolved.root}: no labelled pixel of {dataset.split} has a class of {dataset.classes.name}, so "
            "there is nothing to score; scripts/doctor.py shows which ids the labels contain"
        )
    return counts


@torch.inference_mode()
def upsample_argmax(logits: Tensor, size_hw: Sequence[int]) -> Tensor:
    """(C, h, w) logits -> (H, W) uint8 train ids: bilinear with aligned corners, then argmax.

    Processes a few classes at a time, so that the full-size logits are never all in memory and the running maximum
    stays in the cache.
    """
    best = ids = None
    for first in range(0, len(logits), CLASSES_AT_ONCE):
        chunk = logits[None, first : first + CLASSES_AT_ONCE]
        resized = resize_bilinear(chunk, size_hw)[0]
        value, index = resized.max(0)  # several times faster than argmax on a CPU
        chunk_ids = index.to(torch.uint8) + first
        if best is None or ids is None:
            best, ids = value, chunk_ids
        else:
            ids = torch.where(value > best, chunk_ids, ids)
            torch.maximum(best, value, out=best)
    assert ids is not None
    return ids


def native_size(dataset: StreetDataset, name: str) -> tuple[int, int]:
    """(height, width) of an image's prediction: the data set's score size, or else the image's own size."""
    width, height = dataset.spec.score_size or picture_size(Path(dataset.resolved.images) / name)
    return height, width


def _padded_size(dataset: StreetDataset, name: str) -> tuple[int, int]:
    """(height, width) of `native_size` plus the padding of the network's input: the size of the raw prediction."""
    height, width = native_size(dataset, name)
    if dataset.size is None or dataset.spec.score_size:
        return height, width
    padded_width, padded_height = GEOMETRIES[dataset.spec.geometry].native_canvas((width, height), dataset.size)
    return padded_height, padded_width


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
    """Mean entropy of the predictions, in [0, 1], over `images` evenly spaced images (0: all). Needs no labels.

    Low entropy means confident predictions. Entropy-based adversarial adaptation minimises it, so it can select a
    snapshot without labels. The selection can be wrong: a network that predicts road everywhere is confident, too.
    Raises NotFinite as `score` does.
    """
    count = min(images or len(dataset), len(dataset))
    bad_images: list[str] = []
    subset = torch.utils.data.Subset(dataset, evenly_spaced(len(dataset), count))
    order = distributed.shard(sequential_batches(count, batch_size))
    entropies: list[list[float]] = []
    for batch in with_progress(load_batches(subset, workers, device, order), what, len(order)):
        logits = predictor(batch["image"])
        bad_images += not_finite(batch["name"], logits)
        entropies.append([float(entropy_loss(image[None].softmax(1))) for image in logits])
    refuse_everywhere(bad_images, f"{what}: the network's logits", predictor.amp)
    # Summed in the order of a single process, since a sum of floats depends on the order.
    return sum(sum(batch) for batch in distributed.interleave(distributed.all_gather(entropies))) / count


def refuse_everywhere(spoilt: list[str], what: str, amp: str) -> None:
    """Raise NotFinite on every process if any process has non-finite images, so that none waits for the others."""
    everywhere = [name for names in distributed.all_gather(spoilt) for name in names]
    refuse_not_finite(everywhere, what, amp)
