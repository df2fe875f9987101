"""Identify a checkpoint file, or convert between the checkpoint formats of the ADVENT family.

    python scripts/checkpoint.py FILE
    python scripts/checkpoint.py FILE --to plain --out OTHER
    python scripts/checkpoint.py FILE --to folder --out DIR

Formats: plain (a state dict, as saved here), wrapper (under `model_state_dict`), module (names with `module.`),
safetensors (a state dict in OTHER.safetensors), folder (model.safetensors, config.yml and a model card, to share).
ADVENT's ImageNet file and torchvision's become starting weights in this project's names and input convention.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advent.checkpoints.formats import ASPP_DILATIONS, IMAGENET, TORCHVISION, CheckpointInfo, listed, open_checkpoint
from advent.checkpoints.io import digest, is_safetensors, save, save_safetensors
from advent.cli import OneLineParser
from advent.config.files import aliases
from advent.config.loading import default_config, load_config, protocol_sections
from advent.config.schema import Config
from advent.errors import ConfigError, UserError, printable
from advent.model.pretrained import convert
from advent.utils.paths import CONFIGS
from advent.utils.program import as_typed
from daf.inference import load_model
from ida import cli

FORMS = ("plain", "wrapper", "module", "safetensors", "folder")
SUFFIX = ".safetensors"


def describe(path: Path, info: CheckpointInfo) -> list[tuple[str, str]]:
    """(label, text) rows that describe a checkpoint file."""

    form = info.format + (", names with module." if info.module else "")
    form += ", safetensors" if is_safetensors(path) else ""
    form += f"; beside it: {', '.join(info.others)}" if info.others else ""
    numbers = sum(tensor.numel() for tensor in info.weights.values() if tensor.is_floating_point())
    types = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in info.weights.values()})
    start = info.format in (IMAGENET, TORCHVISION)
    beside = _config_beside(path, info)
    encoders = _encoders(info, beside)
    return [
        ("file", f"{path}, {path.stat().st_size / 2**20:.1f} MiB"),
        ("sha256", digest(path)),
        ("format", form),
        ("network", str(info)),
        ("encoder", " or ".join(encoders) + (" (of the same names and shapes)" if encoders[1:] else "")),
        ("numbers", f"{numbers:,} in {len(info.weights)} tensors ({', '.join(types)})"),
        *_unused(info),
        (
            "loads with",
            f"python train.py --cfg ep1:daf TRAIN.RESTORE_FROM={path}"
            if start
            else _command(path, info, beside, encoders),
        ),
    ]


def _unused(info: CheckpointInfo) -> list[tuple[str, str]]:
    """A warning row if some of the classifier's convolutions were never trained."""

    idle = [str(rate) for rate in ASPP_DILATIONS if info.dilations and rate not in info.dilations]
    if not idle:
        return []
    words = (
        f"dilations {', '.join(idle)} of the classifier still have their initial spread: this looks like AdaptSegNet's "
        "network, which has ADVENT's names and shapes but is another function; score it with MODEL.DILATIONS as below"
    )
    return [("warning", words)]


def _config_beside(path: Path, info: CheckpointInfo) -> Path | None:
    """The config beside the file (NAME.yml, else config.yml), if it describes these weights."""

    own = path.with_suffix(".yml")
    file = own if own.is_file() else path.parent / "config.yml"
    try:
        config = load_config(file) if file.is_file() else None
    except UserError:
        return None
    if config is None or info.network is None:
        return None
    described = _settings(config)
    if info.encoder == "timm":
        from advent.model.timm_names import matching_backbones  # timm takes seconds to import

        name = str(described.pop("MODEL.ENCODER")).removeprefix("timm:")
        return file if _rest(info) == described and matching_backbones(info.weights, [name]) else None
    return file if info.settings == described else None


def _settings(config: Config) -> dict[str, str]:
    """The keys of CheckpointInfo.settings, with a config's values."""

    model = config.MODEL
    keys = {
        "MODEL.NAME": model.NAME,
        "MODEL.MULTI_LEVEL": str(model.MULTI_LEVEL).lower(),
        "NUM_CLASSES": str(config.NUM_CLASSES),
        "MODEL.HEAD": model.HEAD,
        "MODEL.ENCODER": model.ENCODER,
    }
    if model.HEAD == "fusion":
        keys["MODEL.HEAD_WIDTH"] = listed(model.HEAD_WIDTH)
    if model.ENCODER == "resnet101":
        keys |= {"MODEL.LAYERS": listed(model.LAYERS), "MODEL.WIDTH": str(model.WIDTH)}
    return keys


def _rest(info: CheckpointInfo) -> dict[str, str]:
    return {key: value for key, value in info.settings.items() if key != "MODEL.ENCODER"}


