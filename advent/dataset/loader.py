"""Endless, seeded streams of batches that can start at any iteration."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import chain, islice
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, Subset, default_collate, get_worker_info

from advent.dataset.base_dataset import StreetDataset, network_depth, network_images
from advent.errors import DataError, UserError
from advent.runtime import distributed
from advent.runtime.signals import ignore_in_worker

log = logging.getLogger(__name__)
THREADS = 4  # that read in each worker
warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)  # names no key; `_check_workers` does
SHARED_MEMORY = "the shared memory (/dev/shm) that data workers pass images through is full"
MORE_SHARED_MEMORY = "in Docker start with --shm-size=1g or --ipc=host; else lower NUM_WORKERS (0 needs none)"


class InfiniteBatchSampler(Sampler[list[int]]):
    """Batches of indices without end: one seeded permutation per epoch, batches run on across epochs.

    The order depends on (length, batch size, seed) alone, so a run continued at iteration i sees the batches that an
    undisturbed one sees. An iteration's batch is cut into `parts` of `batch_size`; the sampler gives `count` of them,
    from number `first` on: a process's own. All parts together are what one process with the whole batch sees.
    """

    def __init__(
        self, length: int, batch_size: int, seed: int, start: int = 0, *, parts: int = 1, first: int = 0, count: int = 1
    ) -> None:
        self.length, self.batch_size, self.seed, self.start = length, batch_size, seed, start
        self.parts, self.first, self.count = parts, first, count

    def order(self, epoch: int) -> list[int]:
        """The permutation of one epoch."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        return torch.randperm(self.length, generator=generator).tolist()

    def __iter__(self) -> Iterator[list[int]]:
        part = self.start * self.parts + self.first
        epoch, order = -1, []
        while True:
            for one in range(part, part + self.count):
                batch = []
                for at in range(one * self.batch_size, (one + 1) * self.batch_size):
                    if at // self.length != epoch:
                        epoch = at // self.length
                        order = self.order(epoch)
                    batch.append(order[at % self.length])
                yield batch
            part += self.parts


class _CollectErrors(Dataset):
    """Compact items, batches of them together. A user's error leaves a worker as a value: raised, it fills a page."""

    def __init__(self, dataset: Any, threads: int) -> None:
        self.dataset, self.threads = dataset, threads
        self._pool: ThreadPoolExecutor | None = None  # made in the worker: threads do not survive a fork

    def __getitems__(self, batches: Sequence[Sequence[int]]) -> list[list[Any]]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads)
        items = self._pool.map(self._item, [index for batch in batches for index in batch])
        return [list(islice(items, len(batch))) for batch in batches]

    def _item(self, index: int) -> Any:
        try:
            return _get_uint8(self.dataset, index)
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
            # Labels at native size differ from image to image (Mapillary); a list serves evaluation as well.
            labels = [torch.as_tensor(item.pop("label")) for item in items]
            if get_worker_info() is not None:
                labels = [label.share_memory_() for label in labels]  # here, where a full /dev/shm can be caught
            return {**default_collate(items), "label": labels}
        return default_collate(items)
    except RuntimeError as error:
        if "</torch_" not in str(error):  # the names of PyTorch's files in shared memory
            raise
        return {"error": f"{SHARED_MEMORY} ({str(error).splitlines()[0]}); {MORE_SHARED_MEMORY}"}


def lost_worker(error: RuntimeError) -> str | None:
    """In one line, why a data worker died, where PyTorch says that one did; None for any other error."""
    if not str(error).startswith("DataLoader worker"):
        return None
    first = str(error.__cause__ or error.__context__ or error).splitlines()[0]  # which names the signal
    if "Bus error" in first:
        return f"{SHARED_MEMORY} (a worker died of a bus error); {MORE_SHARED_MEMORY}"
    return f"{first.rstrip('. ')}; the machine's memory may be full: lower NUM_WORKERS (0 reads without workers)"


