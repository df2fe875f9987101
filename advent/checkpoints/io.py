"""Checkpoint files: written atomically, and read without executing code in them."""

from __future__ import annotations

import hashlib
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from advent.errors import CheckpointError, first_line
from advent.utils.serialization import write_atomically

warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)  # names no file, and the file loads anyway


def save(path: str | Path, value: Any) -> Path:
    """Write a checkpoint atomically. Raises OSError, for example when the disk is full."""

    def write(handle: BinaryIO) -> None:
        try:
            torch.save(value, handle)
        except RuntimeError as error:  # PyTorch hides the file system's error behind its own
            cause = error.__context__
            while cause is not None and not isinstance(cause, OSError):
                cause = cause.__context__
            raise (cause or error) from None

    return write_atomically(path, write)


def save_safetensors(path: str | Path, weights: Mapping[str, Tensor]) -> Path:
    """Write a state dict as a safetensors file, atomically: the same names, dtypes, shapes and bits."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    content = safetensors.torch.save(tensors, {"format": "pt"})

    def write(handle: BinaryIO) -> None:
        handle.write(content)

    return write_atomically(path, write)


def is_safetensors(path: str | Path) -> bool:
    """Whether a file has a safetensors header: its length (8 bytes, within the file), then a JSON object."""
    with open(path, "rb") as handle:
        head = handle.read(9)
    return len(head) == 9 and head[8:] == b"{" and struct.unpack("<Q", head[:8])[0] <= Path(path).stat().st_size - 8


def read(path: str | Path) -> Any:
    """Load a checkpoint file (PyTorch's or safetensors) to the CPU: tensors and plain containers only.

    Raises CheckpointError naming the file if it is missing, damaged, or needs code to be loaded.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    _refuse_bomb(path)
    try:
        if is_safetensors(path):
            return safetensors.torch.load(path.read_bytes())
        return torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:  # newer versions of torch.load read such files by their suffix
        raise CheckpointError(f"{path}: not a readable safetensors file ({first_line(error)})") from None
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: refused, it holds more than tensors ({_unloaded(error)})") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, TypeError, MemoryError) as error:
        reason = first_line(error) if str(error).strip() else "empty"
        raise CheckpointError(f"{path}: not a readable PyTorch checkpoint ({reason})") from None


def _unloaded(error: pickle.UnpicklingError) -> str:
    """The object that PyTorch refused to load. The first line of its message advises executing the file instead."""
    lines = str(error).splitlines()
    reason = next((line for line in lines if "GLOBAL" in line or "error:" in line), lines[0] if lines else "")
    return first_line(reason.rpartition("WeightsUnpickler error:")[2])


def peek(path: str | Path) -> Any:
    """Memory-map a checkpoint that this project wrote: tensors are read from disk when they are used."""
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _refuse_bomb(path: Path) -> None:
    """Refuse a decompression bomb: PyTorch stores archive members uncompressed, so none exceeds the file's size."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError):
        return  # the older format or no checkpoint: torch.load reports which
    if unpacked > path.stat().st_size:
        raise CheckpointError(
            f"{path}: refused, {path.stat().st_size} bytes would unpack to {unpacked}; PyTorch's own files do not "
            "compress: save it again with torch.save"
        )


def digest(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def state_digest(net: nn.Module) -> str:
    """SHA-256 of a network's names, dtypes, shapes and values; device and memory layout do not matter."""
    sha256 = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha256.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return sha256.hexdigest()
