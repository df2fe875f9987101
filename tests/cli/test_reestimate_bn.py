"""scripts/reestimate_bn.py, and its checkpoint in the other stages."""

import json
import shutil

import pytest
import torch

import entropy
import predict
import reestimate_bn
import test as test_script
import train_intra
import train_isl
from advent.build import build_network
from advent.checkpoints.run_dir import RunDir
from advent.config.loading import load_config
from advent.evaluation.batch_norm import TargetStatistics
from advent.model.outputs import predict_images
from helpers import tiny_data
from ida.pipeline.assets import stage_predictions
from ida.pipeline.stage import Stage


@pytest.fixture
def copy(trained, tmp_path):
    """Writable copy of the trained folder."""
    return shutil.copytree(trained, tmp_path / "copy")


@pytest.fixture
def adapted(copy, capsys):
    assert reestimate_bn.main(tiny_data.command_line(copy, "quick:daf")) == 0
    file = copy / "exp/quick/daf/model_6_bn_target.pth"
    assert capsys.readouterr().out == f"checkpoint: {file}\n"
    return file


def evaluate(root, *options):
    assert test_script.main(tiny_data.command_line(root, "quick:daf", *options)) == 0
    return json.loads((root / "exp/quick/daf/results.json").read_text())["results"]


def test_only_statistics_change_and_the_record_says_how(adapted):
    before = torch.load(adapted.with_name("model_6.pth"), weights_only=True)
    after = torch.load(adapted, weights_only=True)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.endswith(("running_mean", "running_var", "num_batches_tracked")) for name in changed)
    record = json.loads(adapted.with_suffix(".json").read_text())
    assert record["inputs"]["start"]["path"].endswith("model_6.pth")
    assert (record["batch_norm"]["split"], record["batch_norm"]["images"]) == ("train", tiny_data.COUNT)
    assert [path.name for _, path in RunDir(adapted.parent).snapshots()] == ["model_3.pth", "model_6.pth"]


def test_scores_of_the_checkpoint_and_of_the_key_are_equal(copy, adapted, capsys):
    (plain,) = evaluate(copy)
    (by_key,) = evaluate(copy, "TEST.BN_STATISTICS=target")
    assert "last model_6, batch norm: target's train images" in capsys.readouterr().out
    assert by_key["batch_norm"]["images"] == tiny_data.COUNT
    (by_file,) = evaluate(copy, "TEST.MODE=single", f"TEST.RESTORE_FROM={adapted}")
    assert by_file["iou"] == by_key["iou"]
    assert by_key["iou"] != plain["iou"]
    assert "batch_norm" not in plain
    assert evaluate(copy) == [plain]  # cached under another key


def test_stages_start_from_the_checkpoint_or_re_estimate_it_themselves(copy, adapted):
    rankings = []
    for option in (f"TRAIN.RESTORE_FROM={adapted}", "TRAIN.RESTORE_BN=target", "TRAIN.RESTORE_BN=checkpoint"):
        assert entropy.main(tiny_data.command_line(copy, "quick:rank", option, "STAGE.AFTER=daf")) == 0
        rankings.append((copy / "exp/quick/rank/ranking.csv").read_text())
    assert rankings[0] == rankings[1] != rankings[2]
    starts = []
    for option in (f"TRAIN.RESTORE_FROM={adapted}", "TRAIN.RESTORE_BN=target"):
        options = [option, "STAGE.AFTER=daf", "TRAIN.EARLY_STOP=1", "TRAIN.SAVE_PRED_EVERY=1", "--overwrite"]
        assert train_isl.main(tiny_data.command_line(copy, "quick:isl", *options)) == 0
        starts.append(torch.load(copy / "exp/quick/isl/model_1.pth", weights_only=True))
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])
    assert entropy.main(tiny_data.command_line(copy, "quick:rank", "TRAIN.RESTORE_BN=target")) == 0
    short = ["TRAIN.RESTORE_BN=target", "TRAIN.EARLY_STOP=1", "TRAIN.SAVE_PRED_EVERY=1", "--overwrite"]
    assert train_intra.main(tiny_data.command_line(copy, "quick:ida", *short)) == 0


def test_predict_reads_the_checkpoint(copy, adapted, tmp_path):
    arguments = ["--checkpoint", str(adapted), "--input", str(copy / "CamVid/val"), "--device", "cpu"]
    assert predict.main([*arguments, "--output", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out/classes").iterdir())) == tiny_data.COUNT


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--checkpoint=none.pth"], "none.pth: no such checkpoint"),
        (["--output=model_7.pth"], "name of a snapshot"),
        (["--output=taken.pth"], "already exists"),
        (["STAGE.NAME=other"], "no snapshot to re-estimate. Run: "),
        (["MODEL.WIDTH=16"], "MODEL.WIDTH"),
        (["TRAIN.SET_TARGET=nowhere"], "nowhere"),
    ],
)
def test_refusals(trained, tmp_path, monkeypatch, capsys, options, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.pth").touch()
    arguments = tiny_data.command_line(trained, "quick:daf", *options)
    assert reestimate_bn.main(arguments) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("scripts/reestimate_bn.py: error: ")
    assert words in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken.pth"]


def test_scored_images_are_refused(trained, capsys):
    options = ["TEST.BN_STATISTICS=target", "TEST.SET_TARGET=train", "--no-labels", "--save-preds=unused"]
    assert test_script.main(tiny_data.command_line(trained, "quick:daf", *options)) == 2
    assert "never estimated on scored images" in capsys.readouterr().err.strip().splitlines()[-1]


def test_figures_show_the_network_that_is_scored(copy, monkeypatch):
    """Scoring stores the target's statistics beside the checkpoint; figures take them from there."""
    places = [f"DATA_ROOT={copy}", f"EXP_ROOT={copy / 'exp'}", "DEVICE=cpu", "TEST.BN_STATISTICS=target"]
    keys = [*places, *tiny_data.NETWORK, *tiny_data.SIZES, *tiny_data.SHORT]
    stage = Stage("daf", "train.py", load_config("quick:daf", keys))
    snapshot = stage.run_dir.snapshots()[-1][1]
    image = torch.randn(1, 3, 48, 64)
    net = build_network(stage.config, snapshot)
    before = predict_images(net, [image], torch.device("cpu"))[0].main
    TargetStatistics.for_scoring(stage.config).reestimate(net, torch.device("cpu"))
    wanted = predict_images(net, [image], torch.device("cpu"))[0].main
    assert not torch.allclose(before, wanted)
    torch.testing.assert_close(stage_predictions(stage, [image])[0].main, wanted)

    def refuse(*_, **__):
        raise AssertionError("estimated again")

    monkeypatch.setattr(TargetStatistics, "reestimate", refuse)
    torch.testing.assert_close(stage_predictions(stage, [image])[0].main, wanted)
    stage.config.TEST.BATCH_SIZE_TARGET = 2  # no statistics depend on it
    torch.testing.assert_close(stage_predictions(stage, [image])[0].main, wanted)
    stage.config.TEST.BN_STATISTICS = "checkpoint"
    torch.testing.assert_close(stage_predictions(stage, [image])[0].main, before)
    stage.config.TEST.BN_STATISTICS, stage.config.TEST.BN_IMAGES = "target", 2
    with pytest.raises(AssertionError, match="estimated again"):
        stage_predictions(stage, [image])
