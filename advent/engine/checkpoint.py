"""Checkpoints: recognised by content, never by name; loaded without executing anything that they carry."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from advent.errors import CheckpointError
from advent.utils.serialization import write_atomically

CLASSIFIER = "layer6.conv2d_list.0.weight"
IMAGENET_PREFIX = "Scale."


def save(path: str | Path, value: Any) -> Path:
    """Write a checkpoint whole or not at all. Raises OSError, for example when the disk is full."""

    def write(handle: BinaryIO) -> None:
        try:
            torch.save(value, handle)
        except RuntimeError as error:  # PyTorch hides what the file system said behind its own complaint
            cause = error.__context__
            while cause is not None and not isinstance(cause, OSError):
                cause = cause.__context__
            raise (cause or error) from None

    return write_atomically(path, write)


def read(path: str | Path) -> Any:
    """Whatever a checkpoint file holds, on the CPU, with tensors and plain containers only.

    Raises CheckpointError naming the file when it is missing, damaged, or needs code to be loaded.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    _refuse_bomb(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[0][:160]
        raise CheckpointError(f"{path}: refused, it holds more than tensors ({reason})") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, TypeError, MemoryError) as error:
        reason = (str(error).strip().splitlines() or ["empty"])[0][:160]
        raise CheckpointError(f"{path}: not a readable PyTorch checkpoint ({reason})") from None


def peek(path: str | Path) -> Any:
    """As `read`, for a file that this project wrote: the tensors stay on the disk until they are used."""
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _refuse_bomb(path: Path) -> None:
    """PyTorch stores its archive's members as they are: a member larger than the file is no checkpoint but a trap."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError):
        return  # the older format, or no checkpoint at all: PyTorch says which
    if unpacked > path.stat().st_size:
        raise CheckpointError(
            f"{path}: refused, {path.stat().st_size} bytes would unpack to {unpacked}; PyTorch's own files do not "
            "compress: save it again with torch.save"
        )


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The network's state dict in any of the line's forms: plain, `model_state_dict` wrapper, `module.` prefix."""
    content = read(path)
    if isinstance(content, Mapping) and isinstance(content.get("model_state_dict"), Mapping):
        content = content["model_state_dict"]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{path}: holds no network weights (want a state dict or a model_state_dict wrapper)")
    if all(name.startswith("module.") for name in content):
        return {name.removeprefix("module."): tensor for name, tensor in content.items()}
    return dict(content)


def load_network(net: nn.Module, path: str | Path) -> None:
    """Load a trained network. Raises CheckpointError when class count, names or shapes do not fit."""
    weights = read_weights(path)
    own = net.state_dict()
    _check_classes(own, weights, path)
    missing = sorted(own.keys() - weights.keys())
    left_over = sorted(weights.keys() - own.keys())
    if missing or left_over:
        raise CheckpointError(
            f"{path}: is another network than MODEL.NAME and MODEL.ENCODER say; "
            f"{_named('missing', missing)}, {_named('left over', left_over)}"
        )
    wrong = [name for name, tensor in own.items() if tensor.shape != weights[name].shape]
    if wrong:
        name = wrong[0]
        raise CheckpointError(
            f"{path}: {_named('other shapes', wrong)}; {name} is {tuple(weights[name].shape)}, "
            f"want {tuple(own[name].shape)}; check MODEL.LAYERS and MODEL.WIDTH"
        )
    net.load_state_dict(weights)


def load_start(net: nn.Module, path: str | Path) -> int:
    """Copy starting weights (the ImageNet file of ADVENT, or an earlier network) where names and shapes fit.

    In the ImageNet file the first dotted component (`Scale`) is dropped and the old classifier, `layer5`, skipped.
    New heads keep their random start. Returns the number of tensors copied; raises CheckpointError if none fits.
    """
    weights = read_weights(path)
    if all(name.startswith(IMAGENET_PREFIX) for name in weights):
        names = {name: name.split(".")[1:] for name in weights}
        weights = {".".join(parts): weights[name] for name, parts in names.items() if parts[0] != "layer5"}
    else:
        _check_classes(net.state_dict(), weights, path)
    own = net.state_dict()
    fitting = {name: tensor for name, tensor in weights.items() if name in own and own[name].shape == tensor.shape}
    learned = [name for name in fitting if not name.endswith("num_batches_tracked")]
    if not learned:
        raise CheckpointError(f"{path}: none of its {len(weights)} tensors fits this network; check MODEL.ENCODER")
    net.load_state_dict(fitting, strict=False)
    return len(fitting)


def digest(path: str | Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def state_digest(net: nn.Module) -> str:
    """SHA-256 of a network's names, types, shapes and values; where its tensors lie does not matter."""
    found = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _check_classes(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], path: str | Path) -> None:
    if CLASSIFIER not in own or CLASSIFIER not in weights:
        return
    want, got = own[CLASSIFIER].shape[0], weights[CLASSIFIER].shape[0]
    if want != got:
        raise CheckpointError(f"{path}: has {got} classes, the config has NUM_CLASSES: {want}")


def _named(what: str, names: list[str]) -> str:
    return f"{len(names)} {what}" + (f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else "")