def _encoders(info: CheckpointInfo, beside: Path | None) -> list[str]:
    """Possible encoders; several timm names if their weights have the same names and shapes."""
    if info.encoder != "timm":
        return [info.encoder]
    from advent.model.timm_names import matching_backbones  # timm takes seconds to import

    if beside is not None:
        return [load_config(beside).MODEL.ENCODER]
    return matching_backbones(info.weights) or ["timm, but not a backbone of the installed version"]


def _shipped_configs() -> list[str]:
    """Names of the configs that describe trained networks: sections of protocols, then baselines of their own name."""
    protocols = [file.stem for file in sorted(CONFIGS.glob("*.yml")) if file.stem != "aliases"]
    sections = [f"{name}:{section.name}" for name in protocols for section in protocol_sections(name) if section.trains]
    return [*sections, *(name for name, entry in aliases().items() if isinstance(entry, dict) and "method" in entry)]


def _command(path: Path, info: CheckpointInfo, beside: Path | None, encoders: Sequence[str]) -> str:
    """The command that evaluates a network, by the config beside it or the shipped configs that describe it."""

    if info.foreign is not None:
        return f"nothing in this project: {info.foreign.reason}; {info.foreign.advice}"
    if info.network is None:
        return "nothing in this project"
    known = info.dilations or ASPP_DILATIONS
    dilations = f" MODEL.DILATIONS={listed(known)}" if known != ASPP_DILATIONS else ""
    single = f"TEST.MODE=single TEST.RESTORE_FROM={path}{dilations}"
    if beside is not None:
        return f"python test.py --cfg {beside} {single}"
    fitting = [name for name in _shipped_configs() if _settings(load_config(name)) == info.settings]
    if not fitting:
        usual = _settings(default_config())
        keys = {
            key: value
            for key, value in info.settings.items()
            if key not in ("MODEL.LAYERS", "MODEL.WIDTH", "MODEL.HEAD") or value != usual[key]
        }
        hidden = []  # keys that the weights do not tell
        if info.encoder == "timm":
            keys["MODEL.ENCODER"] = encoders[0] if encoders[0].startswith("timm:") else "timm:NAME"
            hidden += ["MODEL.OUTPUT_STRIDE", "MODEL.FEATURE_SCALE"]
        if info.head == "fusion":
            hidden += ["MODEL.HEAD_DILATIONS", "MODEL.DEPTH_OUTPUT"]
        as_trained = f", and {' and '.join(hidden)} as in its training" if hidden else ""
        return f"a config with {' '.join(f'{key}={value}' for key, value in keys.items())}{dilations}{as_trained}"
    others = f"   (or: {', '.join(fitting[1:])})" if fitting[1:] else ""
    return f"python test.py --cfg {fitting[0]} {single}{others}"


def converted(info: CheckpointInfo, form: str, mean: Sequence[float]) -> dict[str, Any]:
    """The weights in another format (of one file)."""

    weights = convert(info.weights, mean) if info.format == TORCHVISION else info.weights
    if form == "wrapper":
        return {"model_state_dict": weights}
    return {f"module.{name}": tensor for name, tensor in weights.items()} if form == "module" else dict(weights)


def _write(file: Path, info: CheckpointInfo, form: str, out: Path, cfg: str | None) -> None:
    if form == "folder":
        load_model(file, cfg, "cpu").save_pretrained(out)
        return
    if (form == "safetensors") != (out.suffix == SUFFIX):
        raise ConfigError(f"--out {out}: --to safetensors and the suffix {SUFFIX} belong together")
    weights = converted(info, form, default_config().TRAIN.IMG_MEAN)
    if form == "safetensors":
        save_safetensors(out, weights)
    else:
        save(out, weights)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, describe or convert; returns the exit code."""

    parser = OneLineParser(
        prog="checkpoint.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", metavar="FILE", type=Path)
    parser.add_argument("--to", choices=FORMS, help="convert the weights to this format")
    parser.add_argument("--out", metavar="OTHER", type=Path, help="the converted file, or the folder")
    parser.add_argument("--cfg", metavar="FILE", help="with --to folder: the config (default: config.yml beside FILE)")
    args = parser.parse_args(argv)

    def body() -> None:
        info = open_checkpoint(args.file)
        if (args.to is None) != (args.out is None):
            raise ConfigError("--to and --out belong together: --to plain --out OTHER")
        for label, words in describe(args.file, info):
            print(printable(as_typed(f"{label:<11}{words}")))
        if args.out is not None:
            if args.out.exists():
                raise ConfigError(f"{args.out}: already exists; choose another --out")
            _write(args.file, info, args.to, args.out, args.cfg)
            print(f"{'written':<11}{args.out} ({args.to})")

    return cli.run_cli("scripts/checkpoint.py", body, argv)
