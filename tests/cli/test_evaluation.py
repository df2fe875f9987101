"""Evaluation through the doors: what it leaves, what it remembers, ensembles, predictions for the official tool."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import make_streets
import test as test_door
import test_intra
import tiny
import train
from advent.dataset.base_dataset import StreetDataset
from advent.dataset.classes import load_classes
from advent.dataset.spec import load_spec
from advent.domain_adaptation import eval_UDA
from advent.engine.predictor import Predictor
from advent.engine.results import PredictionFolder, summary
from advent.engine.scoring import full_size, score


@pytest.fixture
def copy(trained, tmp_path):
    """What all stages have left, to be changed."""
    return shutil.copytree(trained, tmp_path / "copy")


def evaluate(root, *more, door=test_door, cfg="quick:daf", stage="daf"):
    assert door.main(tiny.command_line(root, cfg, *more)) == 0
    return json.loads((root / "exp/quick" / stage / "results.json").read_text())["results"]


def test_the_same_table_in_every_form(copy):
    (result,) = evaluate(copy)
    folder = copy / "exp/quick/daf"
    with open(folder / "results.csv") as handle:
        (row,) = csv.DictReader(handle)
    assert float(row["mIoU"]) == result["miou"]
    assert float(row["pixel accuracy"]) == result["pixel_accuracy"]
    assert float(row["sky"]) == result["iou"]["sky"]
    assert row["model"] == "last model_6"
    cells = [cell.strip() for cell in (folder / "results.md").read_text().splitlines()[-1].split("|")]
    assert cells[1:3] == ["last model_6", f"{result['miou']:.1f}"]
    assert cells[-2] == f"{result['pixel_accuracy']:.1f}"
    table = (folder / "results.tex").read_text()
    assert rf"last model\_6 & {result['miou']:.1f} & {result['pixel_accuracy']:.1f}" in table
    assert table.count(r"\\") == 2


def test_scores_are_remembered_by_content_and_settings(copy, monkeypatch):
    first = evaluate(copy)

    def refuse(*_, **__):
        raise AssertionError("scored again")

    monkeypatch.setattr(eval_UDA, "score", refuse)
    assert evaluate(copy) == first
    for more in (["TEST.FLIP=true"], ["TEST.SCALES=[1.0,1.5]"], ["TEST.INPUT_SIZE_TARGET=[96,72]"]):
        with pytest.raises(AssertionError, match="scored again"):
            evaluate(copy, *more)
    other = torch.load(copy / "exp/quick/daf/model_3.pth", weights_only=True)
    torch.save(other, copy / "exp/quick/daf/model_6.pth")
    with pytest.raises(AssertionError, match="scored again"):
        evaluate(copy)


def test_an_ensemble(copy):
    folder = copy / "exp/quick/daf"
    files = [folder / "one.pth", folder / "other.pth"]
    for seed, file in enumerate(files):  # six iterations teach too little to disagree: other classifiers do
        state = torch.load(folder / "model_6.pth", weights_only=True)
        torch.manual_seed(seed)
        torch.save({n: torch.randn_like(t) if n.startswith("layer6") else t for n, t in state.items()}, file)
    single = ["TEST.MODE=single"]
    alone = [evaluate(copy, *single, f"TEST.RESTORE_FROM={file}")[0] for file in files]
    both = f"TEST.ENSEMBLE=[{files[0]},{files[1]}]"
    for weights, like in (([1.0, 0.0], alone[0]), ([0.0, 2.0], alone[1])):
        (result,) = evaluate(copy, *single, both, f"TEST.WEIGHTS={weights}".replace(" ", ""))
        assert result["iou"] == like["iou"]
    (result,) = evaluate(copy, *single, both)
    assert result["snapshot"] == f"{files[0]} + {files[1]}"
    assert result["iou"] not in (alone[0]["iou"], alone[1]["iou"])


def test_flip_and_scales_average_logits():
    class Sum(torch.nn.Module):
        def forward(self, x):
            return None, torch.nn.functional.avg_pool2d(x, 8)

    images = torch.rand(1, 3, 64, 96)
    plain = Predictor([Sum()])(images)
    torch.testing.assert_close(Predictor([Sum()], flip=True)(images), plain)  # the sum of a mirror is the mirrored sum
    ramp = torch.linspace(0, 1, 96).expand(1, 3, 64, 96)
    scaled = Predictor([Sum()], scales=[1.0, 2.0])(ramp)
    torch.testing.assert_close(scaled, Predictor([Sum()])(ramp), atol=0.05, rtol=0)
    assert not torch.equal(scaled, Predictor([Sum()])(ramp))


def test_a_choice_without_labels_stands_beside_oracle_and_last(copy, capsys):
    results = evaluate(copy, "TEST.MODE=best", "TEST.SELECT=entropy")
    assert [r["selected"] for r in results] == ["best (oracle)", "least entropy (no labels)", "snapshot", "last"]
    assert results[1]["entropy"] == min(r["entropy"] for r in results)
    assert all(0 <= r["entropy"] <= 1 for r in results)
    assert "least entropy (no labels)" in capsys.readouterr().out


# The official tool.


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    """Rendered streets in Cityscapes' layout."""
    root = tmp_path_factory.mktemp("city")
    common = ["--size", "160x96", "--workers", "1"]
    assert make_streets.main(["--out", str(root / "streets"), *common, "--count", "2"]) == 0
    real = ["--out", str(root / "Cityscapes"), *common, "--count", "2", "--val-count", "6", "--style", "real"]
    assert make_streets.main(real) == 0
    return root


