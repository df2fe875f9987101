"""Ranking, split and pseudo labels: closed forms and invariants."""

import random
from pathlib import Path

import pytest
import torch

from advent.dataset.classes import load_classes
from advent.errors import ConfigError, NotFinite
from ida.isl import current_round
from ida.pseudo_labels import label_path, pseudo_label
from ida.ranking import distance_scores, normaliser, random_score, ranking_scores, rare_classes, sort_by_score, split


def test_published_split_sizes():
    names = [(f"{i}.png", float(i)) for i in range(2975)]
    easy, hard = split(names, 0.66)
    assert (len(easy), len(hard)) == (1963, 1012)


def test_split_depends_on_neither_order_nor_ties():
    pairs = [(f"{i:03d}.png", float(i % 3)) for i in range(30)]
    want = split(pairs, 0.5)
    for seed in range(3):
        random.Random(seed).shuffle(pairs)
        assert split(pairs, 0.5) == want
    assert [name for name, _ in sort_by_score(pairs)][:2] == ["000.png", "003.png"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_not_finite_are_refused_by_name(value):
    """`sorted` does not order values around a NaN: 3, NaN, 1 keeps its order."""
    pairs = [("c.png", 3.0), ("spoilt.png", value), ("a.png", 1.0)]
    for take in (sort_by_score, lambda scores: split(scores, 0.5)):
        with pytest.raises(NotFinite, match=r"spoilt\.png") as error:
            take(pairs)
        assert "a.png" not in str(error.value)


def test_error_names_some_of_many_nonfinite_images():
    with pytest.raises(NotFinite, match=r"0\.png, .*4\.png and 7 more"):
        sort_by_score([(f"{index}.png", float("nan")) for index in range(12)])


@pytest.mark.parametrize(("count", "lambda1"), [(1, 0.66), (3, 0.1), (0, 0.5)])
def test_an_empty_half_is_refused(count, lambda1):
    with pytest.raises(ConfigError, match="empty"):
        split([(str(i), 0.0) for i in range(count)], lambda1)


def test_score_of_uniform_logits():
    # Self-information of a uniform prediction is 1 / C per class, so the score is mean(D) / C.
    depth = torch.arange(12.0).reshape(1, 1, 3, 4)
    assert ranking_scores(torch.zeros(1, 8, 3, 4), depth) == pytest.approx([5.5 / 8])


def test_a_random_score_depends_on_name_and_seed_alone():
    names = [f"{index}.png" for index in range(400)]
    scores = [random_score(name, 1) for name in names]
    assert scores == [random_score(name, 1) for name in names] != [random_score(name, 2) for name in names]
    assert len(set(scores)) == 400
    assert all(0 <= score < 1 for score in scores)
    assert 150 < sum(score < 0.5 for score in scores) < 250


def test_normaliser_by_hand():
    prediction = torch.tensor([[3, 4], [0, 1]])
    assert normaliser(prediction, (3, 4, 5, 6)) == (4 - 2) / 4 + 0.5
    assert normaliser(prediction, ()) == 1.0


def test_rare_classes_by_meaning_and_as_released():
    street16 = load_classes("street16")
    assert rare_classes("true", street16) == (3, 4, 5, 6, 7, 11, 13, 14)
    names = [street16.names[i] for i in rare_classes("release", street16) if i < 16]
    assert {"sky", "car", "bicycle"} <= set(names)  # counted by mistake, as in the authors' code
    assert len(rare_classes("true", load_classes("cityscapes19"))) == 11
    assert rare_classes("false", load_classes("street7")) == ()
    with pytest.raises(ConfigError, match="rare"):
        rare_classes("release", load_classes("street7"))


def test_threshold_keeps_exactly_the_confident():
    probs = torch.tensor([[0.95, 0.05], [0.9, 0.1], [0.5, 0.5]], dtype=torch.float64)
    logits = probs.log().T.reshape(1, 2, 1, 3)
    assert pseudo_label(logits, 0.9 - 1e-12).tolist() == [[[0, 0, 255]]]
    assert pseudo_label(logits)[0, 0, 0] == 0


def test_labels_of_jpegs_are_png():
    assert label_path(Path("masks"), "city/a.b.jpg") == Path("masks/city/a.b.png")


@pytest.mark.parametrize(
    ("iteration", "want"),
    [
        (0, (0, 10001)),
        (10000, (0, 10001)),
        (10001, (10001, 20001)),
        (20000, (10001, 20001)),
        (20001, (20001, 30001)),
    ],
)
def test_rounds_start_at_the_published_iterations(iteration, want):
    assert current_round(iteration, 10000) == want


def test_distance_weights_uncertainty_by_relative_distance():
    """Depths 80 m and 20 m: the factors are 8 / 5 and 2 / 5. A uniform pixel of C classes has information 1 / C."""
    logits = torch.tensor([[[[0.0, 200.0]], [[0.0, 0.0]]], [[[200.0, 0.0]], [[0.0, 0.0]]]])  # certain right, left
    depth = torch.tensor([65536 / 8001, 4 * 65536 / 8001]).expand(2, 1, 1, 2)
    assert distance_scores(logits, depth) == pytest.approx([1.6 / 4, 0.4 / 4])
    uniform = torch.zeros(1, 2, 1, 2)
    assert distance_scores(uniform, depth[:1]) == pytest.approx([0.5])
    assert distance_scores(logits, 7 * depth) == pytest.approx(distance_scores(logits, depth))  # no scale matters


def test_depth_of_any_sign_gives_distances_of_at_most_80_metres():
    logits = torch.zeros(1, 2, 1, 3)
    wild = torch.tensor([-5.0, 0.0, 65536 / 8001]).view(1, 1, 1, 3)
    assert distance_scores(logits, wild) == pytest.approx([0.5])
