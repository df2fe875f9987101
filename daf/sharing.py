"""Shared models: a folder with `model.safetensors`, `config.yml` and a model card, local or on the Hugging Face hub.

`find_checkpoint` resolves what `load_model` is given; `write_folder` is `Model.save_pretrained`.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import torch
from torch import Tensor, nn

from advent.checkpoints.io import digest, save_safetensors
from advent.checkpoints.provenance import FILE as PROVENANCE
from advent.checkpoints.run_dir import RunDir
from advent.config.files import find_config
from advent.config.loading import dump_config, load_config, plain, protocol_sections, stage_command
from advent.config.schema import Config
from advent.errors import CheckpointError, ConfigError, MissingStage, first_line
from advent.model.batch_norm import BATCH_NORMS
from advent.utils.paths import PRETRAINED, expand_user, shipped_file
from advent.utils.program import extra_command
from advent.utils.serialization import read_json, write_json, write_text
from daf.model_card import CARD, model_card

log = logging.getLogger(__name__)
WEIGHTS, CONFIG, RESULTS = "model.safetensors", "config.yml", "results.json"
FILES = (WEIGHTS, CONFIG, CARD, PROVENANCE, RESULTS)
HUB = "hf:"
NAME = re.compile(r"[\w-]+(:[\w-]+)?")  # a config's name, such as ep1:ida or intra_trained
SHIPPED = "pretrained/streets.safetensors"  # with streets.yml and streets.md
FULL_PRECISION = ("depth_head.", "convR2.", "enc4_")  # depth heads: inverse depth needs more than float16's 11 bits
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")  # OWNER/NAME or OWNER/NAME@REVISION


@dataclass(frozen=True)
class FoundCheckpoint:
    """A checkpoint file and its config: a file, or a name under configs/."""

    path: Path
    config: str | Path


def find_checkpoint(source: str | Path | None, cfg: str | Path | None = None) -> FoundCheckpoint:
    """The checkpoint that `source` names, and its config (`cfg` replaces it).

    `source`: a file; a folder (shared, or of a stage: its last snapshot); `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`;
    or a config's name (`ep1:ida`: the stage's last snapshot; `ep1`: that of its last stage). None: the shipped one.
    Raises CheckpointError, ConfigError or MissingStage.
    """
    if source is None:
        return _shipped(cfg)
    text = str(shipped_file(expand_user(str(source))))
    if text.startswith(HUB):
        path = _in_folder(download(text.removeprefix(HUB)))
    elif Path(text).is_dir():
        path = _in_folder(Path(text))
    elif Path(text).is_file() or not NAME.fullmatch(text):
        path = Path(text)
    else:
        path, named = _of_config(text)
        cfg = named if cfg is None else cfg
    return FoundCheckpoint(path, _config_beside(path) if cfg is None else cfg)


def _shipped(cfg: str | Path | None) -> FoundCheckpoint:
    """The shipped checkpoint, announced in one log line. Raises CheckpointError if its file is missing."""
    if cfg is not None:
        raise ConfigError(f"--cfg {cfg}: is the config of no checkpoint; name the checkpoint with --checkpoint FILE")
    path = PRETRAINED / Path(SHIPPED).name
    if not path.is_file():
        raise CheckpointError(f"{path}: the shipped checkpoint is missing; name another one with --checkpoint FILE")
    log.info("no checkpoint named: using the shipped %s, trained on rendered streets (its card: streets.md)", SHIPPED)
    return FoundCheckpoint(path, _config_beside(path))


def download(repository: str) -> Path:
    """Download a shared model from the Hugging Face hub into its cache; returns the folder.

    `repository`: OWNER/NAME, or OWNER/NAME@REVISION. Raises ConfigError without the package huggingface_hub, and
    CheckpointError if there is no such model or it cannot be downloaded.
    """
    misnamed = f"{HUB}{repository}: not a name on the hub; use {HUB}OWNER/NAME"
    if not HUB_NAME.fullmatch(repository):
        raise CheckpointError(misnamed)
    try:
        import huggingface_hub  # an optional extra
        from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
    except ImportError:
        raise ConfigError(f"{HUB}{repository}: needs huggingface_hub; {extra_command('hub')}") from None
    name, _, revision = repository.partition("@")
    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision or None, allow_patterns=list(FILES)))
    except HFValidationError:
        raise CheckpointError(misnamed) from None
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise CheckpointError(
            f"{HUB}{repository}: no such model or revision on the Hugging Face hub, or it is private (hf auth login)"
        ) from None
    except Exception as error:  # errors of the connection have other types in other versions
        if huggingface_hub.constants.HF_HUB_OFFLINE:
            raise CheckpointError(
                f"{HUB}{repository}: cannot be downloaded: HF_HUB_OFFLINE is set, and the model is not in the hub's "
                "cache; unset it, or load a local folder"
            ) from None
        raise CheckpointError(
            f"{HUB}{repository}: cannot be downloaded ({first_line(error)}); check the network, or load a local folder"
        ) from None


def write_folder(
    folder: Path, net: nn.Module, config: Config, made_from: Path | None, overwrite: bool = False, half: bool = False
) -> Path:
    """Write a shared model; `made_from`: the checkpoint, whose folder may hold provenance.json and results.json.

    Files are written without absolute paths. Only scores of this very checkpoint are kept; of `half` (see
    `half_precision`) none, since its weights are other ones. Raises ConfigError if the folder has a model, unless
    `overwrite`.
    """
    if (folder / WEIGHTS).exists() and not overwrite:
        raise ConfigError(f"{folder / WEIGHTS}: already exists; choose another folder, or overwrite=True")
    provenance: dict[str, Any] = {}
    results: dict[str, Any] = {}
    if made_from is not None:
        provenance = without_paths(_read(made_from.parent / PROVENANCE))
        made = {"path": made_from.name, "sha256": digest(made_from)}
        provenance = {"checkpoint": made, **provenance}  # that of a shared model is kept
        if not half:
            results = _scores_of(digest(made_from), without_paths(_read(made_from.parent / RESULTS)))
    shared = shareable(config)
    weights = half_precision(net) if half else net.state_dict()
    sha256 = digest(save_safetensors(folder / WEIGHTS, weights))
    for row in results.get("results", []):
        row.update(snapshot=WEIGHTS, sha256=sha256)
    write_text(folder / CONFIG, dump_config(shared))
    for file, record in ((PROVENANCE, provenance), (RESULTS, results)):
        (folder / file).unlink(missing_ok=True)
        if record:
            write_json(folder / file, record)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    write_text(folder / CARD, model_card(shared, parameters, sha256, provenance, results))
    return folder


def half_precision(net: nn.Module) -> dict[str, Tensor]:
    """The state dict with float32 weights in float16: half the size, for storage.

    Batch norms (weights and statistics), the depth head and tensors beyond float16's range stay float32. Loading copies
    the values into float32 parameters.
    """
    norms = {name for name, module in net.named_modules() if isinstance(module, BATCH_NORMS)}

    def stored(name: str, tensor: Tensor) -> Tensor:
        keeps = name.rpartition(".")[0] in norms or name.startswith(FULL_PRECISION) or tensor.dtype != torch.float32
        halved = tensor.half()
        return tensor if keeps or not bool(halved.isfinite().all()) else halved

    return {name: stored(name, tensor) for name, tensor in net.state_dict().items()}


def shareable(config: Config) -> Config:
    """A copy without what belongs to one machine or one evaluation: folders, device, absolute paths."""
    tree, defaults = plain(config), plain(Config())
    for key in ("DATA_ROOT", "DATA_CACHE", "EXP_ROOT", "DEVICE", "NUM_WORKERS"):
        tree[key] = defaults[key]
    for key in ("MODE", "ENSEMBLE", "WEIGHTS", "RESTORE_FROM", "SAVE_PREDS", "WAIT_MODEL"):
        tree["TEST"][key] = defaults["TEST"][key]
    return Config.model_validate(without_paths(tree))


def without_paths(value: Any) -> Any:
    """The same tree with every absolute path replaced by its last part."""
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items() if key != "launcher"}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    if isinstance(value, str) and (Path(value).is_absolute() or PureWindowsPath(value).is_absolute()):
        return PureWindowsPath(value).name
    return value


def _scores_of(sha256: str, record: dict[str, Any]) -> dict[str, Any]:
    """The record with the results of one checkpoint; empty if it has none."""
    rows = [row for row in record.get("results", []) if row.get("sha256") == sha256]
    return {**record, "results": rows} if rows else {}


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _in_folder(folder: Path) -> Path:
    """The shared weights of a folder, else its last snapshot."""
    if (folder / WEIGHTS).is_file():
        return folder / WEIGHTS
    snapshots = RunDir(folder).snapshots()
    if not snapshots:
        raise CheckpointError(f"{folder}: no such checkpoint: the folder has neither {WEIGHTS} nor model_N.pth")
    return snapshots[-1][1]


def _of_config(name: str) -> tuple[Path, str]:
    """(checkpoint, config) of a config's name."""
    try:
        section = find_config(name).section
    except ConfigError as error:
        raise CheckpointError(f"{name}: no such checkpoint file or folder; as the name of a config: {error}") from None
    trained = [section.name for section in protocol_sections(name) if section.trains]
    if section is None and trained:
        name = f"{name}:{trained[-1]}"
    config = load_config(name)
    if config.TEST.MODE == "single" and config.TEST.RESTORE_FROM:
        return Path(config.TEST.RESTORE_FROM), name
    snapshots = RunDir.of(config).snapshots()
    if not snapshots:
        command = stage_command(config, config.STAGE.NAME)
        raise MissingStage(f"{RunDir.of(config).path}: no checkpoint of {name} yet. Run: {command}")
    return snapshots[-1][1], str(snapshots[-1][1].parent / CONFIG)


def _config_beside(checkpoint: Path) -> Path:
    if not checkpoint.is_file():
        raise CheckpointError(f"{checkpoint}: no such checkpoint")
    own = checkpoint.with_suffix(".yml")  # of several checkpoints in one folder
    beside = own if own.is_file() else checkpoint.parent / CONFIG
    if not beside.is_file():
        raise ConfigError(
            f"{checkpoint}: no {CONFIG} beside it, so its network and classes are unknown; name its config "
            f"with --cfg (python scripts/checkpoint.py {checkpoint} lists matching ones)"
        )
    return beside