class HalfRight:
    """Stands for a network: the truth of one image after the other, half of its blocks replaced by any class."""

    def __init__(self, dataset):
        self.dataset, self.index = dataset, 0

    def __call__(self, images):
        label = torch.as_tensor(self.dataset[self.index]["label"]).long()
        generator = torch.Generator().manual_seed(self.index)
        self.index += 1
        count = len(self.dataset.classes)
        blocks = [-(-side // 8) for side in label.shape]
        noise = torch.randint(0, count, blocks, generator=generator)
        wrong = torch.rand(blocks, generator=generator) < 0.5
        noise, wrong = (x.repeat_interleave(8, 0).repeat_interleave(8, 1)[: label.shape[0], : label.shape[1]]
                        for x in (noise, wrong))  # fmt: skip
        ids = torch.where(wrong | (label == 255), noise, label)
        return torch.nn.functional.one_hot(ids, count).permute(2, 0, 1)[None].float()


def our_scores(city, classes, folder):
    """Our scores of a prediction, and its files in the official form."""
    spec = load_spec("streets_real")
    dataset = StreetDataset(spec, city / "Cityscapes", "val", load_classes(classes), size=(96, 64), with_labels=True)
    found = PredictionFolder(folder, dataset)
    hist = score(
        HalfRight(dataset), dataset, torch.device("cpu"),
        keep=lambda name, ids: found.write(name, ids, full_size(dataset, name)),
    )  # fmt: skip
    return summary(hist, dataset.classes)["iou"], spec.ids[classes]


def official_scores(folder, truths):
    """Class name -> IoU as the official tool's own code has it."""
    tool = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    tool.args.quiet, tool.args.JSONOutput, tool.args.evalInstLevelScore = True, False, False
    files = [next((folder / "labelIds").rglob(f"{t.name.split('_gtFine')[0]}*.png")) for t in truths]
    return tool.evaluateImgLists([str(f) for f in files], [str(t) for t in truths], tool.args)["classScores"]


def assert_same(ours, theirs, at_least):
    names = {"light": "traffic light", "sign": "traffic sign"}
    compared = 0
    for name, value in ours.items():
        his = theirs[names.get(name, name)]
        if value is not None and not np.isnan(his):
            assert value == pytest.approx(100 * his, abs=1e-6), name
            compared += value > 0
    assert compared >= at_least


def test_nineteen_classes_equal_the_official_tools(city, tmp_path):
    ours, _ = our_scores(city, "cityscapes19", tmp_path)
    truths = sorted((city / "Cityscapes/gtFine/val").rglob("*_gtFine_labelIds.png"))
    assert_same(ours, official_scores(tmp_path, truths), at_least=12)


def test_sixteen_classes_equal_the_official_tools_where_other_ids_are_void(city, tmp_path):
    """The tool counts what is predicted on truck, train and terrain as wrong; the protocol ignores those pixels."""
    ours, table = our_scores(city, "street16", tmp_path)
    kept = [label_id for ids in table.values() for label_id in ids]
    truths = []
    for truth in sorted((city / "Cityscapes/gtFine/val").rglob("*_gtFine_labelIds.png")):
        ids = np.asarray(Image.open(truth))
        tiny.write_png(tmp_path / "truth" / truth.name, np.where(np.isin(ids, kept), ids, 0).astype(np.uint8))
        truths.append(tmp_path / "truth" / truth.name)
    assert_same(ours, official_scores(tmp_path, truths), at_least=12)


@pytest.fixture(scope="module")
def on_city(city):
    """The command line of stage 0 on rendered Cityscapes, trained a little."""
    line = ["--cfg", "dg", "--data-root", str(city), "--exp-root", str(city / "exp"), *tiny.NETWORK, *tiny.SHORT,
            *tiny.SIZES, "SOURCE=streets", "TARGET=streets_real", "DATA_DIRECTORY_TARGET=Cityscapes"]  # fmt: skip
    assert train.main(line) == 0
    return line


def test_predictions_have_full_size_and_colours(on_city, tmp_path):
    assert test_door.main([*on_city, f"--save-preds={tmp_path}"]) == 0
    ids = sorted((tmp_path / "labelIds").rglob("*_pred_labelIds.png"))
    assert len(ids) == len(list((tmp_path / "color").rglob("*_pred_color.png"))) == 6
    assert Image.open(ids[0]).size == (160, 96)
    of_sixteen = {7, 8, 11, 12, 13, 17, 19, 20, 21, 23, 24, 25, 26, 28, 32, 33}
    assert set(np.unique(np.asarray(Image.open(ids[0])))) <= of_sixteen


def test_prediction_alone_needs_no_labels(copy):
    shutil.rmtree(copy / "CamVid/valannot")
    folder = copy / "predictions"
    line = tiny.command_line(copy, "quick:daf", "--no-labels", f"--save-preds={folder}")
    assert test_door.main(line) == 0
    assert len(list((folder / "labelIds").iterdir())) == tiny.COUNT
    assert not (copy / "exp/quick/daf/results.json").exists()


def test_depth_is_scored_on_disparity(on_city, city, capsys):
    assert test_door.main([*on_city, "--depth"]) == 0
    record = json.loads((city / "exp/ep1/daf/depth.json").read_text())
    assert record["images"] == 6
    assert "d < 1.25^3" in capsys.readouterr().out
    assert record["depth"]["d < 1.25"] <= record["depth"]["d < 1.25^2"] <= record["depth"]["d < 1.25^3"] <= 1
    assert record["depth"]["abs rel"] > 0


def test_ida_door_scores_depth_too(copy, capsys):
    assert test_intra.main(tiny.command_line(copy, "quick:ida", "--depth")) == 2
    assert "no disparity" in capsys.readouterr().err
