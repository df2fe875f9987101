"""Stages through their command lines on tiny data: files, options, resuming and refusals."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import entropy
import pipeline
import test as test_script
import test_intra
import train
import train_intra
import train_isl
from advent.config.loading import load_config
from helpers import tiny_data
from ida.pipeline.label_quality import ranking_quality
from ida.pipeline.stage import Stage


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_stage_writes_its_files(trained):
    exp = trained / "exp" / "quick"
    for stage, last in (("daf", 6), ("isl", 6), ("ida", 5)):
        folder = exp / stage
        for file in ("config.yml", "metrics.jsonl", "provenance.json", "finished.json", "resume.pth", "model_3.pth"):
            assert (folder / file).is_file(), file
        state = torch.load(folder / f"model_{last}.pth", weights_only=True)
        assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())
        assert [row["iteration"] for row in rows(folder / "metrics.jsonl")] == sorted({1, 3, 5, last})
        assert yaml.safe_load((folder / "config.yml").read_text())["STAGE"]["NAME"] == stage
    assert not list(exp.rglob("*.tmp"))


def test_ranking_orders_and_covers_the_target(trained):
    rank = trained / "exp" / "quick" / "rank"
    with open(rank / "ranking.csv") as handle:
        table = list(csv.DictReader(handle))
    scores = [float(row["score"]) for row in table]
    assert scores == sorted(scores)
    easy, hard = ((rank / f).read_text().split() for f in ("easy_split.txt", "hard_split.txt"))
    assert [row["name"] for row in table] == easy + hard
    assert len(easy) == int(tiny_data.COUNT * 0.66)
    for name in easy + hard:
        label = Image.open(rank / "color_masks" / name)
        assert label.mode == "L"
        assert label.size == (tiny_data.WIDTH, tiny_data.HEIGHT)
        assert (rank / "color_masks" / name.replace(".png", "_color.png")).is_file()


def test_labels_of_the_ranking_may_have_class_thresholds(trained, tmp_path):
    """RANK.THRESHOLD, CLASS_SHARE: each class keeps its most probable pixels; scores and split do not change."""
    root = shutil.copytree(trained, tmp_path / "copy")
    rank = root / "exp/quick/rank"
    plain = {path.name: np.array(Image.open(path)) for path in rank.glob("color_masks/[0-9]*[0-9].png")}
    table = (rank / "ranking.csv").read_text()
    given = ["RANK.THRESHOLD=1.0", "RANK.CLASS_SHARE=0.4"]
    assert entropy.main(tiny_data.command_line(root, "quick:rank", *given)) == 0
    assert (rank / "ranking.csv").read_text() == table
    kept = {name: np.array(Image.open(rank / "color_masks" / name)) for name in plain}
    before, after = (np.stack([masks[name] for name in sorted(masks)]) for masks in (plain, kept))
    assert ((after == before) | (after == 255)).all()
    for index in np.unique(before):
        assert 0.4 <= (after[before == index] == index).mean() < 1
    truth = root / "CamVid/trainannot"
    truth.mkdir(exist_ok=True)
    for name in plain:
        shutil.copy(next((root / "CamVid/valannot").glob("*.png")), truth / name)
    quality = ranking_quality(Stage("rank", "entropy.py", load_config(rank / "config.yml")))  # of the labelled pixels
    assert quality is not None
    assert 0 <= quality["error_easy"] <= 100


@pytest.mark.parametrize("method", ["DAF", "DADA", "AdvEnt", "MinEnt", "SourceOnly"])
def test_stage_0_runs_every_method(data, method):
    network = {"DAF": "DeepLabv2_depth", "DADA": "DeepLabv2_depth_DADA"}.get(method, "DeepLabv2")
    assert (
        train.main(tiny_data.command_line(data, "quick:daf", f"TRAIN.DA_METHOD={method}", f"MODEL.NAME={network}")) == 0
    )
    row = rows(data / "exp/quick/daf/metrics.jsonl")[-1]
    # DAF, DADA and source-only include iteration EARLY_STOP; the others stop before it.
    assert row["iteration"] == (5 if method in ("AdvEnt", "MinEnt") else 6)
    assert ("adv" in row) == (method in ("DAF", "DADA", "AdvEnt"))
    assert ("depth" in row) == (method in ("DAF", "DADA"))
    assert ("ent" in row) == (method == "MinEnt")


@pytest.mark.parametrize("method", ["AdvEnt", "MinEnt"])
def test_multi_level_trains_the_auxiliary_output(data, method):
    arguments = ["MODEL.NAME=DeepLabv2", "MODEL.MULTI_LEVEL=true", f"TRAIN.DA_METHOD={method}"]
    assert train.main(tiny_data.command_line(data, "quick:daf", *arguments)) == 0
    row = rows(data / "exp/quick/daf/metrics.jsonl")[-1]
    assert {"seg_aux", "adv_aux" if method == "AdvEnt" else "ent_aux"} <= set(row)


def test_resume_under_another_config_is_refused(trained, tmp_path, capsys):
    root = tmp_path / "copy"
    shutil.copytree(trained, root)
    assert train.main(tiny_data.command_line(root, "quick:daf", "--resume", "TRAIN.LEARNING_RATE=1e-5")) == 2
    assert "another config" in capsys.readouterr().err


def test_training_never_opens_target_labels(data):
    shutil.rmtree(data / "CamVid" / "valannot")
    for script, cfg in (
        (train, "quick:daf"),
        (train_isl, "quick:isl"),
        (entropy, "quick:rank"),
        (train_intra, "quick:ida"),
    ):
        assert script.main(tiny_data.command_line(data, cfg)) == 0


def test_workers_see_the_same_batches(data):
    assert train.main(tiny_data.command_line(data, "quick:daf")) == 0
    assert train.main(tiny_data.command_line(data, "quick:daf", "--exp-suffix=two", "NUM_WORKERS=2")) == 0
    states = [torch.load(data / f"exp/{n}/daf/model_6.pth", weights_only=True) for n in ("quick", "quick_two")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_best_marks_the_oracle_and_shows_the_last(trained, tmp_path, capsys):
    root = tmp_path / "copy"
    shutil.copytree(trained, root)
    assert test_intra.main(tiny_data.command_line(root, "quick:ida", "TEST.MODE=best")) == 0
    table = capsys.readouterr().out
    assert "best (oracle)" in table
    assert "last model_5" in table
    results = json.loads((root / "exp/quick/ida/results.json").read_text())["results"]
    assert [r["selected"] for r in results] == ["best (oracle)", "snapshot", "last"]


def test_a_named_checkpoint_is_scored(trained, tmp_path, capsys):
    checkpoint = trained / "exp/quick/daf/model_6.pth"
    arguments = tiny_data.command_line(trained, "quick:daf", f"--exp-suffix={tmp_path.name}", "TEST.MODE=single")
    assert test_script.main([*arguments, f"TEST.RESTORE_FROM={checkpoint}"]) == 0
    assert "model_6.pth" in capsys.readouterr().out


def test_batch_size_of_evaluation_does_not_matter(trained, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(trained, root)
    scores = []
    for size in (1, 3):
        assert test_script.main(tiny_data.command_line(root, "quick:daf", f"TEST.BATCH_SIZE_TARGET={size}")) == 0
        scores.append(json.loads((root / "exp/quick/daf/results.json").read_text())["results"][0]["iou"])
    assert scores[0] == scores[1]


def test_pipeline_runs_all_stages_then_skips_them(data, capsys):
    arguments = tiny_data.command_line(data, "quick", "isl:TRAIN.EARLY_STOP=4", f"--picture={data / 'grid.png'}")
    assert pipeline.main(arguments) == 0
    table = capsys.readouterr().out
    for stage in ("source_only", "daf", "isl", "ida"):
        assert f"| {stage}" in table
    assert (data / "exp/quick/isl/model_4.pth").is_file()
    assert Image.open(data / "grid.png").size[0] > 1000
    before = (data / "exp/quick/ida/model_5.pth").stat().st_mtime_ns
    assert pipeline.main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[1:5] == table.splitlines()[1:5]
    assert (data / "exp/quick/ida/model_5.pth").stat().st_mtime_ns == before


def test_ida_runs_the_figure_variant(trained, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(trained, root)
    assert train_intra.main(tiny_data.command_line(root, "quick:ida", "--overwrite", "TRAIN.DA_METHOD=DAF")) == 0
    row = rows(root / "exp/quick/ida/metrics.jsonl")[-1]
    assert "adv" in row
    assert "depth" not in row


def test_evaluation_while_training_on_request(data):
    assert train.main(tiny_data.command_line(data, "quick:daf", "TRAIN.EVAL_EVERY=3")) == 0
    scored = [row["iteration"] for row in rows(data / "exp/quick/daf/metrics.jsonl") if "test_miou" in row]
    assert scored == [2, 5]


def test_restore_from_sets_the_initial_weights(trained, tmp_path):
    start = trained / "exp/quick/daf/model_3.pth"
    line = tiny_data.command_line(trained, "quick:isl", f"--exp-root={tmp_path}", f"TRAIN.RESTORE_FROM={start}")
    assert train_isl.main(line) == 0
    record = json.loads((tmp_path / "quick/isl/provenance.json").read_text())
    assert record["inputs"]["start"]["path"] == str(start)


def test_isl_runs_after_any_method(data):
    """ISL of a network without depth head runs with any TRAIN.DA_METHOD."""
    network = ["MODEL.NAME=DeepLabv2"]
    assert train.main(tiny_data.command_line(data, "quick:daf", *network, "TRAIN.DA_METHOD=SourceOnly")) == 0
    assert train_isl.main(tiny_data.command_line(data, "quick:isl", *network)) == 0
    assert (data / "exp/quick/isl/finished.json").is_file()


def test_stage_0_continues_from_another_stage(trained, tmp_path, capsys):
    """STAGE.AFTER of train.py: the last snapshot's weights, fresh optimizers, recorded; not beside RESTORE_FROM."""
    root = shutil.copytree(trained, tmp_path / "copy")
    after = ["STAGE.NAME=again", "STAGE.AFTER=daf"]
    frozen = ["TRAIN.LEARNING_RATE=0", "TRAIN.EARLY_STOP=1", "TRAIN.SAVE_LAST=true"]
    assert train.main(tiny_data.command_line(root, "quick:daf", *after, *frozen)) == 0
    record = json.loads((root / "exp/quick/again/provenance.json").read_text())
    assert record["inputs"]["start"]["path"].endswith("daf/model_6.pth")
    first, second = (torch.load(root / f"exp/quick/{name}") for name in ("daf/model_6.pth", "again/model_1.pth"))
    assert torch.equal(first["layer6.conv2d_list.0.weight"], second["layer6.conv2d_list.0.weight"])
    assert train.main(tiny_data.command_line(root, "quick:daf", *after, "TRAIN.RESTORE_FROM=x.pth", "--overwrite")) == 2
    assert "both name the weights to start from" in capsys.readouterr().err
