"""Logits for evaluation: of one network or several, plainly or averaged over flips and scales."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from advent.errors import NotFinite
from advent.model.precision import AMP_DTYPES, autocast

SHOWN_IMAGES = 5


def outputs(net: nn.Module, images: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor | None]:
    """Main logits (B, C, h, w) and depth (B, 1, h', w'), None without a depth head, both float32; `dtype`: autocast."""
    with autocast(images.device, dtype):
        found = net(images)
    return found[1].float(), found[2].float() if len(found) > 2 else None


def not_finite(names: Sequence[str], *outputs: Tensor | None) -> list[str]:
    """Names of the images for which any of the outputs (B, ...) is infinite or not a number."""
    finite = [torch.isfinite(x).flatten(1).all(1) for x in outputs if x is not None]
    good = torch.stack(finite).all(0).tolist()
    return [name for name, is_good in zip(names, good, strict=True) if not is_good]


def refuse_not_finite(names: Sequence[str], what: str, amp: str = "off", option: str = "TRAIN.AMP=off") -> None:
    """Raises NotFinite naming the images `names` that `what` is not finite for; without names it does nothing."""
    if not names:
        return
    more = f" and {len(names) - SHOWN_IMAGES} more" if len(names) > SHOWN_IMAGES else ""
    remedy = (
        f"repeat it with {option} (now {amp})"
        if amp != "off"
        else "the checkpoint's weights have diverged: take another one, or train again at a lower TRAIN.LEARNING_RATE"
    )
    raise NotFinite(f"{what}: infinite or not a number for {', '.join(names[:SHOWN_IMAGES])}{more}; {remedy}")


class Predictor:
    """The weighted sum of the networks' main logits (ADVENT's ensemble; one network of weight 1 is itself).

    `flip` and `scales` average the logits over mirrored and resized inputs; the paper's numbers use neither. Networks
    are put into eval mode and left in it.
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
        """(B, 3, H, W) images as the network gets them -> (B, C, h, w) float32 logits at the network's stride."""
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
            images = functional.interpolate(images, size=size, mode="bilinear", align_corners=True)
        return _sized(self._sum(images), like)

    def _sum(self, images: Tensor) -> Tensor:
        total: Tensor | None = None
        for net, weight in zip(self.nets, self.weights, strict=True):
            logits, _ = outputs(net, images, self.dtype)
            logits = logits if weight == 1.0 else weight * logits
            total = logits if total is None else total + _sized(logits, total)
        assert total is not None
        return total


def _sized(logits: Tensor, like: Tensor) -> Tensor:
    if logits.shape[2:] == like.shape[2:]:
        return logits
    return functional.interpolate(logits, size=like.shape[2:], mode="bilinear", align_corners=True)
