"""Evaluation through the scripts: result files, cached scores, ensembles, predictions for Cityscapes' official tool."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import entropy
import ida.cli  # noqa: F401  (registers networks)
import make_streets
import pipeline
import predict
import test as test_script
import test_intra
import train
import train_isl
from advent.build import build_network
from advent.config.loading import default_config, load_config
from advent.dataset.base_dataset import StreetDataset
from advent.dataset.classes import load_classes
from advent.dataset.image_io import read_ids
from advent.dataset.spec import load_spec
from advent.domain_adaptation import eval_UDA
from advent.errors import NotFinite
from advent.evaluation import stage as evaluation_stage
from advent.evaluation.evaluate import native_size, score
from advent.evaluation.predictor import Predictor
from advent.evaluation.results import PredictionFolder, summary
from helpers import tiny_data


@pytest.fixture
def copy(trained, tmp_path):
    """Writable copy of the trained folder."""
    return shutil.copytree(trained, tmp_path / "copy")


def evaluate(root, *options, script=test_script, cfg="quick:daf", stage="daf"):
    assert script.main(tiny_data.command_line(root, cfg, *options)) == 0
    return json.loads((root / "exp/quick" / stage / "results.json").read_text())["results"]


def test_result_files_agree(copy):
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
    table = re.sub(" +", " ", (folder / "results.tex").read_text())
    assert rf"last model\_6 & {result['miou']:.1f} & {result['pixel_accuracy']:.1f}" in table
    assert table.count(r"\\") == 2


def test_scores_are_cached_by_content_and_settings(copy, monkeypatch):
    first = evaluate(copy)

    def refuse(*_, **__):
        raise AssertionError("scored again")

    monkeypatch.setattr(evaluation_stage, "score", refuse)
    assert evaluate(copy) == first
    for option in (
        "TEST.FLIP=true",
        "TEST.SCALES=[1.0,1.5]",
        "TEST.INPUT_SIZE_TARGET=[96,72]",
        "MODEL.STRIDE_IN=conv2",
    ):
        with pytest.raises(AssertionError, match="scored again"):
            evaluate(copy, option)
    other = torch.load(copy / "exp/quick/daf/model_3.pth", weights_only=True)
    torch.save(other, copy / "exp/quick/daf/model_6.pth")
    with pytest.raises(AssertionError, match="scored again"):
        evaluate(copy)


def predictions_in(folder):
    return {file.name.replace("_pred_labelIds", ""): file.read_bytes() for file in (folder / "labelIds").iterdir()}


def test_the_best_snapshots_predictions_are_kept_and_new_labels_scored(copy):
    """An earlier checkpoint is made the best: its predictions replace the labels under the same names."""
    first = copy / "exp/quick/daf/model_3.pth"
    evaluate(copy, "TEST.MODE=best")
    evaluate(copy, "TEST.MODE=single", f"TEST.RESTORE_FROM={first}", f"--save-preds={copy / 'first'}")
    expected = predictions_in(copy / "first")
    assert len(expected) == tiny_data.COUNT
    for name, content in expected.items():
        (copy / "CamVid/valannot" / name).write_bytes(content)
    best, *others = evaluate(copy, "TEST.MODE=best", f"--save-preds={copy / 'best'}")
    assert (best["selected"], best["iteration"], best["miou"]) == (evaluation_stage.ORACLE, 3, 100.0)
    assert others[-1]["miou"] < 100
    assert predictions_in(copy / "best") == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--depth", "--save-preds=preds"], "TEST.SAVE_PREDS"),
        (["--depth", "TEST.MODE=best"], "TEST.MODE: best"),
        (["--depth", "TEST.MODE=single", "TEST.ENSEMBLE=[a.pth,b.pth]"], "TEST.ENSEMBLE"),
        (["--depth", "TEST.FLIP=true"], "TEST.FLIP"),
        (["--depth", "--no-labels", "--save-preds=preds"], "--no-labels"),
        (["--no-labels", "--save-preds=preds", "TEST.MODE=best"], "TEST.MODE: best"),
    ],
)
def test_incompatible_options_are_refused(trained, tmp_path, monkeypatch, capsys, options, words):
    monkeypatch.chdir(tmp_path)
    assert test_script.main(tiny_data.command_line(trained, "quick:daf", *options)) == 2
    assert words in capsys.readouterr().err.strip().splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_stages_do_not_share_a_folder_of_predictions(trained, tmp_path, capsys):
    folder = tmp_path / "preds"
    assert pipeline.main(tiny_data.command_line(trained, "quick", f"TEST.SAVE_PREDS={folder}")) == 2
    assert f"ida:TEST.SAVE_PREDS={folder}" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not folder.exists()


@pytest.fixture
def nan_checkpoint(copy):
    """Copy whose last checkpoint of stage 0 predicts NaN for every image."""
    file = copy / "exp/quick/daf/model_6.pth"
    state = torch.load(file, weights_only=True)
    state["layer6.conv2d_list.0.bias"] *= float("nan")
    torch.save(state, file)
    return copy


@pytest.mark.parametrize("select", ["oracle", "entropy"])
def test_nonfinite_checkpoint_is_not_selected(nan_checkpoint, capsys, select):
    """Its argmax would be class 0 everywhere; min and max of a NaN entropy depend on the order."""
    line = tiny_data.command_line(nan_checkpoint, "quick:daf", "TEST.MODE=best", f"TEST.SELECT={select}")
    assert test_script.main(line) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "model_6.pth" in said
    assert "0000.png" in said
    assert not (nan_checkpoint / "exp/quick/daf/results.json").exists()


def test_nonfinite_checkpoint_neither_ranks_nor_labels(nan_checkpoint, capsys):
    shutil.rmtree(nan_checkpoint / "exp/quick/isl")
    start = f"TRAIN.RESTORE_FROM={nan_checkpoint / 'exp/quick/daf/model_6.pth'}"
    for script, cfg in ((entropy, "quick:rank"), (train_isl, "quick:isl")):
        assert script.main(tiny_data.command_line(nan_checkpoint, cfg, start)) == 2
        assert "0000.png" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (nan_checkpoint / "exp/quick/rank/finished.json").exists()
    assert not list((nan_checkpoint / "exp/quick/isl").rglob("complete.json"))


def test_nonfinite_checkpoint_predicts_nothing(nan_checkpoint, tmp_path, capsys):
    line = [
        "--checkpoint",
        str(nan_checkpoint / "exp/quick/daf/model_6.pth"),
        "--input",
        str(nan_checkpoint / "CamVid/val/0003.png"),
    ]
    assert predict.main([*line, "--output", str(tmp_path / "out"), "--device", "cpu"]) == 2
    assert "not a number for 0003" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not list((tmp_path / "out").rglob("*.png"))


def test_evaluation_during_training_skips_nonfinite_networks(nan_checkpoint, caplog):
    config = load_config(
        "quick:daf", [f"DATA_ROOT={nan_checkpoint}", *tiny_data.NETWORK, *tiny_data.SIZES, "TRAIN.EVAL_EVERY=2"]
    )
    net = build_network(config, nan_checkpoint / "exp/quick/daf/model_6.pth")
    hook = evaluation_stage.evaluation_hook(config, net, torch.device("cpu"))
    assert hook(1) == {}
    assert "iteration 1 is not evaluated" in caplog.text


def test_labels_without_any_class_are_refused(copy, capsys):
    for file in (copy / "CamVid/valannot").iterdir():
        tiny_data.write_png(file, np.full((tiny_data.HEIGHT, tiny_data.WIDTH), 11, np.uint8))  # void
    assert test_script.main(tiny_data.command_line(copy, "quick:daf", "DATA_CHECK=0")) == 2
    assert "no labelled pixel of val" in capsys.readouterr().err.strip().splitlines()[-1]


def test_label_ids_above_255_are_written_with_16_bits(copy):
    spec = load_spec("camvid")
    table = {name: (300 + 7 * ids[0],) for name, ids in spec.ids["street7"].items()}
    spec = spec.model_copy(update={"ids": {"street7": table}, "max_label_id": 1000})
    dataset = StreetDataset(spec, copy / "CamVid", "val", load_classes("street7"), size=None)
    classes = np.arange(7, dtype=np.uint8).repeat(8).reshape(7, 8)
    PredictionFolder(copy / "preds", dataset).write("0000.png", classes, (6, 8))
    ids = read_ids(copy / "preds/labelIds/0000_pred_labelIds.png")
    assert ids.tolist() == [[table[name][0]] * 8 for name in dataset.classes.names[:6]]
    assert (dataset.spec.table(dataset.classes)[ids] == classes[:6]).all()


def test_an_ensemble(copy):
    folder = copy / "exp/quick/daf"
    files = [folder / "one.pth", folder / "other.pth"]
    for seed, file in enumerate(files):  # after six iterations the checkpoints agree; random classifiers do not
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
    torch.testing.assert_close(Predictor([Sum()], flip=True)(images), plain)  # the sum is invariant to mirroring
    ramp = torch.linspace(0, 1, 96).expand(1, 3, 64, 96)
    scaled = Predictor([Sum()], scales=[1.0, 2.0])(ramp)
    torch.testing.assert_close(scaled, Predictor([Sum()])(ramp), atol=0.05, rtol=0)
    assert not torch.equal(scaled, Predictor([Sum()])(ramp))


def test_selection_by_entropy_is_listed_with_oracle_and_last(copy, capsys):
    results = evaluate(copy, "TEST.MODE=best", "TEST.SELECT=entropy")
    assert [r["selected"] for r in results] == ["best (oracle)", "least entropy (no labels)", "snapshot", "last"]
    assert results[1]["entropy"] == min(r["entropy"] for r in results)
    assert all(0 <= r["entropy"] <= 1 for r in results)
    assert "least entropy (no labels)" in capsys.readouterr().out


# The official tool.


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    """Root of rendered streets in Cityscapes' layout."""
    root = tmp_path_factory.mktemp("city")
    common = ["--size", "160x96", "--workers", "1"]
    assert make_streets.main(["--out", str(root / "streets"), *common, "--count", "2"]) == 0
    real = ["--out", str(root / "Cityscapes"), *common, "--count", "2", "--val-count", "6", "--style", "real"]
    assert make_streets.main(real) == 0
    return root


