"""Resuming: a resumed run writes the bytes of an uninterrupted one; a refused resume changes nothing."""

import json
import shutil

import pytest
import torch
import yaml

import train
import train_intra
import train_isl
from advent.runtime.device import seed_everything
from advent.training.learner import Learner
from helpers import kill_resume_stress, tiny_data

NETWORKS = {"DAF": "DeepLabv2_depth", "DADA": "DeepLabv2_depth_DADA"}
STAGE_0 = [
    (train, "quick:daf", "daf", [f"TRAIN.DA_METHOD={m}", f"MODEL.NAME={NETWORKS.get(m, 'DeepLabv2')}"])
    for m in ("DAF", "DADA", "AdvEnt", "MinEnt", "SourceOnly")
]
AUGMENTED = ["AUGMENT.FLIP=true", "AUGMENT.SCALE=[0.8,2]", "AUGMENT.CROP=[40,40]"]
RUNS = [
    *STAGE_0,
    (train, "quick:daf", "daf", ["NUM_WORKERS=2"]),
    (train, "quick:daf", "daf", ["TRAIN.EVAL_EVERY=2"]),
    (train, "quick:daf", "daf", ["TRAIN.RARE_CLASS_TEMPERATURE=0.01", *AUGMENTED, "AUGMENT.JITTER=0.2"]),
    (train_isl, "quick:isl", "isl", AUGMENTED),
    (train_isl, "quick:isl", "isl", ["ISL.PSEUDO_DEPTH=true", "ISL.REFRESH_EVERY=4", *AUGMENTED]),
    (
        train,
        "quick:daf",
        "daf",
        ["MODEL.HEAD=fusion", "MODEL.HEAD_WIDTH=[8,16]", "TRAIN.OPTIMIZER=adamw", "TRAIN.WARMUP=5"],
    ),
    (
        train,
        "quick:daf",
        "daf",
        [
            "TRAIN.DA_METHOD=SelfTraining",
            "SELF_TRAINING.TEACHER_STATISTICS=target",
            "SELF_TRAINING.STATISTICS_PASSES=3",
            "SELF_TRAINING.THRESHOLD=0.2",
            "SELF_TRAINING.MASK_RATIO=0.5",
            "SELF_TRAINING.MASK_BLOCK=8",
            "DEPTH.ORDER=true",
            "DEPTH.PRIOR=0.3",
            "DEPTH.TARGET=permuted",
        ],
    ),
    (train_isl, "quick:isl", "isl", ["ISL.REFRESH_EVERY=4"]),
    (train_intra, "quick:ida", "ida", []),
]


@pytest.fixture
def copy(trained, tmp_path):
    """Writable copy of the trained folder."""
    return shutil.copytree(trained, tmp_path / "copy")


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run[2]} {run[3][:1]}")
def test_resumed_run_equals_uninterrupted_run(copy, monkeypatch, run):
    script, cfg, stage, overrides = run
    folder, reference = copy / "exp/quick" / stage, copy / "reference"
    shutil.rmtree(folder)
    arguments = tiny_data.command_line(copy, cfg, "--resume", *kill_resume_stress.LONG, *overrides)
    assert script.main(arguments) == 0
    folder.rename(reference)
    really = Learner.update

    def fail_at(iteration):
        def update(self, now, *batches):
            if now == iteration:
                raise KeyboardInterrupt
            return really(self, now, *batches)

        monkeypatch.setattr(Learner, "update", update)

    for iteration in (2, 8, 11):  # before the first resume state, between two, after the second to last
        fail_at(iteration)
        assert script.main(arguments) == 130
    monkeypatch.setattr(Learner, "update", really)
    assert script.main(arguments) == 0
    assert kill_resume_stress.contents(folder) == kill_resume_stress.contents(reference)


def test_five_kills(copy):
    """Five kills; tests/slow has twenty, `python tests/helpers/kill_resume_stress.py` a hundred."""
    tally = kill_resume_stress.kill_scenarios(copy, {"DAF, 2 workers": 2, "ISL": 2, "IDA": 1}, seed=5, prepared=True)
    assert tally.differing == []
    assert tally.survived == tally.tried == 5


def test_only_our_own_snapshots_are_removed(data):
    folder = data / "exp/quick/daf"
    folder.mkdir(parents=True)
    theirs = [folder / "notes.txt", folder / "model_best.pth"]
    for path in theirs:
        path.write_text("somebody's")
    assert train.main(tiny_data.command_line(data, "quick:daf", "TRAIN.KEEP=1", "TRAIN.SAVE_PRED_EVERY=2")) == 0
    assert sorted(p.name for p in folder.glob("model_*.pth")) == ["model_6.pth", "model_best.pth"]
    assert train.main(tiny_data.command_line(data, "quick:daf", "--overwrite")) == 0
    assert all(path.read_text() == "somebody's" for path in theirs)


