"""scripts/compare_rankings.py: its reductions in closed form, its agreement with a ranking, and the command."""

import pytest
import torch

import compare_rankings
from helpers import tiny_data


def test_median_and_class_mean_in_closed_form():
    pixels = torch.tensor([[1.0, 1.0, 1.0, 9.0], [2.0, 2.0, 4.0, 8.0]])
    score_map = torch.stack([pixels, 3 * pixels], dim=1).view(2, 2, 1, 4)  # mean over the two classes: 2 * pixels
    labels = torch.tensor([[[0, 0, 0, 1]], [[1, 1, 1, 1]]])
    assert compare_rankings.median_scores(score_map) == [2.0, 4.0]
    assert compare_rankings.class_mean_scores(score_map, labels) == [(2.0 + 18.0) / 2, 8.0]


def test_a_class_of_a_few_pixels_is_left_out():
    labels = torch.zeros(1, 40, 50, dtype=torch.int64)
    labels[0, 0, 0] = 1  # 1 of 2000
    score_map = torch.ones(1, 2, 40, 50)
    score_map[0, :, 0, 0] = 1000.0
    assert compare_rankings.class_mean_scores(score_map, labels) == [1.0]


def test_agreement_is_1_for_the_errors_themselves_and_negative_for_the_reverse():
    names, errors = ["a", "b", "c", "d"], [0.1, 0.4, 0.2, 0.3]
    assert compare_rankings.agreement(names, errors, errors, 0.5) == pytest.approx([1.0, 15.0, 35.0])
    assert compare_rankings.agreement(names, [-e for e in errors], errors, 0.5) == pytest.approx([-1.0, 35.0, 15.0])
    assert compare_rankings.agreement(names, [1.0] * 4, errors, 0.5)[0] is None


def test_depth_over_its_mean_ignores_the_scale_of_depth():
    torch.manual_seed(0)
    logits, depth = torch.randn(2, 3, 4, 5), torch.rand(2, 1, 4, 5) + 0.1
    score = compare_rankings.SCORES["depth over the image's mean depth"]
    assert score(logits, 7 * depth) == pytest.approx(score(logits, depth))


def test_errors_by_quarter_of_depth_and_shares_of_classes_in_closed_form():
    depth = torch.arange(16.0).view(4, 4)  # rows are the quarters, the farthest first
    wrong = torch.zeros(4, 4, dtype=torch.bool)
    wrong[0, :2] = wrong[1, 0] = True
    known = torch.ones(4, 4, dtype=torch.bool)
    known[1, 1:3] = False
    assert compare_rankings.quarter_errors(wrong, known, depth) == [0.5, 0.5, 0.0, 0.0]
    assert compare_rankings.quarter_errors(wrong.flipud(), known.flipud(), depth) == [0.0, 0.0, 0.5, 0.5]
    logits = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])  # two pixels of equal entropy, one of each class
    entropy, by_depth = compare_rankings.class_sums(logits, torch.tensor([[[[1.0, 3.0]]]])).tolist()
    assert entropy[0] == pytest.approx(entropy[1])
    assert by_depth[1] == pytest.approx(3 * by_depth[0])


def test_table_of_a_trained_network(trained, capsys):
    arguments = tiny_data.command_line(trained, "quick:daf")
    assert compare_rankings.main(arguments) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    firsts = [line.split("|")[1].strip() for line in lines]
    assert firsts[: len(compare_rankings.SCORES) + 1] == ["score", *compare_rankings.SCORES]
    assert firsts[-5:-3] == ["quarter of the depth", "wrong pixels (%)"]
    assert all(sum(map(float, line.split("|")[2:-1])) == pytest.approx(100, abs=1) for line in lines[-2:])
    assert "±" not in lines[1]
    checkpoints = [str(trained / "exp/quick/daf" / name) for name in ("model_3.pth", "model_6.pth")]
    assert compare_rankings.main([*arguments, "--checkpoint", *checkpoints]) == 0
    assert "±" in capsys.readouterr().out


def test_missing_checkpoint_and_network_without_depth_are_one_line(trained, capsys):
    arguments = tiny_data.command_line(trained, "quick:daf")
    assert compare_rankings.main([*arguments, "--checkpoint", "missing.pth"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "missing.pth: no such checkpoint" in line
    assert compare_rankings.main([*arguments, "MODEL.NAME=DeepLabv2", "TRAIN.DA_METHOD=AdvEnt"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "predicts no depth" in line
