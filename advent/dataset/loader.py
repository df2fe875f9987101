"""Data loader: infinite, seeded batches that can start at any iteration."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import chain, islice
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset, Subset, default_collate, get_worker_info

from advent.dataset.augment import Augmentation, zoomed_depth
from advent.dataset.base_dataset import StreetDataset, network_depth, network_images
from advent.dataset.sampling import Draw, InfiniteBatchSampler
from advent.errors import DataError, UserError
from advent.runtime import distributed
from advent.runtime.signals import ignore_in_worker

__all__ = ["InfiniteBatchSampler", "batch_to_device", "infinite_batches", "load_batches", "sequential_batches"]

log = logging.getLogger(__name__)
Indices = Sequence[int] | Sequence[Draw]  # of one batch
THREADS = 4  # reading threads per worker
warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)  # `_check_workers` names the key
SHARED_MEMORY = "the shared memory (/dev/shm) used by data workers is full"
MORE_SHARED_MEMORY = "in Docker start with --shm-size=1g or --ipc=host; else lower NUM_WORKERS (0 needs none)"


class _CollectErrors(Dataset):
    """Reads batches of compact items. Returns user errors as values: raised in a worker, they would print a page.

    The items of draws are augmented and carry their `position`.
    """

    def __init__(self, dataset: Any, threads: int, augment: Augmentation | None) -> None:
        self.dataset, self.threads, self.augment = dataset, threads, augment
        self._pool: ThreadPoolExecutor | None = None  # created in the worker: threads do not survive a fork

    def __getitems__(self, batches: Sequence[Indices]) -> list[list[Any]]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads)
        items = self._pool.map(self._item, [index for batch in batches for index in batch])
        return [list(islice(items, len(batch))) for batch in batches]

    def _item(self, index: int | Draw) -> Any:
        try:
            if not isinstance(index, Draw):
                return _get_uint8(self.dataset, index)
            item = _get_uint8(self.dataset, index.index)
            if self.augment is not None:
                item = self.augment(item, index)
            return {**item, "position": index.position}
        except UserError as error:
            return error


def _get_uint8(dataset: Any, index: int) -> Any:
    if isinstance(dataset, Subset):
        return _get_uint8(dataset.dataset, dataset.indices[index])
    return dataset.get_uint8(index)


def _collate_each(batches: list[list[Any]]) -> list[Any]:
    return [_collate(items) for items in batches]


def _collate(items: list[Any]) -> Any:
    for item in items:
        if isinstance(item, UserError):
            return {"error": str(item)}
    try:
        if "label" in items[0] and len({item["label"].shape for item in items}) > 1:
            # Labels at native size differ between images (Mapillary); evaluation accepts a list.
            labels = [torch.as_tensor(item.pop("label")) for item in items]
            if get_worker_info() is not None:
                labels = [label.share_memory_() for label in labels]  # here, a full /dev/shm can be caught
            return {**default_collate(items), "label": labels}
        return default_collate(items)
    except RuntimeError as error:
        if "</torch_" not in str(error):  # names of PyTorch's files in shared memory
            raise
        return {"error": f"{SHARED_MEMORY} ({str(error).splitlines()[0]}); {MORE_SHARED_MEMORY}"}


def lost_worker(error: RuntimeError) -> str | None:
    """One-line cause of a data worker's death; None if the error is not about a dead worker."""
    if not str(error).startswith("DataLoader worker"):
        return None
    # The cause names the signal if this process started the worker. It has no text if a fork server did (Python 3.14).
    texts = [str(cause).strip() for cause in (error.__cause__, error.__context__, error)]
    first = next(text for text in texts if text and text != "None").splitlines()[0].rstrip(". ")
    if "Bus error" in first:
        return f"{SHARED_MEMORY} (a worker died of a bus error); {MORE_SHARED_MEMORY}"
    if "signal" in first:
        return f"{first}; the machine's memory may be full: lower NUM_WORKERS (0 reads without workers)"
    return f"{first}; the machine's memory may be full, or /dev/shm: {MORE_SHARED_MEMORY}"


