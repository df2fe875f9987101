"""Order of the training samples: infinite, seeded batches, and the random numbers that belong to a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Sampler

# Independent sequences of random numbers. Append only: the numbers depend on the place in this tuple.
STREAMS = ("source", "target", "rare_class", "mixed", "masked", "pasted_classes", "visible_blocks", "other_depth")


@dataclass(frozen=True)
class Draw:
    """A training sample.

    `index`: the image's index in the data set. `position`: the sample's number in its domain's stream, counted from
    the run's first iteration; the same for any number of processes and any ACCUMULATE that give one batch size.
    `wanted`: the train id for which rare class sampling chose the image, or -1.
    """

    index: int
    position: int
    wanted: int = -1


def sample_rng(seed: int, stream: str, position: int) -> np.random.Generator:
    """Random generator of one sample.

    Its numbers depend on TRAIN.RANDOM_SEED, the stream (one of STREAMS) and the position only. Any number of workers or
    processes and a resumed run therefore draw the same.
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, STREAMS.index(stream), position])))


class InfiniteBatchSampler(Sampler[list[Draw]]):
    """Infinite batches of draws: one seeded permutation per epoch; batches may span two epochs.

    The order depends only on (length, batch size, seed), so a run resumed at iteration i gets the same batches as an
    uninterrupted one. An iteration's batch consists of `parts` micro-batches of `batch_size`; the sampler yields
    `count` of them, starting with number `first`: those of one process. All parts together equal the batch of a single
    process. `choose`: position -> draw, instead of the permutations.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        start: int = 0,
        *,
        parts: int = 1,
        first: int = 0,
        count: int = 1,
        choose: Callable[[int], Draw] | None = None,
    ) -> None:
        self.length, self.batch_size, self.seed, self.start = length, batch_size, seed, start
        self.parts, self.first, self.count, self.choose = parts, first, count, choose

    def order(self, epoch: int) -> list[int]:
        """The permutation of one epoch."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        return torch.randperm(self.length, generator=generator).tolist()

    def __iter__(self) -> Iterator[list[Draw]]:
        part = self.start * self.parts + self.first
        choose = self.choose or self._permuted()
        while True:
            for micro_batch in range(part, part + self.count):
                first = micro_batch * self.batch_size
                yield [choose(position) for position in range(first, first + self.batch_size)]
            part += self.parts

    def _permuted(self) -> Callable[[int], Draw]:
        """position -> draw by the epochs' permutations; keeps the permutation of the last epoch asked for."""
        epoch, order = -1, list[int]()

        def choose(position: int) -> Draw:
            nonlocal epoch, order
            if position // self.length != epoch:
                epoch = position // self.length
                order = self.order(epoch)
            return Draw(order[position % self.length], position)

        return choose


class RareClassSampler:
    """Rare class sampling (DAFormer): draw a class, rare ones more often, then an image that shows it.

    `counts`: (images, classes) pixels; `pixels`: of one image. f_c is the share of class c in all labelled pixels, and
    P(c) = softmax((1 - f_c) / temperature) over the classes that occur. The image is drawn uniformly from those in
    which c fills more than `share`; if there are none, from those with any pixel of c.
    """

    def __init__(self, counts: np.ndarray, pixels: int, temperature: float, share: float, seed: int) -> None:
        of_class = counts.sum(0)
        self.seed = seed
        self.classes: Sequence[int] = np.flatnonzero(of_class).tolist()
        logits = (1.0 - of_class[self.classes] / of_class.sum()) / temperature
        weights = np.exp(logits - logits.max())
        self.probabilities = weights / weights.sum()
        self._bounds = np.cumsum(self.probabilities)[:-1]  # the last class takes what rounding leaves
        self._images = [_showing(counts[:, train_id], pixels * share) for train_id in self.classes]

    def __call__(self, position: int) -> Draw:
        """The sample at a position of the stream."""
        for_class, for_image = sample_rng(self.seed, "rare_class", position).random(2)
        drawn = int(np.searchsorted(self._bounds, for_class, side="right"))
        images = self._images[drawn]
        return Draw(int(images[int(for_image * len(images))]), position, self.classes[drawn])


def _showing(counts: np.ndarray, more_than: float) -> np.ndarray:
    """Indices of the images with more than that many pixels, or else with any."""
    enough = np.flatnonzero(counts > more_than)
    return enough if len(enough) else np.flatnonzero(counts)
