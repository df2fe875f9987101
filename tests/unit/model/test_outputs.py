"""Forward passes: sizes, precision, eval mode; bilinear resize in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advent.dataset.base_dataset import network_images
from advent.dataset.image_io import IMG_MEAN, network_input
from advent.model.outputs import eval_mode, forward, forward_at_input_size, predict_images, resize_bilinear

CPU = torch.device("cpu")


class TinyNet(nn.Module):
    """Logits at half the size, depth of one pixel; records its mode at every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.modes: list[bool] = []

    def forward(self, images: Tensor) -> tuple[None, Tensor, Tensor]:
        self.modes.append(self.training)
        return None, self.conv(images)[..., ::2, ::2], images.mean((1, 2, 3), keepdim=True)


def test_corners_are_aligned() -> None:
    x = torch.tensor([[[[0.0, 4.0]]]])
    assert resize_bilinear(x, (1, 5)).tolist() == [[[[0.0, 1.0, 2.0, 3.0, 4.0]]]]


def test_a_tensor_of_the_right_size_is_returned_itself() -> None:
    x = torch.rand(1, 2, 3, 5)
    assert resize_bilinear(x, [3, 5]) is x
    assert resize_bilinear(x, torch.Size((3, 5))) is x


def test_outputs_at_their_own_and_at_input_size() -> None:
    net, images = TinyNet(), torch.rand(2, 3, 8, 6)
    own, resized = forward(net, images), forward_at_input_size(net, images)
    assert own.aux is None
    assert (own.main.shape, own.depth.shape) == ((2, 2, 4, 3), (2, 1, 1, 1))  # type: ignore[union-attr]
    assert (resized.main.shape, resized.depth.shape) == ((2, 2, 8, 6), (2, 1, 8, 6))  # type: ignore[union-attr]
    torch.testing.assert_close(resized.main, resize_bilinear(own.main, (8, 6)), rtol=0, atol=0)


def test_reduced_precision_ends_with_the_images_precision() -> None:
    net, images = TinyNet(), torch.rand(1, 3, 8, 6)
    assert forward(net, images, torch.bfloat16).main.dtype == torch.bfloat16
    assert forward_at_input_size(net, images, torch.bfloat16).main.dtype == torch.float32


@pytest.mark.parametrize("training", [True, False])
def test_predictions_run_in_eval_mode_and_restore_the_mode(training: bool) -> None:
    net = TinyNet().train(training)
    (prediction,) = predict_images(net, [torch.rand(1, 3, 8, 6)], CPU)
    assert net.modes == [False]
    assert net.training == net.conv.training == training
    assert prediction.main.shape == (1, 2, 8, 6)
    assert not prediction.main.requires_grad


def test_an_error_restores_the_mode() -> None:
    net = TinyNet().train()
    with pytest.raises(RuntimeError), eval_mode(net):
        raise RuntimeError
    assert net.training


def test_both_preprocessing_functions_give_equal_bits() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (7, 11, 3), np.uint8)
    bgr = torch.from_numpy(rgb[..., ::-1].copy())[None]
    (batch,) = network_images(bgr, torch.tensor(IMG_MEAN, dtype=torch.float32))
    assert torch.equal(batch, torch.from_numpy(network_input(rgb)))
