"""Which ranking score agrees with the true errors? Compares scores on labelled images of the target.

    python scripts/compare_rankings.py --cfg ep1:isl --data-root DIR
    python scripts/compare_rankings.py --cfg camvid_modern:isl --checkpoint FILE FILE TEST.SET_TARGET=train \\
        TEST.LIST=configs/lists/camvid_dev.txt

The images are those that test.py scores, with its size and batch-norm statistics. Each score orders them. Printed are
Spearman's correlation with the share of wrong pixels of an image, and the mean share in the easy half (the first
RANK.LAMBDA1 of the order) and in the hard half. Two more tables show why: the wrong pixels by quarter of an image's
depth, and the share of each predicted class in the paper's score. With several checkpoints (seeds): mean and standard
deviation over them. Without --checkpoint the stage's last snapshot is read. A diagnostic: a ranking never reads labels.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the packages need not be installed

import torch
from torch import Tensor

from advent.config.schema import Config
from advent.dataset.classes import IGNORE
from advent.dataset.loader import load_batches, sequential_batches
from advent.errors import CheckpointError, ConfigError
from advent.evaluation.evaluate import upsample_argmax
from advent.evaluation.predictor import not_finite, refuse_not_finite
from advent.evaluation.stage import Scorer, candidates
from advent.methods.registry import find_network
from advent.model.outputs import eval_mode, forward_at_input_size, resize_bilinear
from advent.model.precision import AMP_DTYPES
from advent.runtime.progress import with_progress
from advent.utils.loss import self_information
from advent.utils.tables import markdown_table, mean_std
from daf.interaction import depth_aware_map
from ida import cli
from ida.pipeline.label_quality import spearman
from ida.ranking import distance_scores, ranking_scores, split

LEAST_SHARE = 0.001  # of the image: smaller predicted classes are left out of a mean over classes
PLACES = (2, 1, 1)  # decimals of the printed measures
Score = Callable[[Tensor, Tensor], list[float]]


def median_scores(score_map: Tensor) -> list[float]:
    """One score per image: the median over the pixels of the mean over the classes of a map (B, C, H, W)."""
    return score_map.mean(1).flatten(1).median(1).values.tolist()


def class_mean_scores(score_map: Tensor, labels: Tensor) -> list[float]:
    """One score per image: the mean over its predicted classes of the map's mean on their pixels.

    score_map: (B, C, H, W); labels: (B, H, W) predicted train ids. Every class of at least 0.1 % of the pixels counts
    alike, so a large road weighs no more than a few people.
    """
    values = score_map.mean(1).flatten(1)
    one_hot = torch.nn.functional.one_hot(labels.flatten(1).long(), score_map.shape[1]).to(values.dtype)
    pixels = one_hot.sum(1)
    means = torch.einsum("bp,bpc->bc", values, one_hot) / pixels.clamp(min=1)
    counted = (pixels >= LEAST_SHARE * values.shape[1]).to(values.dtype)
    return ((means * counted).sum(1) / counted.sum(1)).tolist()


def _relative(depth: Tensor) -> Tensor:
    return depth / depth.mean((2, 3), keepdim=True)


# The first three are values of RANK.MAP. Arguments: logits (B, C, H, W) and inverse depth (B, 1, H, W) at one size.
SCORES: Mapping[str, Score] = {
    "entropy": lambda logits, depth: ranking_scores(logits, None),
    "depth (the paper)": ranking_scores,
    "distance": distance_scores,
    "depth over the image's mean depth": lambda logits, depth: ranking_scores(logits, _relative(depth)),
    "depth, median over pixels": lambda logits, depth: median_scores(depth_aware_map(logits, depth)),
    "depth, mean over classes": lambda logits, depth: class_mean_scores(
        depth_aware_map(logits, depth), logits.argmax(1)
    ),
    "entropy, mean over classes": lambda logits, depth: class_mean_scores(
        self_information(logits.softmax(1)), logits.argmax(1)
    ),
    "depth alone": lambda logits, depth: depth.mean((1, 2, 3)).tolist(),
}


@dataclass
class Comparison:
    """Per image with labelled pixels: its name, its scores by the score's name, and its share of wrong pixels.

    `of_quarter`: wrong pixels of each quarter of an image's depth, the farthest first (mean over the images).
    `of_class`: share of each predicted class in the sum of the entropy map, and of the paper's map (2, C).
    """

    names: list[str]
    scores: dict[str, list[float]]
    errors: list[float]
    of_quarter: list[float]
    of_class: Tensor


def compare(scorer: Scorer, checkpoint: Path) -> Comparison:
    """Scores and errors of one network. Raises NotFinite naming images with non-finite outputs."""
    net, config, dataset = scorer.network(checkpoint), scorer.config, scorer.dataset
    amp_dtype = AMP_DTYPES[config.TRAIN.precision.format]
    order = sequential_batches(len(dataset), config.TEST.BATCH_SIZE_TARGET)
    names: list[str] = []
    errors: list[float] = []
    quarters: list[list[float]] = []
    scores: dict[str, list[float]] = {name: [] for name in SCORES}
    sums = torch.zeros(2, len(dataset.classes), dtype=torch.float64)
    with torch.inference_mode(), eval_mode(net):
        batches = load_batches(dataset, config.NUM_WORKERS, scorer.device, order)
        for batch in with_progress(batches, checkpoint.name, len(order)):
            outputs = forward_at_input_size(net, batch["image"], amp_dtype)
            assert outputs.depth is not None, "compare_rankings refuses a network without depth"
            refuse_not_finite(not_finite(batch["name"], outputs.main, outputs.depth), "the network's outputs")
            logits, depth = outputs.main.float(), outputs.depth.float()
            of_batch = {name: score(logits, depth) for name, score in SCORES.items()}
            sums += class_sums(logits, depth)
            for index, name in enumerate(batch["name"]):
                label = batch["label"][index].to(scorer.device)
                ids = upsample_argmax(logits[index], label.shape[-2:])
                known = label != IGNORE
                if known.any():
                    wrong = (ids != label) & known
                    names.append(name)
                    errors.append(float(wrong.sum() / known.sum()))
                    at_label = resize_bilinear(depth[index : index + 1], label.shape[-2:])[0, 0]
                    quarters.append(quarter_errors(wrong, known, at_label))
                    for key, values in of_batch.items():
                        scores[key].append(values[index])
    of_quarter = [
        100 * statistics.mean(e for e in column if not math.isnan(e)) for column in zip(*quarters, strict=True)
    ]
    return Comparison(names, scores, errors, of_quarter, 100 * sums / sums.sum(1, keepdim=True))


def class_sums(logits: Tensor, depth: Tensor) -> Tensor:
    """(2, C) float64: the sums of the entropy map and of the paper's map over the pixels of each predicted class."""
    classes = logits.shape[1]
    labels = logits.argmax(1).flatten().cpu()  # MPS has no float64
    maps = (self_information(logits.softmax(1)), depth_aware_map(logits, depth))
    return torch.stack([torch.bincount(labels, m.sum(1).flatten().cpu().double(), minlength=classes) for m in maps])


