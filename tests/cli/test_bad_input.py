"""User errors: one line with the cause and the fix, exit code 2, no traceback, no files written."""
# ruff: noqa: E501  (a row of the table is one line, however long)

import json

import numpy as np
import pytest
import torch

import entropy
import make_streets
import pipeline
import reproduce
import show_source
import test as test_script
import test_intra
import train
import train_intra
import train_isl
from helpers import tiny_data
from helpers.corruptions import (
    all_labels,
    both,
    checkpoint,
    cut,
    earlier_results,
    label_id,
    link_to_itself,
    loop_of_links,
    nothing,
    overwrite,
    picture,
    png_that_claims,
    read_only,
    remove,
    save_resume,
    split_files,
    write_16bit,
)

CASES = {
    "unknown key": (train, "quick:daf", ["TRAIN.LERNING_RATE=1"], nothing, ["TRAIN.LERNING_RATE", "TRAIN.LEARNING_RATE"]),
    "wrong type": (train, "quick:daf", ["TRAIN.MAX_ITERS=soon"], nothing, ["TRAIN.MAX_ITERS", "int"]),
    "not a pair": (train, "quick:daf", ["MAX_ITERS"], nothing, ["MAX_ITERS", "KEY=VALUE"]),
    "unknown method": (train, "quick:daf", ["TRAIN.DA_METHOD=DAFF"], nothing, ["DAFF", "did you mean DAF"]),
    "unknown network": (train, "quick:daf", ["MODEL.NAME=DeepLab"], nothing, ["MODEL.NAME", "DeepLabv2"]),
    "method without depth": (train, "quick:daf", ["MODEL.NAME=DeepLabv2"], nothing, ["DAF", "depth head"]),
    "multi-level DAF": (train, "quick:daf", ["MODEL.MULTI_LEVEL=true"], nothing, ["MULTI_LEVEL", "DAF"]),
    "multi-level DADA": (train, "quick:daf", ["TRAIN.DA_METHOD=DADA", "MODEL.NAME=DeepLabv2_depth_DADA",
                         "MODEL.MULTI_LEVEL=true"], nothing, ["MULTI_LEVEL", "DADA"]),
    "release updates for timm": (train, "quick:daf", ["MODEL.ENCODER=timm:resnet18", "TRAIN.BACKBONE_UPDATES=release"],
                                 nothing, ["BACKBONE_UPDATES", "once"]),
    "config not found": (train, "quick/dgg", [], nothing, ["quick/dgg", "configs", "did you mean"]),
    "config elsewhere": (train, "/no/such/dg.yml", [], nothing, ["/no/such/dg.yml", "no such config"]),
    "early stop too late": (train, "quick:daf", ["TRAIN.EARLY_STOP=41"], nothing, ["EARLY_STOP", "MAX_ITERS"]),
    "no snapshot would be saved": (train, "quick:daf", ["TRAIN.SAVE_LAST=false", "TRAIN.SAVE_PRED_EVERY=100"], nothing,
                                  ["SAVE_PRED_EVERY", "SAVE_LAST"]),
    "damaged word that a stage is finished": (pipeline, "quick", [], overwrite(b"{", "exp", "quick", "daf", "finished.json"),
                                              ["finished.json", "damaged"]),
    "folder for results is a file": (train, "quick:daf", ["--exp-root={root}/file"], overwrite(b"", "file"), ["file", "directory"]),
    "odd resume state": (train, "quick:daf", ["--resume", "--exp-suffix="],
                         lambda root: save_resume(root, {"learner": 1}), ["resume.pth", "--overwrite"]),
    "missing source": (train, "quick:daf", [], remove("streets"), ["streets", "--data-root"]),
    "missing target": (train, "quick:daf", [], remove("CamVid"), ["CamVid", "--data-root"]),
    "empty target": (train, "quick:daf", [], remove("CamVid", "train"), ["CamVid"]),
    "missing label": (train, "quick:daf", [], remove("streets", "parsed_LABELS", "0000003.png"), ["0000003.png", "missing"]),
    "missing depth": (train, "quick:daf", [], remove("streets", "Depth"), ["Depth"]),
    "unreadable image": (train, "quick:daf", [], overwrite(b"no picture", "streets", "RGB", "0000001.png"), ["0000001.png"]),
    "label id outside": (train, "quick:daf", [], label_id(77), ["0000000.png", "77"]),
    "source without depth": (train, "quick:daf", ["SOURCE=CamVid", "TRAIN.SET_SOURCE=val"], nothing, ["CamVid", "depth"]),
    "list with a missing file": (train, "quick:daf", ["DATA_LIST_TARGET={root}/list.txt"],
                                 overwrite(b"nowhere.png\n", "list.txt"), ["nowhere.png"]),
    "list that leaves the root": (train, "quick:daf", ["DATA_LIST_TARGET={root}/list.txt"],
                                  overwrite(b"../../x.png\n", "list.txt"), ["x.png"]),
    "empty list": (train, "quick:daf", ["DATA_LIST_TARGET={root}/list.txt"], overwrite(b"\n\n", "list.txt"), ["list.txt"]),
    "unknown data set": (train, "quick:daf", ["TARGET=Cityscape"], nothing, ["Cityscape", "cityscapes"]),
    "class counts disagree": (train, "quick:daf", ["NUM_CLASSES=5"], nothing, ["5"]),
    "missing device": (train, "quick:daf", ["--device=cuda:99"], nothing, ["cuda:99", "--device"]),
    "unknown flag": (train, "quick:daf", ["--fast"], nothing, ["--fast"]),
    "start is no checkpoint": (train, "quick:daf", ["TRAIN.RESTORE_FROM={root}/weights.pth"],
                               overwrite(b"nonsense", "weights.pth"), ["weights.pth"]),
    "start has other classes": (train, "quick:daf", ["TRAIN.RESTORE_FROM={root}/weights.pth"],
                                checkpoint({"layer6.conv2d_list.0.weight": torch.zeros(19, 256, 3, 3)}), ["19", "7"]),
    "start fits nowhere": (train, "quick:daf", ["TRAIN.RESTORE_FROM={root}/weights.pth"],
                           checkpoint({"other.weight": torch.zeros(1)}), ["weights.pth", "none of its 1 tensors"]),
    "isl without stage 0": (train_isl, "quick:isl", [], nothing, ["python train.py --cfg quick:daf"]),
    "ranking without isl": (entropy, "quick:rank", [], nothing, ["python train_isl.py --cfg quick:isl"]),
    "no such iteration": (entropy, "quick:rank", ["--best_iter=5"], nothing, ["model_5.pth", "--best_iter"]),
    "normalize maybe": (entropy, "quick:rank", ["--normalize=maybe"], nothing, ["maybe", "true"]),
    "normalize without rare": (entropy, "quick:rank", ["--normalize=true"], nothing, ["NORMALIZE", "--normalize false"]),
    "lambda1 too large": (entropy, "quick:rank", ["--lambda1=1.5"], nothing, ["LAMBDA1", "1.5"]),
    "class share without threshold": (entropy, "quick:rank", ["RANK.CLASS_SHARE=0.5"], nothing, ["RANK.THRESHOLD"]),
    "lambda1 leaves a half empty": (entropy, "quick:rank", ["--lambda1=0.01", "TRAIN.RESTORE_FROM={root}/weights.pth"],
                                    checkpoint({}), ["LAMBDA1"]),
    "ida without ranking": (train_intra, "quick:ida", [], nothing, ["python entropy.py --cfg quick:rank"]),
    "ida without adversary": (train_intra, "quick:ida", ["TRAIN.DA_METHOD=SourceOnly"], nothing, ["SourceOnly"]),
    "isl with depth of no network": (train_isl, "quick:isl", ["TRAIN.RESTORE_FROM={root}/weights.pth", "MODEL.NAME=DeepLabv2",
                                     "ISL.PSEUDO_DEPTH=true"], checkpoint({}), ["ISL.PSEUDO_DEPTH", "DeepLabv2_depth"]),
    "ranking with depth of no network": (entropy, "quick:rank", ["MODEL.NAME=DeepLabv2", "RANK.MAP=entropy",
                                         "RANK.PSEUDO_DEPTH=true"], nothing, ["RANK.PSEUDO_DEPTH=false"]),
    "nothing to test": (test_script, "quick:daf", [], nothing, ["no snapshot"]),
    "test of a missing file": (test_script, "quick:daf", ["TEST.RESTORE_FROM=nowhere.pth"], nothing, ["nowhere.pth"]),
    "test of another network": (test_script, "quick:daf", ["TEST.RESTORE_FROM={root}/weights.pth"],
                                checkpoint({"a.weight": torch.zeros(1)}), ["weights.pth", "missing", "unexpected"]),
    "single without a file": (test_script, "quick:daf", ["TEST.MODE=single"], nothing, ["TEST.RESTORE_FROM"]),
    "pipeline of a stage": (pipeline, "quick:daf", [], nothing, ["quick:daf", "single stage"]),
    "override for no stage": (pipeline, "quick", ["dag:TRAIN.EARLY_STOP=1"], nothing, ["dag", "daf"]),
    # Flags.
    "resume and overwrite": (train, "quick:daf", ["--resume", "--overwrite"], nothing, ["--overwrite", "--resume"]),
    "best_iter is a word": (entropy, "quick:rank", ["--best_iter=last"], nothing, ["--best_iter", "last"]),
    "suffix is a path": (train, "quick:daf", ["--exp-suffix=../x"], nothing, ["EXP_SUFFIX", "../x", "EXP_ROOT"]),
    "data root is missing": (train, "quick:daf", ["--data-root={root}/nowhere"], nothing, ["nowhere", "--data-root"]),
    "no such device": (train, "quick:daf", ["--device=gpu"], nothing, ["gpu", "--device auto"]),
    # Config.
    "config is no YAML": (train, "{root}/x.yml", [], overwrite(b"a: [1", "x.yml"), ["x.yml", "YAML"]),
    "config is binary": (train, "{root}/x.yml", [], overwrite(b"\xff\x00\x81", "x.yml"), ["x.yml", "UTF-8"]),
    "config is a list": (train, "{root}/x.yml", [], overwrite(b"- a", "x.yml"), ["x.yml", "mapping"]),
    "config with aliases": (train, "{root}/x.yml", [], overwrite(b"SOURCE: &a x\nTARGET: *a", "x.yml"), ["x.yml", "alias"]),
    "config is a folder": (train, "{root}", [], nothing, ["no such config"]),
    "base not found": (train, "{root}/x.yml", [], overwrite(b"BASE: bass.yml", "x.yml"), ["bass.yml", "no such config"]),
    "stage name is a path": (train, "quick:daf", ["STAGE.NAME=../../x"], nothing, ["STAGE.NAME", "folder's name"]),
    "value of deep YAML": (train, "quick:daf", ["TEST.SCALES=" + "[" * 3000], nothing, ["YAML"]),
    "text that is no data set": (train, "quick:daf", ["TARGET=" + "[" * 3000], nothing, ["configs/datasets"]),
    "unknown encoder": (train, "quick:daf", ["MODEL.ENCODER=timm:resnet1888"], nothing, ["resnet1888"]),
    "encoder of no kind": (train, "quick:daf", ["MODEL.ENCODER=vgg16"], nothing, ["vgg16", "timm:NAME"]),
    "encoder weights missing": (train, "quick:daf", ["MODEL.ENCODER=timm:resnet18", "MODEL.ENCODER_WEIGHTS={root}/no.pth"],
                                nothing, ["no.pth"]),
    "unknown class set": (train, "quick:daf", ["CLASSES=street77"], nothing, ["street77", "street7"]),
    "unknown mode": (test_intra, "quick:ida", ["TEST.MODE=beste"], nothing, ["TEST.MODE", "best"]),
    "unknown split": (test_intra, "quick:ida", ["TEST.SET_TARGET=vall"], nothing, ["vall", "val"]),
    "unknown split of the source": (train, "quick:daf", ["TRAIN.SET_SOURCE=trian"], nothing, ["trian"]),
    # Pictures and lists.
    "label in colours": (train, "quick:daf", [], picture("parsed_LABELS/0000002.png", 3, (3,)), ["0000002.png", "one channel"]),
    "depth of 8 bits": (train, "quick:daf", [], picture("Depth/0000002.png", 30), ["0000002.png", "16-bit"]),
    "truncated label": (train, "quick:daf", [], cut("streets", "parsed_LABELS", "0000001.png"), ["0000001.png"]),
    "image bomb": (train, "quick:daf", [], lambda root: png_that_claims(root / "streets/RGB/0000004.png", 90_000, 90_000),
                   ["0000004.png"]),
    "zero-byte image": (train, "quick:daf", [], overwrite(b"", "streets", "RGB", "0000001.png"), ["0000001.png", "image"]),
    "image of 16 bits": (train, "quick:daf", [], lambda root: write_16bit(root / "CamVid/train/0003.png", (48, 64, 3)), ["0003.png", "8 bits"]),
    "gray image of 16 bits": (train, "quick:daf", [], lambda root: write_16bit(root / "CamVid/train/0003.png", (48, 64)), ["0003.png", "8 bits"]),
    "label with id 200": (train, "quick:daf", [], label_id(200), ["0000000.png", "200"]),
    "label of another shape": (train, "quick:daf", [], lambda root: tiny_data.write_png(root / "streets/parsed_LABELS/0000002.png", np.full((30, 90), 3, np.uint8)),
                               ["0000002.png", "90 x 30", "64 x 48"]),
    "depth of zeros": (train, "quick:daf", [], lambda root: write_16bit(root / "streets/Depth/0000002.png", (48, 64), 0), ["0000002.png", "everywhere"]),
    "folder in a loop of links": (train, "quick:daf", [], loop_of_links, ["CamVid", "contains no"]),
    "image is a link to itself": (train, "quick:daf", [], link_to_itself, ["0003.png", "symbolic links"]),
    "labels of no class": (train, "quick:daf", [], all_labels(0), ["no label id maps to a class", "streets"]),
    "bad label to score": (test_script, "quick:daf", ["TEST.RESTORE_FROM={root}/weights.pth"],
                           lambda root: tiny_data.write_png(root / "CamVid/valannot/0002.png", np.full((48, 64), 40, np.uint8)), ["0002.png", "40"]),
    "bad image to rank": (entropy, "quick:rank", ["TRAIN.RESTORE_FROM={root}/weights.pth"], both(checkpoint({}), overwrite(b"x", "CamVid", "train", "0001.png")),
                          ["0001.png"]),
    "list is a picture": (train, "quick:daf", ["DATA_LIST_TARGET={root}/streets/RGB/0000000.png"], nothing, ["0000000.png", "text file"]),
    "list is a folder": (train, "quick:daf", ["DATA_LIST_SOURCE={root}/streets"], nothing, ["streets", "cannot be read"]),
    "no labels to score": (test_script, "quick:daf", [], remove("CamVid", "valannot"), ["valannot"]),
    # Results of earlier stages.
    "results lie there": (train, "quick:daf", [], earlier_results, ["--resume", "--overwrite", "--exp-suffix"]),
    "split leaves the folder": (train_intra, "quick:ida", ["TRAIN.RESTORE_FROM={root}/weights.pth"],
                                split_files("../x.png\n", "0001.png\n"), ["../x.png", "leaves"]),
    "split of other images": (train_intra, "quick:ida", ["TRAIN.RESTORE_FROM={root}/weights.pth"],
                              split_files("nowhere.png\n", "0001.png\n"), ["nowhere.png", "not below"]),
    "split is empty": (train_intra, "quick:ida", ["TRAIN.RESTORE_FROM={root}/weights.pth"],
                       split_files("0000.png\n", "\n"), ["hard_split.txt", "empty"]),
    "split without pseudo labels": (train_intra, "quick:ida", ["TRAIN.RESTORE_FROM={root}/weights.pth"],
                                    split_files("0000.png\n", "0001.png\n"), ["color_masks", "no pseudo label"]),
    "ida without a start": (train_intra, "quick:ida", [], split_files("0000.png\n", "0001.png\n"),
                            ["python train_isl.py --cfg quick:isl"]),
    "resume state of another network": (train, "quick:daf", ["--resume", "--exp-suffix="],
                                        lambda root: save_resume(root, torch.zeros(3)), ["resume.pth", "--overwrite"]),
    "resume state cut off": (train, "quick:daf", ["--resume"], overwrite(b"PK\x03\x04", "exp", "quick", "daf", "resume.pth"),
                             ["resume.pth", "not a readable"]),
    "folder for results is read-only": (train, "quick:daf", [], read_only, ["exp", "ermission"]),
    "folder for a ranking is a file": (entropy, "quick:rank", ["--exp-root={root}/file"], overwrite(b"", "file"), ["file"]),
}  # fmt: skip