def load_batches(
    dataset: Any,
    workers: int,
    device: torch.device,
    batches: Iterable[Indices],
    augment: Augmentation | None = None,
) -> Iterator[dict[str, Any]]:
    """Load batches of a StreetDataset, or a Subset of one, onto a device, with images as network input.

    `batches`: the indices or draws of each. Batches of draws have `position`, (B,) int64 on the CPU; `augment` changes
    their items. Every worker reads with THREADS threads (PNG decoding releases the GIL) and prefetches one group of
    batches, so shared memory contains at most `workers` + 1 groups. Images are transferred as
    uint8, depth as the file's 16 bits; both become float32 on the device. On CUDA the copy is asynchronous. A user
    error in a worker is raised here as a one-line DataError.
    """
    _check_workers(workers)
    groups = DataLoader(
        _CollectErrors(dataset, THREADS if workers else 1, augment),
        num_workers=workers,
        collate_fn=_collate_each,
        batch_sampler=_Groups(batches, THREADS if workers else 1),
        prefetch_factor=1 if workers else None,
        pin_memory=device.type == "cuda",
        worker_init_fn=ignore_in_worker if workers else None,
        # A separate generator: a loader draws a number at every start, and a resumed run starts more often.
        generator=_generator(),
    )
    base = _base_dataset(dataset)
    mean = torch.tensor(base.mean, dtype=torch.float32, device=device)
    table = None if base.depth_table is None else torch.from_numpy(base.depth_table).to(device)
    for batch in chain.from_iterable(groups):
        if "error" in batch:
            raise DataError(batch["error"])
        moved = batch_to_device(batch, device)
        moved["image"] = network_images(moved["image"], mean)
        if table is not None:
            moved["depth"] = network_depth(moved["depth"], table)
        if "depth" in moved and base.depth_has_gaps:
            moved["depth_known"] = moved["depth"] > 0
        if "zoom" in moved:
            moved["depth"] = zoomed_depth(moved["depth"], moved.pop("zoom"))
        yield moved


@cache
def _check_workers(workers: int) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers > cores:
        log.warning("NUM_WORKERS: %d worker processes on %d cores; fewer may be faster", workers, cores)


def sequential_batches(length: int, batch_size: int) -> list[range]:
    """Batches of all indices in order; the last one may be smaller.

    For several processes, `shard` distributes these batches. Each batch is then the same as in a single process, so
    predictions are bit-identical.
    """
    return [range(start, min(start + batch_size, length)) for start in range(0, length, batch_size)]


class _Groups:
    """Groups of batches that a worker reads together: about `images` images, at least one batch."""

    def __init__(self, batches: Iterable[Indices], images: int) -> None:
        self.batches, self.images = batches, images

    def __iter__(self) -> Iterator[list[Indices]]:
        group: list[Indices] = []
        for batch in self.batches:
            group.append(batch)
            if len(batch) * (len(group) + 1) > self.images:
                yield group
                group = []
        if group:
            yield group


def _generator() -> torch.Generator:
    """Random generator for the workers' seeds, which differ by worker and process."""
    generator = torch.Generator()
    return generator.manual_seed(generator.initial_seed() + distributed.rank())


def _base_dataset(dataset: StreetDataset | Subset[Any]) -> StreetDataset:
    """The data set itself, or the one that a Subset was taken from."""
    return _base_dataset(cast(Any, dataset.dataset)) if isinstance(dataset, Subset) else dataset


def batch_to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Move a batch's tensors to the device, asynchronously on CUDA. Other values stay unchanged.

    So does `position`: it seeds random numbers on the CPU, and reading it from a device would wait for the device.
    """
    # On other devices the source may be freed before it is copied (MPS from pageable memory).
    non_blocking = device.type == "cuda"
    tensors = {k: v for k, v in batch.items() if isinstance(v, torch.Tensor) and k != "position"}
    return {**batch, **{k: v.to(device, non_blocking=non_blocking) for k, v in tensors.items()}}


def infinite_batches(
    dataset: Any,
    batch_size: int,
    seed: int,
    workers: int,
    device: torch.device,
    start: int = 0,
    accumulate: int = 1,
    *,
    augment: Augmentation | None = None,
    choose: Callable[[int], Draw] | None = None,
) -> Iterator[dict[str, Any]]:
    """Infinite batches of this process on `device`: `accumulate` per iteration, starting at iteration `start`.

    `choose`: position -> draw, instead of a permutation of all images per epoch. The workers run as long as the
    iterator exists.
    """
    parts, first = accumulate * distributed.world_size(), accumulate * distributed.rank()
    sampler = InfiniteBatchSampler(
        len(dataset), batch_size, seed, start, parts=parts, first=first, count=accumulate, choose=choose
    )
    return load_batches(dataset, workers, device, sampler, augment)
