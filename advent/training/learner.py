"""Learner: the networks and optimizers under training, and one training iteration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from advent.config.schema import TrainConfig
from advent.methods.steps import Batch, Losses, Method, StepContext, Supervised
from advent.model.activation_checkpointing import recompute_activations
from advent.model.deeplabv2 import SegmentationNetwork
from advent.model.discriminator import get_fc_discriminator
from advent.model.precision import AMP_DTYPES, LossScale, convert_sync_bn, maybe_compile, to_device
from advent.runtime import distributed
from advent.training.data_parallel import accumulated_step
from advent.training.nonfinite import Guard
from advent.training.optim import discriminator_optimizer, network_optimizer
from advent.utils.schedule import poly_rate, set_rate, warmup_factor

LAMBDAS = {
    "seg": "LAMBDA_SEG_MAIN",
    "seg_aux": "LAMBDA_SEG_AUX",
    "depth": "LAMBDA_DEPTH_MAIN",
    "adv": "LAMBDA_ADV_MAIN",
    "adv_aux": "LAMBDA_ADV_AUX",
    "ent": "LAMBDA_ENT_MAIN",
    "ent_aux": "LAMBDA_ENT_AUX",
    "d_r1": "LAMBDA_R1",
}
# Optimizer -> name of its gradient norm in the metrics.
GRADIENTS = {"net": "gradient", "discriminator_main": "gradient_d", "discriminator_aux": "gradient_d_aux"}


class Learner:
    """A network under training by one method.

    `train` is the config's TRAIN section. `supervised` computes the losses on labelled data. The learner has no access
    to data sets or folders: the trainer passes batches in and stores the results.
    """

    def __init__(
        self, net: SegmentationNetwork, method: Method, supervised: Supervised, train: TrainConfig, device: torch.device
    ) -> None:
        self.train_config, self.method, self.device = train, method, device
        discriminators = nn.ModuleDict()
        if method.adversarial:
            for level in ("main", "aux") if net.multi_level else ("main",):
                discriminators[level] = get_fc_discriminator(net.num_classes, spectral=train.SPECTRAL_NORM_D)
        if train.SYNC_BN:
            net = convert_sync_bn(net, device)
        self.net = to_device(net, device).train()
        if train.CHECKPOINT_ACTIVATIONS:
            recompute_activations(net)
        self.scale = LossScale(train.precision.format, device)
        weights = {name: float(getattr(train, key)) for name, key in LAMBDAS.items()}
        self.context = StepContext(
            maybe_compile(net, train, device),
            method,
            supervised,
            discriminators.to(device).train(),
            weights,
            AMP_DTYPES[train.precision.format],
            self.scale,
            # A state's own buffers are made on the CPU.
            method.state(net).to(device) if method.state else None,
        )
        self.optimizers: dict[str, torch.optim.Optimizer] = {"net": network_optimizer(net, train)}
        for level, discriminator in discriminators.items():
            self.optimizers[f"discriminator_{level}"] = discriminator_optimizer(discriminator, train)
        self._guard = Guard(
            [*self._networks, discriminators],
            {GRADIENTS[name]: optimizer for name, optimizer in self.optimizers.items()},
            self.scale,
        )

    def rates(self, iteration: int) -> dict[str, float]:
        """Set and return the learning rates of an iteration: `lr` (backbone), `lr_d` (discriminators, if any).

        Both follow the poly schedule; only `lr` has the warm-up.
        """
        train = self.train_config
        lr = poly_rate(train.LEARNING_RATE, iteration, train.MAX_ITERS, train.POWER)
        lr *= warmup_factor(iteration, train.WARMUP)
        lr_d = poly_rate(train.LEARNING_RATE_D, iteration, train.MAX_ITERS, train.POWER)
        for name, optimizer in self.optimizers.items():
            set_rate(optimizer, lr if name == "net" else lr_d)
        return {"lr": lr, "lr_d": lr_d} if self.context.discriminators else {"lr": lr}

    def update(
        self, iteration: int, source: Batch | Sequence[Batch], target: Batch | Sequence[Batch] | None = None
    ) -> Losses:
        """Run one training iteration; returns named losses and gradient norms as device tensors, without a sync.

        Each domain gives one batch, or several micro-batches that form one (TRAIN.ACCUMULATE). If a loss or gradient
        norm is not finite, the iteration changes no weights, optimizer states or statistics.
        """
        self.rates(iteration)
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        self.context.iteration = iteration
        if self.context.state is not None:
            self.context.state.begin(self.net, iteration)
        self._guard.snapshot_buffers()
        values = self._guard.unscale_and_check(self._step(_listed(source), _listed(target)))
        self._guard.step_if_finite(values)
        return values

    def _step(self, sources: Sequence[Batch], targets: Sequence[Batch]) -> Losses:
        if len(sources) == distributed.world_size() == 1:
            return self.method.step(self.context, sources[0], targets[0] if targets else None)
        return accumulated_step(
            self.context, self._networks, self.optimizers, sources, targets or [None] * len(sources)
        )

    @property
    def scored(self) -> nn.Module:
        """The network that checkpoints hold and evaluations score."""
        return self.net if self.context.state is None else self.context.state.scored(self.net)

    @property
    def _networks(self) -> list[nn.Module]:
        """The modules whose buffers an iteration changes."""
        return [self.net] if self.context.state is None else [self.net, self.context.state]

    def broadcast_weights(self) -> None:
        """Copy rank 0's weights to every process."""
        networks = (*self._networks, self.context.discriminators)
        distributed.broadcast([tensor for network in networks for tensor in network.state_dict().values()])

    def state_dict(self) -> dict[str, Any]:
        """State for an exact resume: networks, discriminators, optimizers and loss scale."""
        return {
            "net": self.net.state_dict(),
            "discriminators": self.context.discriminators.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "scale": self.scale.state_dict(),
            **({"method": self.context.state.state_dict()} if self.context.state is not None else {}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the `state_dict()` of a learner with the same config."""
        self.net.load_state_dict(state["net"])
        self.context.discriminators.load_state_dict(state["discriminators"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.scale.load_state_dict(state.get("scale", {}))
        if self.context.state is not None:
            self.context.state.load_state_dict(state["method"])


def _listed(batches: Batch | Sequence[Batch] | None) -> Sequence[Batch]:
    if batches is None:
        return []
    return [batches] if isinstance(batches, Mapping) else batches