def test_a_drawn_seed_is_kept(data):
    arguments = tiny_data.command_line(data, "quick:daf", "--random-train")
    assert train.main(arguments) == 0
    assert train.main([*arguments, "--resume"]) == 0
    config = yaml.safe_load((data / "exp/quick/daf/config.yml").read_text())
    record = json.loads((data / "exp/quick/daf/provenance.json").read_text())
    assert record["seed"] == config["TRAIN"]["RANDOM_SEED"] != 1234
    assert [resumption["iteration"] for resumption in record["continued"]] == [7]


def test_results_without_resume_state_are_not_overwritten(trained, tmp_path, capsys):
    root = shutil.copytree(trained, tmp_path / "copy")
    (root / "exp/quick/daf/resume.pth").unlink()
    assert train.main(tiny_data.command_line(root, "quick:daf", "--resume")) == 2
    assert "no resume.pth to continue from" in capsys.readouterr().err


def test_resume_refuses_other_images(copy, capsys):
    (copy / "CamVid/train/0007.png").rename(copy / "CamVid/train/0009.png")
    assert train.main(tiny_data.command_line(copy, "quick:daf", "--resume")) == 2
    assert "the target's images differ" in capsys.readouterr().err


def test_run_of_an_earlier_version_resumes(copy):
    """A version with fewer keys wrote another digest; its config.yml still loads to the same config."""
    folder = copy / "exp/quick/daf"
    written = yaml.safe_load((folder / "config.yml").read_text())
    del written["TRAIN"]["SKIP_NONFINITE"], written["MODEL"]["STRIDE_IN"]
    (folder / "config.yml").write_text(yaml.safe_dump(written))
    record = json.loads((folder / "provenance.json").read_text())
    (folder / "provenance.json").write_text(json.dumps({**record, "config": "earlier"}))
    state = torch.load(folder / "resume.pth", weights_only=True)
    torch.save({**state, "config": "earlier"}, folder / "resume.pth")
    assert train.main(tiny_data.command_line(copy, "quick:daf", "--resume")) == 0
    torch.save({**state, "config": "earlier"}, folder / "resume.pth")
    assert train.main(tiny_data.command_line(copy, "quick:daf", "--resume", "TRAIN.POWER=0.8")) == 2


@pytest.fixture
def stopped_isl(copy, monkeypatch):
    """(resume arguments, label folder) of an ISL run interrupted in the round that started at iteration 5."""
    shutil.rmtree(copy / "exp/quick/isl")
    arguments = tiny_data.command_line(copy, "quick:isl", *kill_resume_stress.LONG, "ISL.REFRESH_EVERY=4")
    really = Learner.update

    def update(self, now, *batches):
        if now == 8:
            raise KeyboardInterrupt
        return really(self, now, *batches)

    monkeypatch.setattr(Learner, "update", update)
    assert train_isl.main(arguments) == 130
    monkeypatch.undo()
    return [*arguments, "--resume"], copy / "exp/quick/isl/pseudo_labels/round_5"


def test_pseudo_labels_by_another_network_are_refused(stopped_isl, capsys):
    arguments, labels = stopped_isl
    record = json.loads((labels / "complete.json").read_text())
    (labels / "complete.json").write_text(json.dumps({**record, "weights": "0" * 64}))
    assert train_isl.main(arguments) == 2
    assert "round_5: was made by another network than this run's at iteration 5" in capsys.readouterr().err
    assert train_isl.main([*arguments, "STAGE.CHECK_PROVENANCE=false"]) == 0


def test_lost_pseudo_labels_are_rebuilt_with_a_warning(stopped_isl, caplog):
    arguments, labels = stopped_isl
    shutil.rmtree(labels)
    assert train_isl.main(arguments) == 0
    assert "differs from an uninterrupted one" in caplog.text


def test_equal_runs_give_equal_bytes(data):
    for suffix, options in (("one", []), ("two", []), ("three", ["--deterministic"])):
        assert train.main(tiny_data.command_line(data, "quick:daf", f"--exp-suffix={suffix}", *options)) == 0
    assert torch.are_deterministic_algorithms_enabled()
    seed_everything(0)  # resets determinism for the other tests
    assert not torch.are_deterministic_algorithms_enabled()
    first, second, deterministic = (
        kill_resume_stress.contents(data / f"exp/quick_{suffix}/daf") for suffix in ("one", "two", "three")
    )
    for other in (second, deterministic):
        assert {name for name in first if first[name] != other[name]} == {"config.yml"}  # contains the folder's name
