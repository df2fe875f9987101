"""Endless, seeded streams of batches that can start at any iteration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, Subset, default_collate

from advent.dataset.base_dataset import network_images
from advent.engine.stopping import ignore_in_worker
from advent.errors import DataError, UserError


class EndlessBatches(Sampler[list[int]]):
    """Batches of indices without end: one seeded permutation per epoch, batches run on across epochs.

    The order depends on (length, batch size, seed) alone, so a run continued at iteration i sees the batches that an
    undisturbed one sees.
    """

    def __init__(self, length: int, batch_size: int, seed: int, start: int = 0) -> None:
        self.length, self.batch_size, self.seed, self.start = length, batch_size, seed, start

    def order(self, epoch: int) -> list[int]:
        """The permutation of one epoch."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        return torch.randperm(self.length, generator=generator).tolist()

    def __iter__(self) -> Iterator[list[int]]:
        position = self.start * self.batch_size
        epoch, order = -1, []
        while True:
            batch = []
            for at in range(position, position + self.batch_size):
                if at // self.length != epoch:
                    epoch = at // self.length
                    order = self.order(epoch)
                batch.append(order[at % self.length])
            position += self.batch_size
            yield batch


class _Guarded(Dataset):
    """Compact items; carries a user's error out of a worker as a value: raised there it would arrive as a page."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        try:
            return _compact(self.dataset, index)
        except UserError as error:
            return error


def _compact(dataset: Any, index: int) -> Any:
    if isinstance(dataset, Subset):
        return _compact(dataset.dataset, dataset.indices[index])
    return dataset.compact(index)


def _collate(items: list[Any]) -> Any:
    for item in items:
        if isinstance(item, UserError):
            return {"error": str(item)}
    if "label" in items[0] and len({item["label"].shape for item in items}) > 1:
        # Labels at native size differ from image to image (Mapillary); a list serves evaluation as well as a tensor.
        labels = [torch.as_tensor(item.pop("label")) for item in items]
        return {**default_collate(items), "label": labels}
    return default_collate(items)


def loader(dataset: Any, workers: int, device: torch.device, **options: Any) -> Iterator[dict[str, Any]]:
    """Batches of a StreetDataset, or a Subset of one, on a device, images as the network gets them.

    A user's error in a worker is raised here, as one line. Images travel as bytes and become float32 on the device;
    the copy is not waited for.
    """
    batches = DataLoader(
        _Guarded(dataset), num_workers=workers, collate_fn=_collate, pin_memory=device.type == "cuda",
        worker_init_fn=ignore_in_worker if workers else None,
        generator=torch.Generator(),  # its own: a loader draws a number at every start, a continued run starts oftener
        **options,
    )  # fmt: skip
    mean = torch.tensor(_mean(dataset), dtype=torch.float32, device=device)
    for batch in batches:
        if "error" in batch:
            raise DataError(batch["error"])
        moved = to_device(batch, device)
        yield moved | {"image": network_images(moved["image"], mean)}


def _mean(dataset: Any) -> Sequence[float]:
    return _mean(dataset.dataset) if isinstance(dataset, Subset) else dataset.mean


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Tensors on the device, without waiting for the copy; names stay as they are."""
    return {k: v.to(device, non_blocking=True) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}


def stream(
    dataset: Any, batch_size: int, seed: int, workers: int, device: torch.device, start: int = 0
) -> Iterator[dict[str, Any]]:
    """Batches on `device` without end, from iteration `start` on; the workers live as long as the stream."""
    sampler = EndlessBatches(len(dataset), batch_size, seed, start)
    return loader(dataset, workers, device, batch_sampler=sampler)