class HalfRight:
    """Stand-in for a network: the ground truth image by image, with half of its blocks set to random classes."""

    amp = "off"

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
        noise, wrong = (
            x.repeat_interleave(8, 0).repeat_interleave(8, 1)[: label.shape[0], : label.shape[1]]
            for x in (noise, wrong)
        )
        ids = torch.where(wrong | (label == 255), noise, label)
        return torch.nn.functional.one_hot(ids, count).permute(2, 0, 1)[None].float()


def our_scores(city, classes, folder):
    """Our IoU by class; the predictions are also written in the official format."""
    spec = load_spec("streets_real")
    dataset = StreetDataset(spec, city / "Cityscapes", "val", load_classes(classes), size=(96, 64), with_labels=True)
    predictions = PredictionFolder(folder, dataset)
    hist = score(
        HalfRight(dataset),
        dataset,
        torch.device("cpu"),
        on_prediction=lambda name, ids: predictions.write(name, ids, native_size(dataset, name)),
    )
    return summary(hist, dataset.classes)["iou"], spec.ids[classes]


def official_scores(folder, truths):
    """Class name -> IoU computed by the official tool's code."""
    tool = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    tool.args.quiet, tool.args.JSONOutput, tool.args.evalInstLevelScore = True, False, False
    files = [next((folder / "labelIds").rglob(f"{t.name.split('_gtFine')[0]}*.png")) for t in truths]
    return tool.evaluateImgLists([str(f) for f in files], [str(t) for t in truths], tool.args)["classScores"]


