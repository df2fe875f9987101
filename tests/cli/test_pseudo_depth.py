"""ISL.PSEUDO_DEPTH and RANK.PSEUDO_DEPTH: depth beside the pseudo labels, and what it keeps of the depth head."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import entropy
import train
import train_intra
import train_isl
from advent.build import build_network, target_data
from advent.config.loading import load_config
from advent.evaluation.batch_norm import restore_statistics
from advent.model.outputs import eval_mode, forward_at_input_size
from daf.dataset.depth import inverse_depth
from helpers import tiny_data

STRONG = [
    "MODEL.HEAD=fusion",
    "MODEL.HEAD_WIDTH=[8,16]",
    "MODEL.DEPTH_OUTPUT=log",
    "TRAIN.DEPTH_LOSS=log_l1",
    "TRAIN.OPTIMIZER=adamw",
    "TRAIN.BACKBONE_UPDATES=once",
    "TRAIN.LEARNING_RATE=0.002",
    "TRAIN.LAMBDA_DEPTH_MAIN=0.3",
    "TRAIN.MAX_ITERS=60",
    "TRAIN.EARLY_STOP=59",
    "TRAIN.SAVE_PRED_EVERY=1000",
    "TRAIN.SAVE_LAST=true",
    "ISL.REFRESH_EVERY=60",
]
AFTER_SOURCE = [*STRONG, "STAGE.AFTER=daf"]


def losses(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def predicted_logs(root, stage):
    """Log inverse depth of every target image by a stage's network, (N, H, W)."""
    arguments = [*tiny_data.NETWORK, *tiny_data.SIZES, *STRONG, f"DATA_ROOT={root}", f"EXP_ROOT={root / 'exp'}"]
    config = load_config("quick:isl", arguments)
    folder = root / "exp" / "quick" / stage
    device, images = torch.device("cpu"), target_data(config)
    net = build_network(config, next(folder.glob("model_*.pth")))
    restore_statistics(net, config, device)
    with torch.no_grad(), eval_mode(net):
        batch = torch.stack([images[index]["image"] for index in range(len(images))])
        return forward_at_input_size(net, batch, None).depth[:, 0].log()


def true_logs():
    stripes = [tiny_data.picture(index, 1)[1] for index in range(tiny_data.COUNT)]
    return torch.from_numpy(np.log(inverse_depth(np.stack([500 + 900 * stripe for stripe in stripes]))))


@pytest.fixture(scope="module")
def source_trained(tmp_path_factory):
    """Root with a network that has learnt labels and depth of the source, with ISL with and without depth after it."""
    root = tiny_data.make_data(tmp_path_factory.mktemp("depth"))
    assert train.main(tiny_data.command_line(root, "quick:daf", *STRONG, "TRAIN.DA_METHOD=SourceOnly")) == 0
    for stage, keep in (("plain", False), ("isl", True)):
        options = [*AFTER_SOURCE, f"STAGE.NAME={stage}", f"ISL.PSEUDO_DEPTH={keep}"]
        assert train_isl.main(tiny_data.command_line(root, "quick:isl", *options)) == 0
    return root


def test_isl_keeps_the_depth_that_it_trains_on(source_trained):
    """Mean error of log depth on the target, against its true depth, before and after ISL."""
    truth = true_logs()
    before, plain, kept = ((predicted_logs(source_trained, s) - truth).abs().mean() for s in ("daf", "plain", "isl"))
    assert before < 0.6  # the mean of the eight true values everywhere: 0.66
    assert plain > before + 0.1
    assert kept < before + 0.03


def test_stored_depth_is_what_the_labelling_network_predicts(source_trained):
    folder = source_trained / "exp/quick/isl/pseudo_labels/round_0"
    predicted = predicted_logs(source_trained, "daf")
    for index in range(tiny_data.COUNT):
        stored = np.asarray(Image.open(folder / f"{index:04d}_depth.png"))
        assert stored.shape == (tiny_data.HEIGHT, tiny_data.WIDTH)
        centimetres = 65536 / predicted[index].exp().numpy() - 1
        np.testing.assert_allclose(stored, centimetres, atol=0.51, rtol=1e-4)
    assert not list((source_trained / "exp/quick/plain").rglob("*_depth.png"))
    assert all("depth" in row for row in losses(source_trained / "exp/quick/isl"))
    assert not any("depth" in row for row in losses(source_trained / "exp/quick/plain"))


def test_ida_trains_on_the_depth_of_the_ranking(source_trained, capsys):
    options = [*STRONG, "TRAIN.DA_METHOD=AdvEnt"]
    rank = tiny_data.command_line(source_trained, "quick:rank", *options, "RANK.PSEUDO_DEPTH=true")
    ida = tiny_data.command_line(source_trained, "quick:ida", *options, "TRAIN.EARLY_STOP=2", "RANK.PSEUDO_DEPTH=true")
    assert entropy.main(rank[:-1]) == 0
    assert train_intra.main(ida) == 2  # the ranking has no depth
    message = capsys.readouterr().err
    assert "color_masks: the ranking wrote no depth" in message
    assert "python entropy.py --cfg quick:rank RANK.PSEUDO_DEPTH=true" in message
    assert entropy.main(rank) == 0
    assert len(list((source_trained / "exp/quick/rank/color_masks").glob("*_depth.png"))) == tiny_data.COUNT
    assert train_intra.main(ida) == 0
    assert all({"seg", "depth"} <= row.keys() for row in losses(source_trained / "exp/quick/ida"))
