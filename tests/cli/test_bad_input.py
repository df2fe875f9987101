"""A user's mistakes: one line that names the thing and the mend, exit code 2, no traceback, nothing left behind."""
# ruff: noqa: E501  (a row of the table is one line, however long)

import shutil

import pipeline
import pytest
import tiny
import torch

import entropy
import test as test_door
import train
import train_intra
import train_isl


def remove(*parts):
    def spoil(root):
        path = root.joinpath(*parts)
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def overwrite(content, *parts):
    def spoil(root):
        path = root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return spoil


def label_id(value):
    def spoil(root):
        import numpy as np

        tiny.write_png(root / "streets/parsed_LABELS/0000000.png", np.full((tiny.HEIGHT, tiny.WIDTH), value, np.uint8))

    return spoil


def checkpoint(content):
    return lambda root: torch.save(content, root / "weights.pth")


def save_resume(root, content):
    folder = root / "exp/quick/daf"
    folder.mkdir(parents=True)
    torch.save(content, folder / "resume.pth")


def nothing(root):
    pass


CASES = {
    "unknown key": (train, "quick/dg", ["TRAIN.LERNING_RATE=1"], nothing, ["TRAIN.LERNING_RATE", "TRAIN.LEARNING_RATE"]),
    "wrong type": (train, "quick/dg", ["TRAIN.MAX_ITERS=soon"], nothing, ["TRAIN.MAX_ITERS", "int"]),
    "not a pair": (train, "quick/dg", ["MAX_ITERS"], nothing, ["MAX_ITERS", "KEY=VALUE"]),
    "unknown method": (train, "quick/dg", ["TRAIN.DA_METHOD=DAFF"], nothing, ["DAFF", "did you mean DAF"]),
    "unknown network": (train, "quick/dg", ["MODEL.NAME=DeepLab"], nothing, ["MODEL.NAME", "DeepLabv2"]),
    "method without depth": (train, "quick/dg", ["MODEL.NAME=DeepLabv2"], nothing, ["DAF", "depth head"]),
    "multi-level DAF": (train, "quick/dg", ["MODEL.MULTI_LEVEL=true"], nothing, ["MULTI_LEVEL", "DAF"]),
    "multi-level DADA": (train, "quick/dg", ["TRAIN.DA_METHOD=DADA", "MODEL.NAME=DeepLabv2_depth_DADA",
                         "MODEL.MULTI_LEVEL=true"], nothing, ["MULTI_LEVEL", "DADA"]),
    "release updates for timm": (train, "quick/dg", ["MODEL.ENCODER=timm:resnet18", "TRAIN.BACKBONE_UPDATES=release"],
                                 nothing, ["BACKBONE_UPDATES", "once"]),
    "config not found": (train, "quick/dgg", [], nothing, ["quick/dgg", "configs", "did you mean"]),
    "config elsewhere": (train, "/no/such/dg.yml", [], nothing, ["/no/such/dg.yml", "no such config"]),
    "early stop too late": (train, "quick/dg", ["TRAIN.EARLY_STOP=41"], nothing, ["EARLY_STOP", "MAX_ITERS"]),
    "no snapshot would be left": (train, "quick/dg", ["TRAIN.SAVE_LAST=false", "TRAIN.SAVE_PRED_EVERY=100"], nothing,
                                  ["SAVE_PRED_EVERY", "SAVE_LAST"]),
    "damaged word that a stage is finished": (pipeline, "quick", [], overwrite(b"{", "exp", "quick", "daf", "finished.json"),
                                              ["finished.json", "damaged"]),
    "folder for results is a file": (train, "quick/dg", ["--exp-root={root}/file"], overwrite(b"", "file"), ["file", "directory"]),
    "odd resume state": (train, "quick/dg", ["--resume", "--exp-suffix="],
                         lambda root: save_resume(root, {"learner": 1}), ["resume.pth", "--overwrite"]),
    "missing source": (train, "quick/dg", [], remove("streets"), ["streets", "--data-root"]),
    "missing target": (train, "quick/dg", [], remove("CamVid"), ["CamVid", "--data-root"]),
    "empty target": (train, "quick/dg", [], remove("CamVid", "train"), ["CamVid"]),
    "missing label": (train, "quick/dg", [], remove("streets", "parsed_LABELS", "0000003.png"), ["0000003.png", "missing"]),
    "missing depth": (train, "quick/dg", [], remove("streets", "Depth"), ["Depth"]),
    "unreadable image": (train, "quick/dg", [], overwrite(b"no picture", "streets", "RGB", "0000001.png"), ["0000001.png"]),
    "label id outside": (train, "quick/dg", [], label_id(77), ["0000000.png", "77"]),
    "source without depth": (train, "quick/dg", ["SOURCE=CamVid", "TRAIN.SET_SOURCE=val"], nothing, ["CamVid", "depth"]),
    "list with a missing file": (train, "quick/dg", ["DATA_LIST_TARGET={root}/list.txt"],
                                 overwrite(b"nowhere.png\n", "list.txt"), ["nowhere.png"]),
    "list that leaves the root": (train, "quick/dg", ["DATA_LIST_TARGET={root}/list.txt"],
                                  overwrite(b"../../x.png\n", "list.txt"), ["x.png"]),
    "empty list": (train, "quick/dg", ["DATA_LIST_TARGET={root}/list.txt"], overwrite(b"\n\n", "list.txt"), ["list.txt"]),
    "unknown data set": (train, "quick/dg", ["TARGET=Cityscape"], nothing, ["Cityscape", "cityscapes"]),
    "class counts disagree": (train, "quick/dg", ["NUM_CLASSES=5"], nothing, ["5"]),
    "missing device": (train, "quick/dg", ["--device=cuda:7"], nothing, ["cuda:7", "--device"]),
    "unknown flag": (train, "quick/dg", ["--fast"], nothing, ["--fast"]),
    "start is no checkpoint": (train, "quick/dg", ["TRAIN.RESTORE_FROM={root}/weights.pth"],
                               overwrite(b"nonsense", "weights.pth"), ["weights.pth"]),
    "start has other classes": (train, "quick/dg", ["TRAIN.RESTORE_FROM={root}/weights.pth"],
                                checkpoint({"layer6.conv2d_list.0.weight": torch.zeros(19, 256, 3, 3)}), ["19", "7"]),
    "start fits nowhere": (train, "quick/dg", ["TRAIN.RESTORE_FROM={root}/weights.pth"],
                           checkpoint({"other.weight": torch.zeros(1)}), ["weights.pth", "none of its 1 tensors"]),
    "isl without stage 0": (train_isl, "quick/isl", [], nothing, ["python train.py --cfg quick/dg"]),
    "ranking without isl": (entropy, "quick/rank", [], nothing, ["python train_isl.py --cfg quick/isl"]),
    "no such iteration": (entropy, "quick/rank", ["--best_iter=5"], nothing, ["model_5.pth", "--best_iter"]),
    "normalize maybe": (entropy, "quick/rank", ["--normalize=maybe"], nothing, ["maybe", "true"]),
    "normalize without rare": (entropy, "quick/rank", ["--normalize=true"], nothing, ["NORMALIZE", "--normalize false"]),
    "lambda1 too large": (entropy, "quick/rank", ["--lambda1=1.5"], nothing, ["LAMBDA1", "1.5"]),
    "lambda1 leaves a half empty": (entropy, "quick/rank", ["--lambda1=0.01", "TRAIN.RESTORE_FROM={root}/weights.pth"],
                                    checkpoint({}), ["LAMBDA1"]),
    "ida without ranking": (train_intra, "quick/intrada", [], nothing, ["python entropy.py --cfg quick/rank"]),
    "ida without adversary": (train_intra, "quick/intrada", ["TRAIN.DA_METHOD=SourceOnly"], nothing, ["SourceOnly"]),
    "nothing to test": (test_door, "quick/dg", [], nothing, ["no snapshot"]),
    "test of a missing file": (test_door, "quick/dg", ["TEST.RESTORE_FROM=nowhere.pth"], nothing, ["nowhere.pth"]),
    "test of another network": (test_door, "quick/dg", ["TEST.RESTORE_FROM={root}/weights.pth"],
                                checkpoint({"a.weight": torch.zeros(1)}), ["weights.pth", "missing", "left over"]),
    "single without a file": (test_door, "quick/dg", ["TEST.MODE=single"], nothing, ["TEST.RESTORE_FROM"]),
    "pipeline of a stage": (pipeline, "quick/dg", [], nothing, ["PIPELINE.STAGES"]),
    "override for no stage": (pipeline, "quick", ["dag:TRAIN.EARLY_STOP=1"], nothing, ["dag", "daf"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case, data, capsys):
    door, cfg, more, spoil, wanted = CASES[case]
    spoil(data)
    arguments = tiny.command_line(data, cfg, *[m.format(root=data) for m in more])
    try:
        code = door.main(arguments)
    except SystemExit as stop:  # argparse's own way out
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2
    last = [line for line in error.splitlines() if "error:" in line]
    assert len(last) == 1, error
    assert "Traceback" not in error
    for word in wanted:
        assert word in last[0]
    if case in ("damaged word that a stage is finished", "odd resume state"):  # what was spoilt lies among the results
        return
    left = [p for p in (data / "exp").rglob("*") if p.is_file()] if (data / "exp").exists() else []
    # A bad picture shows only when it is read: the run has begun then, but leaves no snapshot.
    assert not [p for p in left if p.suffix == ".pth"]
    if case not in ("unreadable image", "label id outside"):
        assert not left
