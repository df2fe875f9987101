"""Depth-ordered mixing, the depth prior and the depth losses, by closed forms."""

import math

import torch

from daf import guidance
from daf.loss import LEAST_INVERSE


def logs(*metres):
    return guidance.log_depth(torch.tensor([65536 / (100 * m + 1) for m in metres])).view(1, 1, -1)


def test_the_logarithm_is_defined_for_any_sign():
    values = guidance.log_depth(torch.tensor([-5.0, 0.0, 100.0, 1e9]))
    expected = [math.log(65536 / 8001)] * 2 + [math.log(100), math.log(65536)]
    torch.testing.assert_close(values, torch.tensor(expected))


def test_only_nearer_pixels_are_pasted():
    mask = torch.ones(1, 1, 4, dtype=torch.bool)
    source, target = logs(5, 10, 20, 40), logs(10, 10, 10, 10)
    assert guidance.ordered(mask, source, target, 0.0).tolist() == [[[True, True, False, False]]]
    assert guidance.ordered(mask, source, target, 1.0).tolist() == [[[True, True, True, False]]]


def test_an_image_of_which_nothing_would_be_left_is_mixed_plainly():
    mask = torch.ones(2, 1, 20, dtype=torch.bool)
    source = logs(*[50] * 20).expand(2, -1, -1).clone()
    source[0, 0, :3] = logs(1)[0, 0, 0]  # 15 % are nearer: enough
    source[1, 0, :1] = logs(1)[0, 0, 0]  # 5 %: too few
    left = guidance.ordered(mask, source, logs(*[10] * 20).expand(2, -1, -1), 0.0)
    assert left.flatten(1).sum(1).tolist() == [3, 20]


def test_depths_are_aligned_on_the_road():
    source, target = logs(4, 8, 30), logs(8, 16, 60)
    road = torch.tensor([[[True, True, False]]])
    torch.testing.assert_close(guidance.align_on_road(source, target, road, road), source, atol=0.01, rtol=0)
    assert torch.equal(guidance.align_on_road(source, target, road, ~road & False), target)


def test_a_constant_far_depth_is_plain_mixing():
    mask = torch.rand(1, 8, 8, generator=torch.manual_seed(0)) > 0.5
    source = torch.rand(1, 8, 8) * 4 + math.log(LEAST_INVERSE)
    constant = torch.full((1, 8, 8), math.log(LEAST_INVERSE))
    assert torch.equal(guidance.ordered(mask, source, constant, 0.0), mask)


def test_the_prior_follows_bayes():
    """Two classes, equally frequent; near pixels are class 1 nine times of ten."""
    label = torch.tensor([[[0] * 1000 + [1] * 9000, [1] * 1000 + [0] * 9000]])
    depth = torch.cat([logs(*[2] * 10000), logs(*[50] * 10000)], 1)
    counts = guidance.class_counts(label, depth, 2)
    assert counts.sum() == 20000
    probabilities = torch.full((1, 2, 1, 2), 0.5)
    near_far = torch.cat([logs(2), logs(50)], 2)
    posterior = guidance.with_prior(probabilities, near_far, counts, 1.0)
    torch.testing.assert_close(posterior[0, 1, 0], torch.tensor([0.9, 0.1]), atol=0.01, rtol=0)
    torch.testing.assert_close(posterior.sum(1), torch.ones(1, 1, 2))
    assert torch.equal(guidance.with_prior(probabilities, near_far, counts, 0.0), probabilities)
    empty = guidance.with_prior(probabilities, near_far, torch.zeros_like(counts), 1.0)
    torch.testing.assert_close(empty, probabilities)


def test_unknown_depth_and_255_are_not_counted():
    label, depth = torch.tensor([[[0, 1, 255]]]), logs(2, 2, 2)
    known = torch.tensor([[[True, False, True]]])
    assert guidance.class_counts(label, depth, 2, known).sum() == 1


def test_depth_loss_of_a_factor():
    depth = torch.full((1, 2, 2), 100.0)
    torch.testing.assert_close(guidance.depth_loss(depth, depth * math.e**2), torch.tensor(1.95))  # |2| - beta / 2
    known = torch.tensor([[[True, False], [False, False]]])
    torch.testing.assert_close(guidance.depth_loss(depth, depth * math.e**2, known), torch.tensor(1.95 / 4))
