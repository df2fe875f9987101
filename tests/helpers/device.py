"""Device of the golden and the device tests: TEST_DEVICE of the environment, else the CPU."""

from __future__ import annotations

import os

import pytest
import torch

DEVICE = torch.device(os.environ.get("TEST_DEVICE", "cpu"))
needs_cuda = pytest.mark.skipif(DEVICE.type != "cuda", reason="needs a CUDA device")
