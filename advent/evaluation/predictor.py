"""Predictor: logits of one network or an ensemble, optionally averaged over flips and scales."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from advent.errors import NotFinite
from advent.model.outputs import forward, resize_bilinear
from advent.model.precision import AMP_DTYPES

SHOWN_IMAGES = 5


def not_finite(names: Sequence[str], *outputs: Tensor | None) -> list[str]:
    """Names of the images with an inf or NaN in any of the outputs (B, ...)."""
    finite = [torch.isfinite(x).flatten(1).all(1) for x in outputs if x is not None]
    all_finite = torch.stack(finite).all(0).tolist()
    return [name for name, is_finite in zip(names, all_finite, strict=True) if not is_finite]


def refuse_not_finite(names: Sequence[str], what: str, amp: str = "off", option: str = "TRAIN.AMP=off") -> None:
    """Raise NotFinite naming the images `names` for which `what` is not finite; does nothing without names."""
    if not names:
        return
    suffix = f" and {len(names) - SHOWN_IMAGES} more" if len(names) > SHOWN_IMAGES else ""
    fix = (
        f"repeat with {option} (now {amp})"
        if amp != "off"
        else "the checkpoint's weights have diverged: use another one, or train again with a lower TRAIN.LEARNING_RATE"
    )
    raise NotFinite(f"{what}: infinite or not a number for {', '.join(names[:SHOWN_IMAGES])}{suffix}; {fix}")


class Predictor:
    """Weighted sum of the main logits of several networks (ADVENT's ensemble), or the logits of one network.

    `flip` and `scales` average the logits over mirrored and resized inputs; the paper's numbers use neither. Networks
    are set to eval mode and stay in it.
    """

    def __init__(
        self,
        nets: Sequence[nn.Module],
        weights: Sequence[float] = (),
        *,
        amp: str = "off",
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
    ) -> None:
        self.nets = [net.eval() for net in nets]
        self.weights = list(weights) or [1.0] * len(nets)
        self.amp, self.dtype, self.flip, self.scales = amp, AMP_DTYPES[amp], flip, tuple(scales)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised images -> (B, C, h, w) float32 logits at the network's stride."""
        plain = self._sum(images)
        views = [] if self.scales == (1.0,) else [self._at(images, scale, plain) for scale in self.scales]
        if self.flip:
            mirrored = images.flip(3)
            views = views or [plain]
            views += [self._at(mirrored, scale, plain).flip(3) for scale in self.scales]
        return torch.stack(views).mean(0) if views else plain

    def _at(self, images: Tensor, scale: float, like: Tensor) -> Tensor:
        """Logits of the resized images, at the size of `like`."""
        if scale != 1.0:
            size = [max(32, round(scale * side)) for side in images.shape[2:]]
            images = resize_bilinear(images, size)
        return resize_bilinear(self._sum(images), like.shape[2:])

    def _sum(self, images: Tensor) -> Tensor:
        total: Tensor | None = None
        for net, weight in zip(self.nets, self.weights, strict=True):
            logits = forward(net, images, self.dtype).main.float()
            logits = logits if weight == 1.0 else weight * logits
            total = logits if total is None else total + resize_bilinear(logits, total.shape[2:])
        assert total is not None
        return total