def assert_same(ours, theirs, at_least):
    names = {"light": "traffic light", "sign": "traffic sign"}
    compared = 0
    for name, value in ours.items():
        expected = theirs[names.get(name, name)]
        if value is not None and not np.isnan(expected):
            assert value == pytest.approx(100 * expected, abs=1e-6), name
            compared += value > 0
    assert compared >= at_least


def test_nineteen_classes_equal_the_official_tools(city, tmp_path):
    ours, _ = our_scores(city, "cityscapes19", tmp_path)
    truths = sorted((city / "Cityscapes/gtFine/val").rglob("*_gtFine_labelIds.png"))
    assert_same(ours, official_scores(tmp_path, truths), at_least=12)


def test_sixteen_classes_equal_the_official_tools_where_other_ids_are_void(city, tmp_path):
    """The tool counts predictions on truck, train and terrain as errors; the protocol ignores those pixels."""
    ours, table = our_scores(city, "street16", tmp_path)
    kept = [label_id for ids in table.values() for label_id in ids]
    truths = []
    for truth in sorted((city / "Cityscapes/gtFine/val").rglob("*_gtFine_labelIds.png")):
        ids = np.asarray(Image.open(truth))
        tiny_data.write_png(tmp_path / "truth" / truth.name, np.where(np.isin(ids, kept), ids, 0).astype(np.uint8))
        truths.append(tmp_path / "truth" / truth.name)
    assert_same(ours, official_scores(tmp_path, truths), at_least=12)