def quarter_errors(wrong: Tensor, known: Tensor, depth: Tensor) -> list[float]:
    """Share of wrong pixels among the labelled ones of each quarter of the inverse depth, the farthest first.

    All (H, W). NaN for a quarter without labelled pixels.
    """
    order = depth.flatten().argsort()
    parts = [(wrong.flatten()[part].sum(), known.flatten()[part].sum()) for part in order.tensor_split(4)]
    return [float(errors / count) for errors, count in parts]


def agreement(
    names: Sequence[str], scores: Sequence[float], errors: Sequence[float], lambda1: float
) -> list[float | None]:
    """Spearman's correlation of scores and errors, and the mean error (percent) of the easy and of the hard half.

    The correlation is None if all scores or all errors are equal.
    """
    error_of = dict(zip(names, errors, strict=True))
    halves = split(zip(names, scores, strict=True), lambda1)
    of_halves = [100 * statistics.mean(error_of[name] for name in half) for half in halves]
    return [spearman(scores, errors), *of_halves]


def compare_rankings(config: Config, checkpoints: Sequence[Path]) -> str:
    """The three tables, as Markdown. Raises ConfigError for a network without depth."""
    if not find_network(config).gives_depth:
        raise ConfigError(f"MODEL.NAME: {config.MODEL.NAME} predicts no depth; set MODEL.NAME: DeepLabv2_depth")
    scorer = Scorer(config)
    files = list(checkpoints) or [candidates(config)[-1].files[0]]
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{file}: no such checkpoint")
    comparisons = [compare(scorer, file) for file in files]
    lambda1 = config.RANK.LAMBDA1
    rows = [
        [name, *_cells([agreement(c.names, c.scores[name], c.errors, lambda1) for c in comparisons], PLACES)]
        for name in SCORES
    ]
    header = ["score", "Spearman", "wrong pixels, easy (%)", "wrong pixels, hard (%)"]
    quarters = ["quarter of the depth", "farthest", "second", "third", "nearest"]
    of_quarter = ["wrong pixels (%)", *_cells([c.of_quarter for c in comparisons], [1] * 4)]
    classes = scorer.classes.names
    of_class = [
        [f"share in {name} (%)", *_cells([c.of_class[index].tolist() for c in comparisons], [1] * len(classes))]
        for index, name in enumerate(("entropy", "depth (the paper)"))
    ]
    tables = (header, rows), (quarters, [of_quarter]), (["predicted class", *classes], of_class)
    return "\n\n".join(markdown_table(*table) for table in tables)


def _cells(of_files: Sequence[Sequence[float | None]], places: Sequence[int]) -> list[str]:
    """Mean and deviation of each measure over the checkpoints; a correlation that is undefined does not count."""
    columns = zip(*of_files, strict=True)
    return [
        mean_std([value for value in column if value is not None], places=decimals)
        for column, decimals in zip(columns, places, strict=True)
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and compare; returns the exit code."""
    parser = cli.make_parser("compare_rankings.py", __doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--checkpoint", metavar="FILE", type=Path, nargs="+", default=[], help="default: the stage's last snapshot"
    )
    args = parser.parse_args(argv)

    def body() -> None:
        print(compare_rankings(cli.config_from_args(args), args.checkpoint))

    return cli.run_cli("scripts/compare_rankings.py", body, argv)


if __name__ == "__main__":
    sys.exit(main())
