"""Checkpoint files: written whole or not at all, read without executing anything that they carry."""

from __future__ import annotations

import hashlib
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn

from advent.errors import CheckpointError, first_line
from advent.utils.serialization import write_atomically

warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)  # names no file, and loads all the same


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
        raise CheckpointError(f"{path}: refused, it holds more than tensors ({_unloaded(error)})") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, TypeError, MemoryError) as error:
        reason = first_line(error) if str(error).strip() else "empty"
        raise CheckpointError(f"{path}: not a readable PyTorch checkpoint ({reason})") from None


def _unloaded(error: pickle.UnpicklingError) -> str:
    """What PyTorch refused to load. The first line of its text advises to execute the file instead."""
    lines = str(error).splitlines()
    reason = next((line for line in lines if "GLOBAL" in line or "error:" in line), lines[0] if lines else "")
    return first_line(reason.rpartition("WeightsUnpickler error:")[2])


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