STREETS = ["--out", "{root}/out", "--count", "1", "--size", "64x48"]
RECIPE = json.dumps({"seed": 9, "version": make_streets.VERSION}).encode()
TOOLS = {
    "streets: size of one number": (make_streets, [*STREETS, "--size", "64"], nothing, ["--size 64", "WIDTHxHEIGHT"]),
    "streets: size too small": (make_streets, [*STREETS, "--size", "8x8"], nothing, ["--size 8x8", "32"]),
    "streets: negative count": (make_streets, [*STREETS, "--count", "-1"], nothing, ["--count"]),
    "streets: unknown style": (make_streets, [*STREETS, "--style", "dream"], nothing, ["--style", "dream", "real"]),
    "streets: no count": (make_streets, ["--out", "{root}/out", "--size", "64x48"], nothing, ["--count"]),
    "streets: validation in SYNTHIA's layout": (make_streets, [*STREETS, "--val-count", "2"], nothing, ["--val-count", "--layout"]),
    "streets: another recipe lies there": (make_streets, STREETS, overwrite(RECIPE, "out", "streets.json"),
                                           ["streets.json", "seed 9", "--out"]),
    "streets: another version's recipe": (make_streets, STREETS, overwrite(b'{"seed": 9}', "out", "streets.json"),
                                          ["streets.json", "version", "--out"]),
    "streets: damaged recipe": (make_streets, STREETS, overwrite(b"{", "out", "streets.json"), ["streets.json", "JSON"]),
    "streets: out is a file": (make_streets, STREETS, overwrite(b"", "out"), ["out"]),
    "show: no data": (show_source, ["--cfg", "quick", "--out", "{root}/x.png", "--data-root", "{root}/no"], nothing, ["no"]),
    "show: count is a word": (show_source, ["--cfg", "quick", "--out", "{root}/x.png", "--count", "all"], nothing, ["--count"]),
    "show: no file": (show_source, ["--cfg", "quick"], nothing, ["--out"]),
    "show: into a file": (show_source, ["--cfg", "quick", "--data-root", "{root}", "--out", "{root}/file/x.png", *tiny_data.NETWORK],
                          overwrite(b"", "file"), ["file"]),
    "reproduce: no protocol": (reproduce, [], nothing, ["--protocol"]),
    "reproduce: unknown protocol": (reproduce, ["--protocol", "EP4"], nothing, ["EP4", "EP3-low"]),
    "reproduce: seed is a word": (reproduce, ["--protocol", "EP1", "--seeds", "one"], nothing, ["--seeds", "one"]),
    "reproduce: unknown key": (reproduce, ["--protocol", "EP1", "--dry-run", "TRAIN.ITERS=3"], nothing, ["TRAIN.ITERS"]),
    "test: nothing to do": (test_script, ["--cfg", "quick:daf", "--no-labels"], nothing, ["--no-labels", "--save-preds"]),
    "test: depth of photographs": (test_script, ["--cfg", "quick:daf", "--depth"], nothing, ["CamVid", "disparity"]),
    "test: weights without files": (test_script, ["--cfg", "quick:daf", "TEST.WEIGHTS=[1.0]"], nothing, ["TEST.WEIGHTS", "ENSEMBLE"]),
    "test: scale of nothing": (test_script, ["--cfg", "quick:daf", "TEST.SCALES=[0.0]"], nothing, ["TEST.SCALES", "0.1"]),
    "train: no starting weights": (train, ["--cfg", "dg", "--data-root", "{root}", "SOURCE=streets", "TARGET=CamVid",
                                   "NUM_CLASSES=7", "TRAIN.RESTORE_FROM={root}/imagenet.pth", "MODEL.WIDTH=8",
                                   "--exp-root", "{root}/exp"], nothing, ["imagenet.pth", "pretrained/README.md", "torchvision"]),
    "pipeline: unknown flag": (pipeline, ["--cfg", "quick", "--stauts"], nothing, ["--stauts"]),
    "pipeline: picture into a file": (pipeline, ["--cfg", "quick", "--data-root", "{root}", "--exp-root", "{root}/exp",
                                      "--picture", "{root}/file/x.png"], overwrite(b"", "file"), ["file"]),
}  # fmt: skip