@pytest.fixture(scope="module")
def on_city(city):
    """Command line of stage 0 on rendered Cityscapes; the stage has been trained for a few iterations."""
    line = [
        "--cfg",
        "dg",
        "--data-root",
        str(city),
        "--exp-root",
        str(city / "exp"),
        *tiny_data.NETWORK,
        *tiny_data.SHORT,
        *tiny_data.SIZES,
        "SOURCE=streets",
        "TARGET=streets_real",
        "DATA_DIRECTORY_TARGET=Cityscapes",
    ]
    assert train.main(line) == 0
    return line


def test_predictions_have_full_size_and_colours(on_city, tmp_path):
    assert test_script.main([*on_city, f"--save-preds={tmp_path}"]) == 0
    ids = sorted((tmp_path / "labelIds").rglob("*_pred_labelIds.png"))
    assert len(ids) == len(list((tmp_path / "color").rglob("*_pred_color.png"))) == 6
    assert Image.open(ids[0]).size == (160, 96)
    of_sixteen = {7, 8, 11, 12, 13, 17, 19, 20, 21, 23, 24, 25, 26, 28, 32, 33}
    assert set(np.unique(np.asarray(Image.open(ids[0])))) <= of_sixteen


def test_prediction_alone_needs_no_labels(copy):
    shutil.rmtree(copy / "CamVid/valannot")
    folder = copy / "predictions"
    line = tiny_data.command_line(copy, "quick:daf", "--no-labels", f"--save-preds={folder}")
    assert test_script.main(line) == 0
    assert len(list((folder / "labelIds").iterdir())) == tiny_data.COUNT
    assert not (copy / "exp/quick/daf/results.json").exists()


def test_depth_is_scored_on_disparity(on_city, city, capsys):
    assert test_script.main([*on_city, "--depth"]) == 0
    record = json.loads((city / "exp/ep1/daf/depth.json").read_text())
    assert record["images"] == 6
    assert "d < 1.25^3" in capsys.readouterr().out
    assert record["depth"]["d < 1.25"] <= record["depth"]["d < 1.25^2"] <= record["depth"]["d < 1.25^3"] <= 1
    assert record["depth"]["abs rel"] > 0


def test_depth_is_scored_in_crops_and_with_the_targets_statistics(on_city, city):
    def scored(*options):
        assert test_script.main([*on_city, "--depth", *options]) == 0
        return json.loads((city / "exp/ep1/daf/depth.json").read_text())

    plain, covered = scored(), scored("TEST.CROP=[64,48]")
    crops, statistics = scored("TEST.CROP=[40,40]"), scored("TEST.BN_STATISTICS=target", "TEST.BN_IMAGES=2")
    assert plain["depth"] == covered["depth"]
    assert plain["depth"] != crops["depth"]
    assert plain["depth"] != statistics["depth"]
    assert (crops["crop"], statistics["batch_norm"]["images"]) == ([40, 40], 2)
    assert not {"crop", "batch_norm"} & plain.keys()


def test_depth_that_is_not_finite_has_no_score(on_city, city, tmp_path, capsys):
    state = torch.load(max((city / "exp/ep1/daf").glob("model_*.pth")), weights_only=True)
    state["convR2.bias"] *= float("nan")
    torch.save(state, tmp_path / "spoilt.pth")
    (city / "exp/ep1/daf/depth.json").unlink(missing_ok=True)
    line = [*on_city, "--depth", "TEST.MODE=single", f"TEST.RESTORE_FROM={tmp_path / 'spoilt.pth'}"]
    assert test_script.main(line) == 2
    assert "predicted depth: infinite or not a number for" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (city / "exp/ep1/daf/depth.json").exists()


def test_advents_entry_point_refuses_it_too():
    config = default_config()
    net = torch.nn.Module()
    net.register_parameter("weight", torch.nn.Parameter(torch.full((16, 4, 4), float("nan"))))
    net.forward = lambda images: (None, net.weight[None])
    loader = [(torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8), torch.zeros(1, 3), ["munich.png"])]
    with pytest.raises(NotFinite, match=r"munich\.png"):
        eval_UDA.evaluate_domain_adaptation([net], loader, config)


def test_ida_script_scores_depth_too(copy, capsys):
    assert test_intra.main(tiny_data.command_line(copy, "quick:ida", "--depth")) == 2
    assert "no disparity" in capsys.readouterr().err
