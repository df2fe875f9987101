"""Write a checkpoint whose batch-norm statistics are those of the target's unlabelled training images.

    python scripts/reestimate_bn.py --cfg ep1:daf
    python scripts/reestimate_bn.py --cfg ep1:daf --checkpoint model_90000.pth --output adapted.pth

The weights are unchanged. The images are those of TRAIN.SET_TARGET at TEST.INPUT_SIZE_TARGET (TEST.BN_IMAGES of them),
in batches of 8. Without --checkpoint the stage's last snapshot is read. The default output is model_N_bn_target.pth
beside the checkpoint, which is not taken for a snapshot of training. A JSON file beside the output records how it was
made. The file works wherever a checkpoint does: TEST.RESTORE_FROM, TRAIN.RESTORE_FROM, scripts/predict.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the packages need not be installed

from advent.build import build_network
from advent.checkpoints.auto_precision import settle_precision
from advent.checkpoints.io import digest, save
from advent.checkpoints.provenance import provenance
from advent.checkpoints.run_dir import SNAPSHOT, RunDir
from advent.config.loading import stage_command
from advent.config.schema import Config
from advent.doctor.check import sanity_check
from advent.errors import CheckpointError, ConfigError, MissingStage
from advent.evaluation.batch_norm import IMAGES_PER_BATCH, TargetStatistics
from advent.model.batch_norm import required_batch_norms
from advent.model.precision import to_device
from advent.model.precision_probe import Passes
from advent.runtime.device import prepare_device
from advent.utils.serialization import write_json
from ida import cli

SUFFIX = "_bn_target"


def write_reestimated(config: Config, checkpoint: Path | None, output: Path | None) -> Path:
    """Re-estimate the checkpoint (by default the stage's last snapshot); returns the path of the new one.

    Raises MissingStage without a snapshot, CheckpointError for one that does not fit, and ConfigError for an output
    that exists or has the name of a snapshot, or for a network without batch norms.
    """
    source = checkpoint or _last_snapshot(config)
    if not source.is_file():
        raise CheckpointError(f"{source}: no such checkpoint")
    target = output or source.with_name(f"{source.stem}{SUFFIX}.pth")
    record = target.with_suffix(".json")
    for path in (target, record):
        if path.exists():
            raise ConfigError(f"{path}: already exists; remove it, or choose another --output")
    if SNAPSHOT.fullmatch(target.name):
        raise ConfigError(f"--output {target}: is the name of a snapshot of training; choose another name")
    device = prepare_device(config)
    net = to_device(build_network(config, source), device)
    required_batch_norms(net)  # refuses a network without batch norms before the images are read
    statistics = TargetStatistics(config, config.TEST.INPUT_SIZE_TARGET, config.TEST.BN_IMAGES)
    sanity_check({"target": statistics.dataset}, config.DATA_CHECK)
    passes = Passes(IMAGES_PER_BATCH, config.TEST.INPUT_SIZE_TARGET, trains=False)
    settle_precision(config, lambda: net, device, passes, start=source)
    statistics.reestimate(net, device)
    save(target, {name: tensor.detach().cpu() for name, tensor in net.state_dict().items()})
    facts = provenance(config, {"start": source}, {"target": statistics.dataset.names})
    result = {"path": str(target), "sha256": digest(target)}
    write_json(record, {**facts, "batch_norm": statistics.record(), "output": result})
    return target


def _last_snapshot(config: Config) -> Path:
    run_dir = RunDir.of(config)
    snapshots = run_dir.snapshots()
    if not snapshots:
        raise MissingStage(
            f"{run_dir.path}: no snapshot to re-estimate. Run: {stage_command(config, config.STAGE.NAME)}, or name a "
            "checkpoint with --checkpoint FILE"
        )
    return snapshots[-1][1]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and re-estimate; returns the exit code."""

    parser = cli.make_parser("reestimate_bn.py", __doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--checkpoint", metavar="FILE", type=Path, help="default: the stage's last snapshot")
    parser.add_argument("--output", metavar="FILE", type=Path, help=f"default: beside it, model_N{SUFFIX}.pth")
    args = parser.parse_args(argv)

    def body() -> None:
        print(f"checkpoint: {write_reestimated(cli.config_from_args(args), args.checkpoint, args.output)}")

    return cli.run_cli("scripts/reestimate_bn.py", body, argv)


if __name__ == "__main__":
    sys.exit(main())