@pytest.mark.parametrize("case", TOOLS)
def test_bad_input_of_a_tool(case, data, capsys):
    script, arguments, spoil, words = TOOLS[case]
    spoil(data)
    before = sorted(data.rglob("*"))
    assert_refused(script, [argument.format(root=data) for argument in arguments], capsys, words)
    assert [p for p in sorted(data.rglob("*")) if p.is_file() and p not in before] == []


def assert_refused(script, arguments, capsys, words):
    """Assert exit code 2 and one error line that contains all the words."""
    try:
        code = script.main(arguments)
    except SystemExit as stop:  # raised by argparse
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2
    last = [line for line in error.splitlines() if "error:" in line]
    assert len(last) == 1, error
    assert "Traceback" not in error
    for word in words:
        assert word in last[0]


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case, data, capsys):
    script, cfg, options, spoil, words = CASES[case]
    spoil(data)
    before = {p for p in data.rglob("*") if p.is_file()}
    assert_refused(
        script,
        tiny_data.command_line(data, cfg.format(root=data), *[m.format(root=data) for m in options]),
        capsys,
        words,
    )
    assert not {p for p in data.rglob("*") if p.is_file()} - before


# Files that the sanity check did not sample fail when they are read: the run has started but writes no checkpoint.
LATE = ("unreadable image", "label id outside", "label in colours", "depth of 8 bits", "truncated label", "image bomb",
        "zero-byte image", "image of 16 bits", "label with id 200")  # fmt: skip


@pytest.mark.parametrize("case", LATE)
def test_bad_file_outside_the_sanity_check_sample(case, data, capsys):
    script, cfg, options, spoil, words = CASES[case]
    spoil(data)
    before = {p for p in data.rglob("*") if p.is_file()}
    options = [m.format(root=data) for m in (*options, "DATA_CHECK=0")]
    assert_refused(script, tiny_data.command_line(data, cfg.format(root=data), *options), capsys, words)
    left = {p for p in data.rglob("*") if p.is_file()} - before
    assert not [p for p in left if p.suffix in (".pth", ".tmp", ".lock")]
