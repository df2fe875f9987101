"""Say what a checkpoint file is, and convert between the forms of this line.

    python scripts/checkpoint.py FILE
    python scripts/checkpoint.py FILE --to plain --out OTHER

Forms: plain (a state dict, as this project saves), wrapper (under `model_state_dict`), module (names with `module.`).
ADVENT's ImageNet file and torchvision's become starting weights in this project's names and input convention.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the floors lie beside scripts/; they need not be installed

from daf.own_advent import require_own_advent

if TYPE_CHECKING:
    from advent.engine.recognise import Contents

FORMS = ("plain", "wrapper", "module")


def describe(path: Path, found: Contents) -> list[tuple[str, str]]:
    """(what, in words) of a checkpoint file."""
    from advent.engine.checkpoint import digest
    from advent.engine.recognise import IMAGENET, TORCHVISION

    form = found.form + (", names with module." if found.module else "")
    form += f"; beside it: {', '.join(found.others)}" if found.others else ""
    numbers = sum(tensor.numel() for tensor in found.weights.values() if tensor.is_floating_point())
    types = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in found.weights.values()})
    start = found.form in (IMAGENET, TORCHVISION)
    return [
        ("file", f"{path}, {path.stat().st_size / 2**20:.1f} MiB"),
        ("sha256", digest(path)),
        ("form", form),
        ("network", str(found)),
        ("encoder", found.encoder),
        ("numbers", f"{numbers:,} in {len(found.weights)} tensors ({', '.join(types)})"),
        ("loads with", f"python train.py --cfg ep1:daf TRAIN.RESTORE_FROM={path}" if start else _command(path, found)),
    ]


def _command(path: Path, found: Contents) -> str:
    """The command that evaluates a network, by the shipped configs that describe it."""
    from advent.config.loading import load_config, protocol_sections
    from advent.dataset.paths import CONFIGS

    if found.network is None:
        return "nothing here"
    fitting = []
    for file in sorted(CONFIGS.glob("*.yml")):
        for section in protocol_sections(file) if file.stem != "aliases" else []:
            config = load_config(f"{file.stem}:{section.name}")
            model = config.MODEL
            here = (model.NAME, model.MULTI_LEVEL, config.NUM_CLASSES, model.ENCODER)
            if section.trains and here == (found.network, found.multi_level, found.classes, found.encoder):
                fitting.append(f"{file.stem}:{section.name}")
    if not fitting:
        return f"a config with MODEL.NAME={found.network} NUM_CLASSES={found.classes} MODEL.ENCODER={found.encoder}"
    others = f"   (or: {', '.join(fitting[1:])})" if fitting[1:] else ""
    return f"python test.py --cfg {fitting[0]} TEST.MODE=single TEST.RESTORE_FROM={path}{others}"


def converted(found: Contents, form: str, mean: Sequence[float]) -> dict[str, Any]:
    """The weights in another form."""
    from advent.engine.recognise import TORCHVISION
    from advent.model.torchvision_start import convert

    weights = convert(found.weights, mean) if found.form == TORCHVISION else found.weights
    if form == "wrapper":
        return {"model_state_dict": weights}
    return {f"module.{name}": tensor for name, tensor in weights.items()} if form == "module" else dict(weights)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, describe or convert; returns the exit code."""
    require_own_advent()
    import ida.doors as doors
    from advent.config.loading import default_config
    from advent.engine.checkpoint import save
    from advent.engine.options import OneLineParser
    from advent.engine.recognise import open_checkpoint
    from advent.errors import ConfigError

    parser = OneLineParser(
        prog="checkpoint.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", metavar="FILE", type=Path)
    parser.add_argument("--to", choices=FORMS, help="convert the weights to this form")
    parser.add_argument("--out", metavar="OTHER", type=Path, help="where the converted file goes")
    args = parser.parse_args(argv)

    def body() -> None:
        found = open_checkpoint(args.file)
        if (args.to is None) != (args.out is None):
            raise ConfigError("--to and --out belong together: --to plain --out OTHER")
        for what, words in describe(args.file, found):
            print(f"{what:<11}{words}")
        if args.out is not None:
            if args.out.exists():
                raise ConfigError(f"{args.out}: is there already; choose another --out")
            save(args.out, converted(found, args.to, default_config().TRAIN.IMG_MEAN))
            print(f"{'written':<11}{args.out} ({args.to})")

    return doors.run_door("scripts/checkpoint.py", body, argv)


if __name__ == "__main__":
    sys.exit(main())
