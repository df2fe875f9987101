"""Predictions of the unlabelled target, of which pseudo labels and rankings are made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from advent.config.schema import Config
from advent.dataset.loader import load_batches, sequential_batches
from advent.evaluation.predictor import Crops, not_finite, refuse_not_finite, sliding_forward
from advent.model.outputs import NetworkOutputs, eval_mode, resize_bilinear
from advent.model.precision import AMP_DTYPES, maybe_compile
from advent.runtime import distributed
from advent.runtime.progress import with_progress

KEPT_BYTES = 2**30  # of outputs that are kept for a second pass, per process
Kept = tuple[Sequence[str], tuple[int, int], NetworkOutputs]  # names, (height, width) of the input, outputs


class Predictions:
    """The network's predictions of this process's share of a data set, in eval mode; may be read several times.

    With `again`, the first reading keeps the outputs in memory, at the network's own stride, if they take at most
    KEPT_BYTES. Later readings then repeat the same bytes without the network. Class-wise thresholds need two passes.
    TRAIN.PREDICT_CROP predicts in sliding crops.
    """

    def __init__(self, net: nn.Module, dataset: Any, config: Config, device: torch.device, *, again: bool) -> None:
        self.net, self.dataset, self.config, self.device = net, dataset, config, device
        self._again = again
        self._kept: list[Kept] | None = None

    @torch.inference_mode()
    def read(self, what: str) -> Iterator[tuple[Sequence[str], NetworkOutputs]]:
        """Yield (names, prediction) per batch; logits and depth at input size, no auxiliary logits.

        `what`: title of the progress line. Raises NotFinite at the first batch with a non-finite output: its labels
        and scores would be arbitrary.
        """
        amp = self.config.TRAIN.precision.format
        for names, size_hw, outputs in self._outputs(what):
            prediction = outputs.each(partial(resize_bilinear, size_hw=size_hw))
            nonfinite = not_finite(names, prediction.main, prediction.depth)
            refuse_not_finite(nonfinite, f"{what}: the network's logits or depth", amp)
            yield names, prediction

    def _outputs(self, what: str) -> Iterator[Kept]:
        if self._kept is not None:
            for names, size_hw, outputs in self._kept:
                yield names, size_hw, outputs.each(lambda x: x.to(self.device))
            return
        kept: list[Kept] | None = [] if self._again else None
        size = 0
        for names, size_hw, outputs in self._computed(what):
            if kept is not None:
                size += sum(x.numel() * x.element_size() for x in (outputs.main, outputs.depth) if x is not None)
                if size <= KEPT_BYTES:
                    kept.append((names, size_hw, outputs.each(torch.Tensor.cpu)))
                else:
                    kept = None
            yield names, size_hw, outputs
        self._kept = kept

    def _computed(self, what: str) -> Iterator[Kept]:
        config, device = self.config, self.device
        amp_dtype = AMP_DTYPES[config.TRAIN.precision.format]
        compiled = maybe_compile(self.net, config.TRAIN, device)
        crops = Crops.of(config.TRAIN.PREDICT_CROP, config.TRAIN.PREDICT_STRIDE)
        order = distributed.shard(sequential_batches(len(self.dataset), config.TEST.BATCH_SIZE_TARGET))
        with eval_mode(self.net):
            batches = load_batches(self.dataset, config.NUM_WORKERS, device, order)
            for batch in with_progress(batches, what, len(order)):
                height, width = batch["image"].shape[-2:]
                outputs = sliding_forward(compiled, batch["image"], amp_dtype, crops)
                yield batch["name"], (height, width), outputs._replace(aux=None)
