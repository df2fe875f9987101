"""ONNX export: dynamic batch and image size, outputs checked against PyTorch, conventions stored as metadata."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import advent
from advent.checkpoints.io import digest
from advent.errors import ConfigError, DataError
from advent.utils.program import extra_command
from daf.inference import Model

OPSET = 18
OPSETS = range(16, 21)
TOLERANCE = 1e-4  # relative to the largest output value
EXAMPLE_HW = (96, 160)  # image size for tracing; height and width differ, so that mixing them up is noticed


class Exported(nn.Module):
    """The exported module: images (B, 3, H, W) -> logits (B, C, H, W), and inverse depth (B, 1, H, W) if predicted."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Outputs resized to the image size as in evaluation: bilinear, corners aligned."""
        outputs = self.net(image)
        size = image.shape[-2:]
        # Not `resize_bilinear`: tracing would record its comparison of sizes with the example's result.
        return tuple(
            functional.interpolate(output, size=size, mode="bilinear", align_corners=True)
            for output in (outputs[1], *outputs[2:])
        )


def export_onnx(model: Model, path: Path, checkpoint: Path, opset: int = OPSET) -> dict[str, float]:
    """Write a checked ONNX file atomically; returns the largest relative error per checked size and output.

    Raises ConfigError if a library is missing, DataError if the outputs differ from PyTorch by more than 1e-4.
    """
    onnx = _libraries()
    if model.device.type != "cpu":
        raise ConfigError("--device: export runs on the CPU; remove the option")
    if getattr(model.net.blueprint, "is_vit", False):
        # Their interpolated position embeddings need aten::_upsample_bicubic2d_aa, which the exporter does not have.
        raise ConfigError(f"MODEL.ENCODER: {model.config.MODEL.ENCODER}: ViTs cannot be exported to ONNX at any size")
    net = Exported(model.net).eval()
    names = ["logits", *(["depth"] if model.gives_depth else [])]
    image = torch.zeros(2, 3, *EXAMPLE_HW)
    axes = {0: "batch", 2: "height", 3: "width"}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # The tracing exporter: the newer one (dynamo=True) does not terminate on timm's padding with dynamic sizes.
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter warns of its deprecation and of every folded constant
            torch.onnx.export(
                net,
                (image,),
                str(temporary),
                dynamo=False,
                opset_version=opset,
                input_names=["image"],
                output_names=names,
                dynamic_axes=dict.fromkeys(["image", *names], axes),
            )
        proto = onnx.load(str(temporary))
        for key, value in conventions(model, checkpoint, opset).items():
            proto.metadata_props.add(key=key, value=value)
        onnx.checker.check_model(proto)
        onnx.save(proto, str(temporary))
        errors = compare(net, temporary)
        worst = float(np.max(list(errors.values())))  # propagates NaN; the built-in max does not always
        if not worst <= TOLERANCE:
            raise DataError(
                f"{path}: not written: outputs differ from PyTorch by {worst:.1e}; allowed: {TOLERANCE:.0e}"
            )
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return errors


def conventions(model: Model, checkpoint: Path, opset: int) -> dict[str, str]:
    """Metadata of the ONNX file: input, preprocessing, outputs, classes, source checkpoint."""
    size = " x ".join(map(str, model.size))
    depth = {"depth": "inverse depth 65536 / (centimetres + 1), (batch, 1, height, width) float32; large is near"}
    return {
        "opset": str(opset),
        "input": "image, (batch, 3, height, width) float32; any size from 32 x 32 on",
        "color_order": "BGR",
        "range": "0..255, minus mean",
        "mean": json.dumps([float(value) for value in model.mean]),
        "preprocessing": f"resize to {size} (width x height; {model.geometry}), RGB to BGR, subtract mean per channel",
        "trained_size": json.dumps(list(model.size)),
        "geometry": model.geometry,
        "output": f"logits, (batch, {len(model.classes)}, height, width) float32; argmax over axis 1 is the train id",
        **(depth if model.gives_depth else {}),
        "classes": json.dumps(list(model.classes.names)),
        "colors": json.dumps([list(color) for color in model.classes.colors]),
        "network": model.config.MODEL.NAME,
        "encoder": model.config.MODEL.ENCODER,
        "checkpoint_sha256": digest(checkpoint),
        "made_by": f"depth-guided-adaptation {advent.__version__}, torch {torch.__version__}",
    }


def compare(net: nn.Module, path: Path, sizes: Sequence[tuple[int, int]] = ((64, 96), (75, 101))) -> dict[str, float]:
    """Compare onnxruntime with PyTorch on random images of each (height, width).

    Returns "96x64 logits" (width x height, output) -> largest difference / largest value, for every size and output.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    generator, errors = torch.Generator().manual_seed(1), {}
    for batch, (height, width) in enumerate(sizes, start=1):
        image = 255 * torch.rand(batch, 3, height, width, generator=generator) - 110
        with torch.no_grad():
            expected = [output.numpy() for output in net(image)]
        actual = session.run(None, {"image": image.numpy()})
        for output, ours, theirs in zip(session.get_outputs(), expected, actual, strict=True):
            error = np.abs(ours - theirs).max() / max(float(np.abs(ours).max()), 1e-12)
            errors[f"{width}x{height} {output.name}"] = float(error)
    return errors


def _libraries() -> Any:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ConfigError(f"export: {error.name} is not installed; {extra_command('export')}") from None
    onnxruntime.set_default_logger_severity(3)
    return onnx
