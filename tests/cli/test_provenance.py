"""Provenance: every stage records its inputs; a later stage refuses inputs that do not match."""

import hashlib
import json
import shutil

import pytest

import pipeline
import test as test_script
import train
import train_intra
import train_isl
from helpers import tiny_data


@pytest.fixture
def copy(trained, tmp_path):
    """Writable copy of the trained folder without IDA's results."""
    root = shutil.copytree(trained, tmp_path / "copy")
    shutil.rmtree(root / "exp/quick/ida")
    return root


def record(root, stage):
    return json.loads((root / "exp/quick" / stage / "provenance.json").read_text())


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def intra(root, *options):
    return train_intra.main(tiny_data.command_line(root, "quick:ida", *options))


def refused(capsys, *words):
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1
    for word in words:
        assert word in lines[0]


def test_every_stage_records_its_inputs(trained):
    folder = trained / "exp/quick"
    for stage in ("daf", "isl", "rank", "ida"):
        provenance = record(trained, stage)
        assert provenance["seed"] in (1, 1234)
        assert {"version", "sha256"} <= provenance["code"].keys()
        assert {"python", "torch", "numpy"} <= provenance["versions"].keys()
    assert record(trained, "isl")["inputs"]["start"]["sha256"] == sha256(folder / "daf/model_6.pth")
    assert record(trained, "rank")["inputs"]["start"]["sha256"] == sha256(folder / "isl/model_6.pth")
    ida = record(trained, "ida")["inputs"]
    assert ida["easy"]["sha256"] == sha256(folder / "rank/easy_split.txt")
    assert record(trained, "daf")["data"]["source"]["images"] == tiny_data.COUNT
    labels = next((folder / "isl/pseudo_labels").iterdir())
    assert {"weights", "names", "config", "threshold", "code"} <= json.loads(
        (labels / "complete.json").read_text()
    ).keys()


def test_results_record_provenance(copy):
    assert test_script.main(tiny_data.command_line(copy, "quick:daf")) == 0
    results = json.loads((copy / "exp/quick/daf/results.json").read_text())
    assert {"code", "versions", "config", "names", "seed"} <= results.keys()
    assert results["results"][0]["sha256"] == sha256(copy / "exp/quick/daf/model_6.pth")


def test_a_ranking_by_another_network_is_refused(copy, capsys, caplog):
    shutil.rmtree(copy / "exp/quick/isl")
    assert train_isl.main(tiny_data.command_line(copy, "quick:isl", "TRAIN.LEARNING_RATE=0.01")) == 0
    capsys.readouterr()
    assert intra(copy) == 2
    refused(capsys, "rank: was made with", "another network", "entropy.py --cfg quick:rank", "CHECK_PROVENANCE=false")
    assert intra(copy, "STAGE.CHECK_PROVENANCE=false") == 0
    assert "accepted, since STAGE.CHECK_PROVENANCE is false" in caplog.text


def test_a_ranking_of_other_images_is_refused(copy, capsys):
    shutil.copy(copy / "CamVid/train/0001.png", copy / "CamVid/train/0001b.png")
    assert intra(copy) == 2
    refused(capsys, "ranks other images than CamVid now has", "entropy.py")


def test_an_edited_split_is_refused(copy, capsys):
    split = copy / "exp/quick/rank/easy_split.txt"
    split.write_text("".join(split.read_text().splitlines(keepends=True)[:-1]))
    assert intra(copy) == 2
    refused(capsys, "easy_split.txt: was changed")


def test_an_unfinished_ranking_is_refused(copy, capsys):
    (copy / "exp/quick/rank/finished.json").unlink()
    assert intra(copy) == 2
    refused(capsys, "not finished", "python entropy.py --cfg quick:rank")


def test_external_ranking_warns(copy, caplog):
    for file in ("provenance.json", "finished.json", "config.yml"):
        (copy / "exp/quick/rank" / file).unlink()
    assert intra(copy) == 0
    assert "it is unknown which network" in caplog.text


def test_resumed_ida_refuses_another_ranking(copy, capsys):
    assert intra(copy) == 0
    provenance = record(copy, "rank")
    provenance["inputs"]["start"]["sha256"] = "0" * 64
    (copy / "exp/quick/rank/provenance.json").write_text(json.dumps(provenance))
    assert intra(copy, "--resume") == 2
    refused(capsys, "another network")


def test_pipeline_refuses_a_chain_with_mismatched_inputs(copy, capsys):
    arguments = tiny_data.command_line(copy, "quick", "--no-test")
    assert pipeline.main(arguments) == 0
    # Stage 0 is trained again with another seed: later results no longer match it.
    again = tiny_data.command_line(copy, "quick:daf", "--overwrite", "TRAIN.RANDOM_SEED=7")
    assert train.main(again) == 0
    capsys.readouterr()
    assert pipeline.main(tiny_data.command_line(copy, "quick", "--no-test", "daf:TRAIN.RANDOM_SEED=7")) == 2
    refused(capsys, "isl: was made from", "as it was then", "remove", "CHECK_PROVENANCE=false")


def test_status_shows_the_chain(copy, capsys):
    arguments = tiny_data.command_line(copy, "quick", "--status")
    before = sorted(copy.rglob("*"))
    assert pipeline.main(arguments) == 0
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    states = {row[0]: row[1:] for row in rows[2:]}
    assert states["source_only"] == ["not started", "-", "-"]
    assert states["daf"][:1] == ["finished"]
    assert states["daf"][2] == "8 source images, 8 target images"
    assert states["isl"][1] == f"model_6.pth {sha256(copy / 'exp/quick/isl/model_6.pth')[:8]}"
    assert states["rank"][2] == f"model_6.pth {states['isl'][1][-8:]}, 8 target images"
    assert states["ida"][0] == "not started"
    assert sorted(copy.rglob("*")) == before
    (copy / "exp/quick/daf/finished.json").unlink()
    (copy / "CamVid/train/0001.png").unlink()
    assert pipeline.main(arguments) == 0
    table = capsys.readouterr().out
    assert "stopped before iteration 7" in table
    assert "was made with other images than the target now has" in table
