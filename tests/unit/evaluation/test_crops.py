"""Sliding crops: coverage, equality with whole-image prediction, averages by hand, combination with other options."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from advent.build import build_network
from advent.config.loading import config_digest, load_config
from advent.errors import ConfigError
from advent.evaluation.predictor import Crops, Predictor, sliding_forward
from advent.model.outputs import forward
from helpers import tiny_data


class Pointwise(nn.Module):
    """Logits and depth of a pixel depend on that pixel alone: crops change nothing."""

    def forward(self, images: Tensor) -> tuple[None, Tensor, Tensor]:
        return None, images, images.sum(1, keepdim=True)


class CropMean(nn.Module):
    """Outputs of one value: the mean of the crop."""

    def forward(self, images: Tensor) -> tuple[None, Tensor]:
        return None, images.mean((2, 3), keepdim=True)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return build_network(load_config("quick:daf", tiny_data.NETWORK)).eval()


@given(st.integers(1, 200), st.integers(1, 200), st.data())
def test_crops_cover_the_image_and_never_leave_it(length: int, crop: int, data: Any) -> None:
    stride = data.draw(st.integers(1, crop))
    rows = [rows for rows, _ in Crops((crop, 1), (stride, 1)).areas((length, 1))]
    assert {row.stop - row.start for row in rows} == {min(crop, length)}
    assert (rows[0].start, rows[-1].stop) == (0, length)
    assert all(0 < after.start - before.start <= stride for before, after in pairwise(rows))
    assert len(rows) == 1 + max(0, -(-(length - crop) // stride))  # no crop is superfluous


def test_size_and_step_are_width_and_height() -> None:
    assert Crops.of(None) is None
    assert Crops.of([90, 60]) == Crops((60, 90), (40, 60))
    assert Crops.of([90, 60], [45, 30]) == Crops((60, 90), (30, 45))
    areas = Crops((4, 8), (4, 5)).areas((6, 10))
    assert areas == [(slice(r, r + 4), slice(c, c + 8)) for r in (0, 2) for c in (0, 2)]


@pytest.mark.parametrize("crop_hw", [(64, 96), (100, 96), (64, 200), (500, 500)])
@pytest.mark.parametrize("amp_dtype", [None, torch.bfloat16])
@torch.inference_mode()
def test_one_crop_equals_the_whole_image_bit_for_bit(
    net: nn.Module, crop_hw: tuple[int, int], amp_dtype: torch.dtype | None
) -> None:
    images = 50 * torch.randn(2, 3, 64, 96)
    _, logits, depth = sliding_forward(net, images, amp_dtype, Crops(crop_hw, (32, 32)))
    plain = forward(net, images, amp_dtype)
    assert plain.depth is not None
    assert torch.equal(logits, plain.main.float())
    assert torch.equal(depth, plain.depth.float())


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 20), st.integers(1, 20), st.data())
def test_pointwise_outputs_are_unchanged(height: int, width: int, high: int, wide: int, data: Any) -> None:
    crops = Crops((high, wide), (data.draw(st.integers(1, high)), data.draw(st.integers(1, wide))))
    images = torch.arange(2 * 3 * height * width, dtype=torch.float32).view(2, 3, height, width)
    aux, logits, depth = sliding_forward(Pointwise(), images, None, crops)
    assert aux is None
    torch.testing.assert_close(logits, images)
    torch.testing.assert_close(depth, images.sum(1, keepdim=True))


def test_averages_by_hand() -> None:
    images = torch.tensor([0.0, 3.0, 6.0, 9.0, 12.0]).expand(1, 3, 2, 5)
    outputs = sliding_forward(CropMean(), images, None, Crops((2, 3), (2, 2)))
    # The crops are columns 0..2 (mean 3) and 2..4 (mean 9); column 2 is in both.
    torch.testing.assert_close(outputs.main[0, 0], torch.tensor([3.0, 3.0, 6.0, 9.0, 9.0]).expand(2, 5))
    shifted = sliding_forward(CropMean(), images, None, Crops((2, 4), (2, 3)))
    # The second crop is shifted inward, to columns 1..4.
    torch.testing.assert_close(shifted.main[0, 0], torch.tensor([4.5, 6.0, 6.0, 6.0, 7.5]).expand(2, 5))


@torch.inference_mode()
def test_a_crop_is_predicted_as_an_image_of_its_own(net: nn.Module) -> None:
    images = 50 * torch.randn(2, 3, 64, 96)
    outputs = sliding_forward(net, images, None, Crops((64, 48), (64, 48)))
    for columns in (slice(0, 48), slice(48, 96)):
        own = forward(net, images[..., columns])
        for whole, part in ((outputs.main, own.main), (outputs.depth, own.depth)):
            assert whole is not None
            assert part is not None
            resized = functional.interpolate(part, size=(64, 48), mode="bilinear", align_corners=True)
            assert torch.equal(whole[..., columns], resized)


@torch.inference_mode()
def test_batches_do_not_change_a_prediction(net: nn.Module) -> None:
    images, crops = 50 * torch.randn(2, 3, 64, 96), Crops((48, 48), (32, 32))
    together = sliding_forward(net, images, None, crops).main
    alone = torch.cat([sliding_forward(net, image[None], None, crops).main for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5 * float(alone.abs().max()))


def test_flip_scales_and_ensembles(net: nn.Module) -> None:
    images, crops = 50 * torch.randn(1, 3, 64, 96), Crops((64, 48), (32, 24))

    def predicted(x: Tensor) -> Tensor:
        return sliding_forward(net, x, None, crops).main

    def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
        return functional.interpolate(x, size=size, mode="bilinear", align_corners=True)

    with torch.inference_mode():
        plain, mirrored = predicted(images), predicted(images.flip(3)).flip(3)
        larger = resized(predicted(resized(images, (128, 192))), (64, 96))
        smaller = resized(predicted(resized(images, (32, 48))), (64, 96))  # one crop covers it
    torch.testing.assert_close(Predictor([net], flip=True, crops=crops)(images), (plain + mirrored) / 2)
    three = Predictor([net], scales=[0.5, 1.0, 2.0], crops=crops)(images)
    torch.testing.assert_close(three, (smaller + plain + larger) / 3)
    torch.testing.assert_close(Predictor([net, net], [0.5, 2.0], crops=crops)(images), 2.5 * plain)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["TEST.CROP=[16,64]"], ["TEST.CROP", "too small"]),
        (["TEST.CROP=640"], ["TEST.CROP", "want list", "[512,512]"]),
        (["TEST.STRIDE=[64,64]"], ["TEST.STRIDE", "TEST.CROP"]),
        (["TEST.CROP=[64,64]", "TEST.STRIDE=[64,65]"], ["TEST.STRIDE", "larger"]),
        (["TEST.CROP=[64,64]", "TEST.STRIDE=[0,64]"], ["TEST.STRIDE"]),
        (["TRAIN.PREDICT_STRIDE=[64,64]"], ["TRAIN.PREDICT_STRIDE", "TRAIN.PREDICT_CROP"]),
        (["TRAIN.PREDICT_CROP=[64,64]", "TRAIN.PREDICT_STRIDE=[65,64]"], ["TRAIN.PREDICT_STRIDE", "larger"]),
    ],
)
def test_crops_that_cannot_be_are_refused(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        load_config("ep1:isl", overrides)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words)


def test_crops_of_predictions_belong_to_the_digest_and_those_of_scores_do_not() -> None:
    before = config_digest(load_config("ep1:isl"))
    assert config_digest(load_config("ep1:isl", ["TEST.CROP=[512,512]", "TEST.STRIDE=[256,256]"])) == before
    digests = {
        config_digest(load_config("ep1:isl", overrides))
        for overrides in (
            ["TRAIN.PREDICT_CROP=[512,512]"],
            ["TRAIN.PREDICT_CROP=[512,256]"],
            ["TRAIN.PREDICT_CROP=[512,512]", "TRAIN.PREDICT_STRIDE=[256,256]"],
        )
    }
    assert len(digests | {before}) == 4
