"""Golden values: loading, weights filled by parameter name, comparison within a tolerance, on TEST_DEVICE."""

from __future__ import annotations

import json
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from torch import nn

from helpers.device import DEVICE

FOLDER = Path(__file__).parent
checked: list[float] = []  # relative error of every golden value compared in this run


def load(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text())


def fill(module: nn.Module, salt: str = "") -> nn.Module:
    """Fill a module's weights in float64 by parameter name, as golden/README defines; returns it on the device."""
    module.double().to(DEVICE)
    state = module.state_dict()
    for name, tensor in state.items():
        z = np.random.RandomState(crc32((salt + name).encode())).standard_normal(tuple(tensor.shape))
        shape = tensor.shape
        if name.endswith("num_batches_tracked"):
            value = np.zeros(tuple(shape))
        elif name.endswith("running_mean"):
            value = 0.1 * z
        elif name.endswith("running_var"):
            value = np.exp(0.1 * z)
        elif len(shape) == 4:
            value = z * np.sqrt(2 / (shape[1] * shape[2] * shape[3]))
        elif name.endswith("weight"):
            value = 1 + 0.1 * z
        else:
            value = 0.1 * z
        tensor.copy_(torch.as_tensor(value))
    return module


def close(got, want, scale: float = 0.0) -> None:
    """|got - want| <= 1e-6 * (|want| + scale) + 1e-12, elementwise; scale is the probe's std."""
    got = got.detach().cpu() if isinstance(got, torch.Tensor) else got
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    error = np.abs(got - want)
    allowed = 1e-6 * (np.abs(want) + scale) + 1e-12
    checked.extend((error / (np.abs(want) + scale + 1e-6)).reshape(-1).tolist())
    assert (error <= allowed).all(), f"off by {error.max()}, got {got}, want {want}"


def probe(got, want: dict) -> None:
    """Compare an array with its recorded mean, standard deviation, L1 norm, shape and values."""
    array = got.detach().cpu().numpy() if isinstance(got, torch.Tensor) else np.asarray(got)
    array = array.astype(np.float64)
    assert list(array.shape) == want["shape"]
    std = want["std"]
    close(array.mean(), want["mean"], std)
    close(array.std(), std, std)
    close(np.abs(array).sum(), want["l1"], std)
    close(array.reshape(-1)[want["at"]], want["values"], std)


def normal(seed: int, *shape: int, scale: float = 1.0) -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape) * scale).to(DEVICE)
