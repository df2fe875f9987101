"""Score a checkpoint on a data set that has coarser classes only, such as CamVid (7) for a network of 16 classes.

    python scripts/score_coarse.py --dataset camvid --root DIR
    python scripts/score_coarse.py --checkpoint FILE --dataset camvid --root DIR --classes street7 --split val

Each class of the network becomes the coarse class that holds its label ids in --mapping (a data set with tables for
both class sets; Cityscapes). The network predicts as in scripts/predict.py, with the statistics of its checkpoint.
Without --checkpoint the shipped one is scored.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the packages need not be installed

import numpy as np

from advent.cli import OneLineParser, add_checkpoint_options
from advent.dataset.base_dataset import StreetDataset
from advent.dataset.classes import IGNORE, ClassSet, load_classes
from advent.dataset.resolved_layout import existing_root
from advent.dataset.spec import DatasetSpec, load_spec
from advent.errors import ConfigError
from advent.evaluation.results import summary
from advent.runtime.progress import with_progress
from advent.utils.metrics import confusion_matrix
from advent.utils.tables import results_table
from daf.inference import Model, load_model, predict
from ida import cli


def coarse_table(fine: ClassSet, coarse: ClassSet, spec: DatasetSpec) -> np.ndarray:
    """(len(fine),) uint8: the coarse train id of each fine class, by the label ids that both have in `spec`.

    Raises ConfigError if a fine class has label ids of no coarse class, or of several.
    """
    fine_ids, coarse_ids = spec.table(fine), spec.table(coarse)
    table = np.zeros(len(fine), np.uint8)
    for train_id, name in enumerate(fine.names):
        found = set(coarse_ids[fine_ids == train_id].tolist())
        if len(found) != 1 or IGNORE in found:
            raise ConfigError(
                f"--mapping {spec.name}: {name} of {fine.name} belongs to no single class of {coarse.name}"
            )
        table[train_id] = found.pop()
    return table


def coarse_confusion(model: Model, dataset: StreetDataset, table: np.ndarray) -> np.ndarray:
    """(C, C) int64 confusion matrix in the data set's classes, at the labels' own size."""
    count = len(dataset.classes)
    hist = np.zeros((count, count), np.int64)
    for index, name in enumerate(with_progress(dataset.names, "score", len(dataset))):
        prediction = predict(model, dataset.resolved.images / name)
        hist += confusion_matrix(dataset[index]["label"].numpy(), table[prediction.classes], count)
    return hist


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and score; returns the exit code."""
    parser = OneLineParser(
        prog="score_coarse.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_checkpoint_options(parser, default="the shipped one")
    add = parser.add_argument
    add("--dataset", metavar="NAME", default="camvid", help="a data set's spec (default: camvid)")
    add("--root", metavar="DIR", type=Path, required=True, help="its folder")
    add("--split", metavar="NAME", default="val", help="(default: val)")
    add("--classes", metavar="NAME", default="street7", help="the coarse class set (default: street7)")
    add("--mapping", metavar="NAME", default="cityscapes", help="spec with both tables (default: cityscapes)")
    add("--device", metavar="NAME", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    args = parser.parse_args(argv)

    def body() -> None:
        spec, coarse = load_spec(args.dataset), load_classes(args.classes)
        root = existing_root(args.root, spec)
        dataset = StreetDataset(spec, root, args.split, coarse, size=None, with_labels=True)
        model = load_model(args.checkpoint, args.cfg, args.device)
        table = coarse_table(model.classes, coarse, load_spec(args.mapping))
        scores = summary(coarse_confusion(model, dataset, table), coarse)
        print(results_table({f"{spec.name} {args.split}, {len(dataset)} images": scores}, accuracy=True))

    return cli.run_cli("scripts/score_coarse.py", body, argv)


if __name__ == "__main__":
    sys.exit(main())