def load_batches(
    dataset: Any, workers: int, device: torch.device, batches: Iterable[Sequence[int]]
) -> Iterator[dict[str, Any]]:
    """`batches` of indices of a StreetDataset, or a Subset of one, on a device, images as the network gets them.

    Every worker reads with THREADS threads, one group of batches ahead (unpacking a PNG leaves Python free): shared
    memory holds at most `workers` + 1 groups. Images travel as bytes, depth as its file's 16 bits; both become float32
    on the device; the copy is not waited for. A user's error in a worker is raised here, in one line.
    """
    _check_workers(workers)
    groups = DataLoader(
        _CollectErrors(dataset, THREADS if workers else 1),
        num_workers=workers,
        collate_fn=_collate_each,
        batch_sampler=_Groups(batches, THREADS if workers else 1),
        prefetch_factor=1 if workers else None,
        pin_memory=device.type == "cuda",
        worker_init_fn=ignore_in_worker if workers else None,
        generator=_generator(),  # its own: a loader draws a number at every start, a continued run starts oftener
    )
    whole = _whole(dataset)
    mean = torch.tensor(whole.mean, dtype=torch.float32, device=device)
    table = None if whole.depth_table is None else torch.from_numpy(whole.depth_table).to(device)
    for batch in chain.from_iterable(groups):
        if "error" in batch:
            raise DataError(batch["error"])
        moved = batch_to_device(batch, device)
        moved["image"] = network_images(moved["image"], mean)
        if table is not None:
            moved["depth"] = network_depth(moved["depth"], table)
        if "depth" in moved and whole.depth_has_gaps:
            moved["depth_known"] = moved["depth"] > 0
        yield moved


@cache
def _check_workers(workers: int) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers > cores:
        log.warning("NUM_WORKERS: %d worker processes read on %d cores; fewer may be faster", workers, cores)


def sequential_batches(length: int, batch_size: int) -> list[range]:
    """Every index once, in order, in batches; the last one may be smaller. For several processes: `share` it.

    Whole batches are shared, so that a batch, and with it every bit of a prediction, is what one process makes.
    """
    return [range(at, min(at + batch_size, length)) for at in range(0, length, batch_size)]


class _Groups:
    """Batches in groups of `images` images or one batch, for a worker to read together."""

    def __init__(self, batches: Iterable[Sequence[int]], images: int) -> None:
        self.batches, self.images = batches, images

    def __iter__(self) -> Iterator[list[Sequence[int]]]:
        group: list[Sequence[int]] = []
        for batch in self.batches:
            group.append(batch)
            if len(batch) * (len(group) + 1) > self.images:
                yield group
                group = []
        if group:
            yield group


def _generator() -> torch.Generator:
    """Of the workers' seeds, which differ by worker and by process."""
    generator = torch.Generator()
    return generator.manual_seed(generator.initial_seed() + distributed.rank())


def _whole(dataset: StreetDataset | Subset[Any]) -> StreetDataset:
    """The data set that a Subset is a part of."""
    return _whole(cast(Any, dataset.dataset)) if isinstance(dataset, Subset) else dataset


def batch_to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Tensors on the device, for CUDA without waiting for the copy; names stay as they are."""
    # Elsewhere the source may be freed before the copy has read it (MPS from pageable memory).
    waits = device.type != "cuda"
    return {k: v.to(device, non_blocking=not waits) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}


def infinite_batches(
    dataset: Any, batch_size: int, seed: int, workers: int, device: torch.device, start: int = 0, accumulate: int = 1
) -> Iterator[dict[str, Any]]:
    """This process's batches on `device` without end, `accumulate` for every iteration, from iteration `start` on.

    The workers live as long as the stream.
    """
    parts, first = accumulate * distributed.world_size(), accumulate * distributed.rank()
    sampler = InfiniteBatchSampler(len(dataset), batch_size, seed, start, parts=parts, first=first, count=accumulate)
    return load_batches(dataset, workers, device, sampler)
