"""From a config to networks, data sets and a run: what the stages have in common."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advent.config.loading import config_digest, dump_config
from advent.dataset.base_dataset import StreetDataset
from advent.dataset.paths import CONFIGS
from advent.dataset.place import resolve_root
from advent.dataset.protocol import class_set, target_spec
from advent.dataset.spec import load_spec
from advent.doctor.examine import check_before
from advent.domain_adaptation.steps import Method
from advent.engine import distributed
from advent.engine.device import prepare_device, seed_everything, seed_rank
from advent.engine.effective import effective_batch
from advent.engine.learner import Learner
from advent.engine.loading import FETCH, load_network, load_start
from advent.engine.loop import Loop
from advent.engine.provenance import names_digest, provenance, recorded
from advent.engine.registry import find_network
from advent.engine.runlog import StageFolder
from advent.errors import ConfigError
from advent.model.deeplabv2 import SegmentationNetwork, initialise
from advent.model.encoder import Encoder, ResNetEncoder

__all__ = [
    "build_encoder", "build_network", "cache_folder", "class_set", "continues", "evaluation_data", "open_run",
    "settle_seed", "source_data", "target_data",
]  # fmt: skip


def build_encoder(config: Any, weights: bool = True) -> Encoder:
    """MODEL.ENCODER; `weights=False` skips MODEL.ENCODER_WEIGHTS (a checkpoint is loaded over them anyway)."""
    model = config.MODEL
    kind, _, name = model.ENCODER.partition(":")
    if kind == "resnet101":
        if model.OUTPUT_STRIDE != 8:
            raise ConfigError(f"MODEL.OUTPUT_STRIDE: {model.OUTPUT_STRIDE}: the release's ResNet has 8; set it to 8")
        return ResNetEncoder(model.LAYERS, model.WIDTH, model.BN_AFFINE, model.STRIDE_IN)
    if kind != "timm" or not name:
        raise ConfigError(f"MODEL.ENCODER: {model.ENCODER!r} is neither resnet101 nor timm:NAME")
    from advent.model.timm_encoder import TimmEncoder  # timm takes seconds to import; most runs do without

    file = model.ENCODER_WEIGHTS if weights else None
    return TimmEncoder(name, config.TRAIN.IMG_MEAN, model.BN_AFFINE, file, model.OUTPUT_STRIDE, model.FEATURE_SCALE)


def build_network(config: Any, checkpoint: str | Path | None = None) -> SegmentationNetwork:
    """MODEL.NAME on its encoder, randomly started, or with the weights of a trained checkpoint."""
    net = find_network(config).build(config, build_encoder(config, weights=checkpoint is None))
    if checkpoint is not None:
        load_network(net, checkpoint)
    else:
        initialise(net, config.MODEL.INIT, backbone=config.MODEL.ENCODER == "resnet101")
    return net


def source_data(config: Any) -> StreetDataset:
    """The labelled source at its input size; with depth when the network learns depth."""
    spec = load_spec(config.SOURCE)
    train = config.TRAIN
    return StreetDataset(
        spec, resolve_root(config.DATA_ROOT, config.DATA_DIRECTORY_SOURCE, spec), train.SET_SOURCE, class_set(config),
        size=tuple(train.INPUT_SIZE_SOURCE), label_size=tuple(train.INPUT_SIZE_SOURCE), mean=tuple(train.IMG_MEAN),
        list_file=_list_file(config.DATA_LIST_SOURCE), with_labels=True,
        with_depth=find_network(config).gives_depth and train.LAMBDA_DEPTH_MAIN > 0, cache_dir=cache_folder(config),
    )  # fmt: skip


def target_data(
    config: Any,
    names: Sequence[str] | None = None,
    label_dir: Path | None = None,
    size: Sequence[int] | None = None,
) -> StreetDataset:
    """The unlabelled target at its input size; `names` takes a part of it, `label_dir` adds pseudo labels.

    Its ground truth is never opened here.
    """
    spec = target_spec(config.TARGET, config.GEOMETRY_TARGET)
    train = config.TRAIN
    size_wh = tuple(size or train.INPUT_SIZE_TARGET)
    return StreetDataset(
        spec, resolve_root(config.DATA_ROOT, config.DATA_DIRECTORY_TARGET, spec), train.SET_TARGET, class_set(config),
        size=size_wh, label_size=size_wh, mean=tuple(train.IMG_MEAN), names=names,
        list_file=_list_file(config.DATA_LIST_TARGET), label_dir=label_dir, cache_dir=cache_folder(config),
    )  # fmt: skip


def evaluation_data(config: Any, labelled: bool = True) -> StreetDataset:
    """The target's labelled set: images at TEST.INPUT_SIZE_TARGET, labels (if any) at the size they are scored at."""
    spec = target_spec(config.TARGET, config.GEOMETRY_TARGET)
    return StreetDataset(
        spec, resolve_root(config.DATA_ROOT, config.DATA_DIRECTORY_TARGET, spec), config.TEST.SET_TARGET,
        class_set(config), size=tuple(config.TEST.INPUT_SIZE_TARGET), label_size=None,
        mean=tuple(config.TRAIN.IMG_MEAN), with_labels=labelled, cache_dir=cache_folder(config),
    )  # fmt: skip


