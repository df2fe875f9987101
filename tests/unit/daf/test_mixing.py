"""Pseudo-label weights, ClassMix, block masks and the weighted loss, by closed forms."""

import pytest
import torch
from torch.nn import functional

from daf import mixing
from daf.class_thresholds import class_thresholds, probability_counts


def test_weights_of_pseudo_labels_are_of_each_image():
    probability = torch.tensor([[[0.99, 0.5], [0.98, 0.97]], [[0.1, 0.2], [0.3, 0.99]]])
    label = torch.tensor([[[0, 0], [1, 1]], [[2, 2], [2, 1]]])
    share = mixing.pseudo_weight(probability, label, 0.968, "share", 3)
    assert torch.equal(share, torch.tensor([0.75, 0.25])[:, None, None].expand(2, 2, 2))
    confident = mixing.pseudo_weight(probability, label, 0.968, "confidence", 3)
    assert confident.tolist() == [[[1, 0], [1, 1]], [[0, 0], [0, 1]]]
    of_class = mixing.pseudo_weight(probability, label, 0.968, "class", 3)
    assert of_class.tolist() == [[[0.5, 0.5], [1, 1]], [[0, 0], [0, 1]]]


def test_ignored_rows_have_no_weight():
    weight = mixing.ignored_rows(torch.ones(1, 10, 2), 0.1, 0.3)
    assert weight[0, :, 0].tolist() == [0, 1, 1, 1, 1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize(("present", "count"), [([0, 1, 2], 2), ([0, 3], 1), ([2], 1), ([], 0), ([0, 1, 2, 3], 2)])
def test_half_of_the_classes_are_drawn_and_255_is_none(present, count):
    label = torch.full((1, 4, 4), 255, dtype=torch.uint8)
    for row, index in enumerate(present):
        label[0, row] = index
    for seed in range(20):
        draws = mixing.uniform(seed, torch.tensor([7]), "pasted_classes", (4,), torch.device("cpu"))
        chosen = mixing.drawn_classes(label, draws)[0]
        assert int(chosen.sum()) == count
        assert set(torch.nonzero(chosen).flatten().tolist()) <= set(present)


def test_every_class_is_drawn_as_often():
    label = torch.arange(4).repeat(4, 1)[None]
    draws = torch.cat(
        [mixing.uniform(3, torch.tensor([p]), "pasted_classes", (4,), torch.device("cpu")) for p in range(400)]
    )
    share = mixing.drawn_classes(label.expand(400, -1, -1), draws).float().mean(0)
    torch.testing.assert_close(share, torch.full((4,), 0.5), atol=0.08, rtol=0)


def test_the_mask_holds_the_chosen_classes_only():
    label = torch.tensor([[[0, 1], [2, 255]]], dtype=torch.uint8)
    assert mixing.class_mask(label, torch.tensor([[True, False, True]])).tolist() == [[[True, False], [True, False]]]


def test_a_block_is_visible_where_its_draw_exceeds_the_ratio():
    visible = mixing.block_mask(torch.tensor([[[0.9, 0.1], [0.69, 0.71]]]), 0.7, 2, (3, 4))
    assert visible[0, 0].int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]]
    assert mixing.grid_size((3, 4), 2) == (2, 2)


def test_the_loss_is_a_mean_over_all_pixels():
    logits = torch.randn(1, 3, 2, 2, generator=torch.manual_seed(0))
    label = torch.tensor([[[0, 1], [2, 255]]])
    weight = torch.tensor([[[1.0, 0.5], [0.0, 1.0]]])
    each = functional.cross_entropy(logits, label.clamp(max=2), reduction="none")[0]
    expected = (each[0, 0] + 0.5 * each[0, 1]) / 4
    torch.testing.assert_close(mixing.weighted_cross_entropy(logits, label, weight), expected)


def test_random_numbers_belong_to_the_sample():
    both = mixing.uniform(5, torch.tensor([3, 4]), "visible_blocks", (2,), torch.device("cpu"))
    assert torch.equal(both[1], mixing.uniform(5, torch.tensor([4]), "visible_blocks", (2,), torch.device("cpu"))[0])
    assert not torch.equal(both[0], both[1])
    assert not torch.equal(
        both[0], mixing.uniform(5, torch.tensor([3]), "pasted_classes", (2,), torch.device("cpu"))[0]
    )
    assert not torch.equal(
        both[0], mixing.uniform(6, torch.tensor([3]), "visible_blocks", (2,), torch.device("cpu"))[0]
    )


def test_weights_by_class_thresholds():
    """A class that never reaches the threshold of the others keeps its share."""
    torch.manual_seed(0)
    probability, label = torch.rand(2, 40, 50), torch.randint(0, 4, (2, 40, 50))
    probability[label == 1] *= 0.6
    counts = probability_counts(probability, label, 5, 100)
    assert counts.sum() == label.numel()
    assert counts[1, 60:].sum() == 0
    confident = mixing.pseudo_weight(probability, label, class_thresholds(counts, 0.9, 0.5), "confidence", 5)
    for index in range(4):
        assert 0.5 <= confident[label == index].mean() < 0.6
    assert mixing.pseudo_weight(probability, label, 0.9, "confidence", 5)[label == 1].sum() == 0
