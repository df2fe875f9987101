"""Batch-norm statistics of the target: re-estimated on its unlabelled training images, with unchanged weights.

A network trained on two domains holds running statistics of both. Re-estimation replaces them with those of the target
alone (AdaBN, Li et al., 2017). It reads no label, and never the images that are scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from advent.build import target_data
from advent.checkpoints.io import digest, read, save
from advent.checkpoints.provenance import names_digest
from advent.checkpoints.run_dir import RunDir
from advent.config.schema import Config
from advent.dataset.base_dataset import StreetDataset
from advent.dataset.loader import load_batches
from advent.errors import CheckpointError, ConfigError
from advent.evaluation.score_key import WITHOUT_EFFECT_ON_SCORES, setting_digest
from advent.model.batch_norm import batch_norms, preserved_statistics, reestimate, required_batch_norms
from advent.model.precision import AMP_DTYPES, to_device
from advent.runtime import distributed
from advent.runtime.progress import with_progress
from advent.utils.sampling import evenly_spaced

# Not TEST.BATCH_SIZE_TARGET: the batch size must not change a score. Above 1, the variance of a batch contains most of
# the variance between images.
IMAGES_PER_BATCH = 8
FILE = "target_statistics.pth"  # in the run directory, as scores.json


def spread_batches(indices: Sequence[int], size: int = IMAGES_PER_BATCH) -> list[list[int]]:
    """Batches of at most `size` indices whose lengths differ by at most 1, since each has the same weight.

    Each batch takes every n-th index: neighbours in a data set are often frames of one drive.
    """
    count = -(-len(indices) // size)
    return [list(indices[first::count]) for first in range(count)]


class TargetStatistics:
    """Re-estimation on the target's training images (TRAIN.SET_TARGET), in a fixed order.

    `size`: (width, height) of the images; by default TRAIN.INPUT_SIZE_TARGET. `images`: how many evenly spaced images;
    0: all. With several processes every process reads all images, so that the statistics do not depend on their number
    (with TRAIN.SYNC_BN, evaluation during training: up to the rounding of the unbiased variance).
    """

    def __init__(self, config: Config, size: Sequence[int] | None = None, images: int = 0) -> None:
        self.config = config
        self.dataset: StreetDataset = target_data(config, size=size)
        self.indices = evenly_spaced(len(self.dataset), images or len(self.dataset))

    @classmethod
    def for_scoring(cls, config: Config, scored: StreetDataset | None = None) -> TargetStatistics | None:
        """The statistics that TEST.BN_STATISTICS asks for, at the size that is scored; None for the checkpoint's.

        Raises ConfigError if an image is also in the data set that is `scored`.
        """
        test = config.TEST
        if test.BN_STATISTICS == "checkpoint":
            return None
        statistics = cls(config, test.INPUT_SIZE_TARGET, test.BN_IMAGES)
        shared = _files(statistics.dataset) & _files(scored) if scored is not None else set()
        if shared:
            raise ConfigError(
                f"TEST.BN_STATISTICS: target: {len(shared)} images of TRAIN.SET_TARGET ({config.TRAIN.SET_TARGET}) are "
                f"in the scored set, TEST.SET_TARGET ({test.SET_TARGET}); statistics are never estimated on scored "
                "images: choose another split, or TEST.BN_STATISTICS=checkpoint"
            )
        return statistics

    def reestimate(self, net: nn.Module, device: torch.device, workers: int | None = None) -> None:
        """Re-estimate a network on `device`. `workers`: data loading processes; by default NUM_WORKERS."""
        workers = self.config.NUM_WORKERS if workers is None else workers
        required_batch_norms(net)  # refuses a network without batch norms before images are read
        order = spread_batches(self.indices)
        batches = with_progress(load_batches(self.dataset, workers, device, order), "batch norm", len(order))
        reestimate(net, (batch["image"] for batch in batches), AMP_DTYPES[self.config.TRAIN.precision.format])

    def apply(self, net: nn.Module, checkpoint: Path, device: torch.device) -> None:
        """Re-estimate the network of a checkpoint, or use what an earlier call stored as FILE.

        The stored statistics are used only if the checkpoint, the images, the config, the device and the code are the
        same. One file holds those of the last checkpoint; it saves the pass for figures and further scores.
        """
        path = RunDir.of(self.config).path / FILE
        key = distributed.broadcast_object(lambda: self._key(checkpoint, device))
        stored = distributed.broadcast_object(lambda: _stored(path, key))
        if stored is not None:
            for norm, buffers in zip(batch_norms(net), stored, strict=True):
                for name, buffer in norm.named_buffers(recurse=False):
                    buffer.copy_(buffers[name])
            return
        self.reestimate(net, device)
        if distributed.is_main() and path.parent.is_dir():
            kept = [{name: b.cpu() for name, b in norm.named_buffers(recurse=False)} for norm in batch_norms(net)]
            with suppress(OSError):  # a folder that may only be read
                save(path, {"key": key, "buffers": kept})

    def _key(self, checkpoint: Path, device: torch.device) -> str:
        without_effect = (*WITHOUT_EFFECT_ON_SCORES, "TEST.")  # images and size: in the record and the data's digest
        setting = setting_digest(self.config, device, [self.dataset], without_effect)
        return " ".join([digest(checkpoint), self.record()["sha256"], setting])

    @contextmanager
    def applied(self, net: nn.Module, device: torch.device, workers: int | None = None) -> Iterator[None]:
        """Within the context the network has re-estimated statistics, afterwards its own."""
        with preserved_statistics(net):
            self.reestimate(net, device, workers)
            yield

    def record(self) -> dict[str, Any]:
        """Split, number and digest of the images, for results and provenance."""
        names = [self.dataset.names[index] for index in self.indices]
        return {"split": self.dataset.split, "images": len(names), "sha256": names_digest(names)}


def applied_or_own(
    statistics: TargetStatistics | None, net: nn.Module, device: torch.device
) -> AbstractContextManager[None]:
    """`statistics.applied`, or a context without effect for None. Reads data without worker processes."""
    return nullcontext() if statistics is None else statistics.applied(net, device, workers=0)


def restore_statistics(net: nn.Module, config: Config, device: torch.device) -> None:
    """TRAIN.RESTORE_BN: re-estimate a network that a later stage starts from, on the stage's target; moves it there."""
    if config.TRAIN.RESTORE_BN == "target":
        TargetStatistics(config, images=config.TRAIN.STATISTICS_IMAGES).reestimate(to_device(net, device), device)


def _stored(path: Path, key: str) -> list[dict[str, torch.Tensor]] | None:
    """The buffers that are stored under this key, one dictionary per batch norm."""
    if not path.is_file():
        return None
    try:
        content = read(path)
        return content["buffers"] if content["key"] == key else None
    except (CheckpointError, KeyError, TypeError):  # not written by `apply`
        return None


def _files(dataset: StreetDataset) -> set[Path]:
    return {Path(dataset.resolved.images) / name for name in dataset.names}