def open_run(
    config: Any,
    method: Method,
    *,
    data: Mapping[str, StreetDataset],
    resume: bool,
    overwrite: bool,
    start: Path | None = None,
    inputs: Mapping[str, Path] | None = None,
) -> Loop:
    """Network, optimizers, locked folder and loop of a training stage, seeded; nothing is written before all checks.

    `data`: role (source, target) -> data set. `start`: the trained checkpoint that a later stage starts from (fresh
    optimizers); without it the start is TRAIN.RESTORE_FROM (ImageNet weights) or random. `inputs`: role -> further
    file to record in the provenance. A continued run needs neither: all it needs lies in its folder.
    """
    names = {role: dataset.names for role, dataset in data.items()}
    digests = {role: names_digest(listed) for role, listed in names.items()}
    distributed.require_same(config=config_digest(config), **{f"{role}'s images": d for role, d in digests.items()})
    check_before(data, config.DATA_CHECK)
    device = prepare_device(config)
    seed_everything(config.TRAIN.RANDOM_SEED, config.TRAIN.DETERMINISTIC)
    folder = StageFolder.of(config)
    if continues(config, resume):
        net = find_network(config).build(config, build_encoder(config, weights=False))
    else:
        net = build_network(config, start)
        if start is None and config.TRAIN.RESTORE_FROM:
            load_start(net, config.TRAIN.RESTORE_FROM, config.TRAIN.IMG_MEAN)
            start = None if config.TRAIN.RESTORE_FROM == FETCH else Path(config.TRAIN.RESTORE_FROM)
    learner = Learner(net, method, find_network(config).supervised, config.TRAIN, device)
    seed_rank(config.TRAIN.RANDOM_SEED)  # only now: all start from the same networks
    loop = Loop(config, learner, folder, resume=resume, overwrite=overwrite, data=digests)
    if continues(config, resume):
        folder.continued(loop.iteration, batch=effective_batch(config, method.uses_target))
    else:
        files = {**({"start": start} if start else {}), **(inputs or {})}
        record = {**provenance(config, files, names), "batch": effective_batch(config, method.uses_target)}
        folder.begin(dump_config(config), record)
    return loop


def continues(config: Any, resume: bool) -> bool:
    """Whether `--resume` finds a run to continue."""
    return resume and StageFolder.of(config).has_state()


def settle_seed(config: Any, resume: bool) -> None:
    """With RANDOM_TRAIN, replace the fixed seed by a drawn one, which is recorded; a continued run keeps its own."""
    if not config.TRAIN.RANDOM_TRAIN:
        return
    record = recorded(StageFolder.of(config).path) if continues(config, resume) else None
    drawn = distributed.decided(lambda: random.SystemRandom().randrange(2**31))
    config.TRAIN.RANDOM_SEED = record["seed"] if record else drawn


def cache_folder(config: Any) -> Path | None:
    """Where scripts/prepare.py leaves decoded items: DATA_CACHE, relative to DATA_ROOT."""
    return Path(config.DATA_ROOT) / config.DATA_CACHE if config.DATA_CACHE else None


def _list_file(value: str | None) -> Path | None:
    """A list file, by its path, or by its path below this project: its own configs name lists that travel with it."""
    if not value:
        return None
    own = CONFIGS.parent / value
    return own if not Path(value).is_file() and own.is_file() else Path(value)
