"""Sliding crops through the scripts: scores, ranking, pseudo labels, predictions."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import entropy
import predict
import test as test_script
import train_isl
from daf import load_model
from daf import predict as predict_images
from helpers import tiny_data

CROPS = ["TEST.CROP=[40,36]", "TEST.STRIDE=[24,12]"]  # of an input of 64 x 48
COVERED = ["TEST.CROP=[64,60]"]
FOR_LABELS = ["TRAIN.PREDICT_CROP=[40,36]", "TRAIN.PREDICT_STRIDE=[24,12]"]
ALL_AT_ONCE = ["TRAIN.PREDICT_CROP=[64,60]"]


@pytest.fixture
def copy(trained, tmp_path):
    """Writable copy of the trained folder."""
    return shutil.copytree(trained, tmp_path / "copy")


def evaluate(root, *options):
    assert test_script.main(tiny_data.command_line(root, "quick:daf", *options)) == 0
    return json.loads((root / "exp/quick/daf/results.json").read_text())


def predictions_in(folder):
    return {file.name.split("_pred_")[0]: np.asarray(Image.open(file)) for file in (folder / "labelIds").iterdir()}


def test_scores_and_predictions(copy, tmp_path):
    checkpoint = copy / "exp/quick/daf/model_6.pth"
    state = torch.load(checkpoint, weights_only=True)
    torch.manual_seed(0)  # after six iterations the classifier predicts one class; a random one predicts several
    torch.save({n: torch.randn_like(t) if n.startswith("layer6") else t for n, t in state.items()}, checkpoint)
    plain = evaluate(copy, f"--save-preds={tmp_path / 'plain'}")
    covered = evaluate(copy, f"--save-preds={tmp_path / 'covered'}", *COVERED)
    crops = evaluate(copy, f"--save-preds={tmp_path / 'crops'}", *CROPS)
    assert plain["results"] == covered["results"]
    assert crops["results"][0]["iou"] != plain["results"][0]["iou"]
    assert crops["test"]["CROP"] == [40, 36]
    assert len(json.loads((copy / "exp/quick/daf/scores.json").read_text())) == 3
    predicted = {name: predictions_in(tmp_path / name) for name in ("plain", "covered", "crops")}
    assert all(np.array_equal(image, predicted["covered"][name]) for name, image in predicted["plain"].items())
    assert any(not np.array_equal(image, predicted["crops"][name]) for name, image in predicted["plain"].items())
    # scripts/predict.py gives the class maps of test.py, too.
    arguments = ["--checkpoint", str(checkpoint), "--input", str(copy / "CamVid/val"), "--device", "cpu", "--map"]
    sliding = ["--crop", "40", "36", "--stride", "24", "12"]
    assert predict.main([*arguments, *sliding, "--output", str(tmp_path / "out")]) == 0
    by_id = ids_of_classes(tmp_path / "crops", tmp_path / "out")
    for file in (tmp_path / "out/classes").iterdir():
        assert np.array_equal(by_id[np.asarray(Image.open(file))], predicted["crops"][file.stem])


def ids_of_classes(scored, written):
    """Label id of every train id, by the names in both folders' tables."""

    def table(folder):
        with open(folder / "classes.csv") as handle:
            return {row["name"]: int(row["id"]) for row in csv.DictReader(handle)}

    label_ids, train_ids = table(scored), table(written)
    result = np.zeros(256, np.int64)
    for name, train_id in train_ids.items():
        result[train_id] = label_ids[name]
    return result


def test_the_depth_of_predictions_is_averaged_too(copy):
    checkpoint, photo = copy / "exp/quick/daf/model_6.pth", copy / "CamVid/val/0000.png"
    plain, covered, crops = (
        predict_images(load_model(checkpoint, device="cpu", crop=crop), photo, maps=True)
        for crop in (None, (64, 60), (40, 36))
    )
    assert np.array_equal(plain.depth, covered.depth)
    assert np.array_equal(plain.depth_aware, covered.depth_aware)
    assert not np.array_equal(plain.depth, crops.depth)
    assert np.isfinite(crops.depth).all()
    assert crops.depth.shape == plain.depth.shape


def test_predict_refuses_crops_that_cannot_be(copy, capsys):
    checkpoint = copy / "exp/quick/daf/model_6.pth"
    arguments = ["--checkpoint", str(checkpoint), "--input", str(copy / "CamVid/val"), "--output", str(copy / "out")]
    assert predict.main([*arguments, "--crop", "40", "36", "--stride", "41", "12"]) == 2
    assert "TEST.STRIDE" in capsys.readouterr().err.strip().splitlines()[-1]


def test_rankings_and_pseudo_labels(copy):
    rankings, labels, records = [], [], []
    for options in ([], ALL_AT_ONCE, FOR_LABELS, CROPS):
        assert entropy.main(tiny_data.command_line(copy, "quick:rank", "STAGE.AFTER=daf", *options)) == 0
        rankings.append((copy / "exp/quick/rank/ranking.csv").read_text())
        records.append(json.loads((copy / "exp/quick/rank/provenance.json").read_text())["config"])
        short = ["--overwrite", "ISL.THRESHOLD=0.2", "TRAIN.EARLY_STOP=1", "TRAIN.SAVE_PRED_EVERY=1"]
        assert train_isl.main(tiny_data.command_line(copy, "quick:isl", *short, *options)) == 0
        folder = copy / "exp/quick/isl/pseudo_labels/round_0"
        labels.append({file.name: file.read_bytes() for file in folder.glob("*.png")})
    plain, covered, crops, scoring = rankings
    assert plain == covered == scoring != crops  # TEST.CROP belongs to scores
    assert labels[0] == labels[1] == labels[3] != labels[2]
    assert records[0] == records[3]
    assert len(set(records)) == 3


def test_a_run_resumes_with_its_own_crops_only(copy, capsys):
    command = tiny_data.command_line(copy, "quick:isl", "--resume", "TRAIN.PREDICT_CROP=[40,36]")
    assert train_isl.main(command) == 2
    assert "was written with another config" in capsys.readouterr().err.strip().splitlines()[-1]
