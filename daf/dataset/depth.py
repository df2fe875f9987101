"""What a depth value means. The target of the depth head is inverse depth, 65536 / (centimetres + 1): large is near."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from advent.dataset.depth_kinds import register_depth
from advent.dataset.reading import read_16bit
from advent.errors import DataError

INVERSE_SCALE = 65536.0
CM_PER_M = 100.0


def inverse_depth(depth_cm: np.ndarray) -> np.ndarray:
    """65536 / (depth + 1), the depth target of DADA: (H, W) centimetres -> float32, large is near."""
    return (INVERSE_SCALE / (depth_cm.astype(np.float64) + 1.0)).astype(np.float32)


def disparity_to_metres(disparity: np.ndarray, baseline_m: float, fx_px: float) -> np.ndarray:
    """Cityscapes' 16-bit disparity p -> (H, W) float64 depth in metres, baseline * fx / ((p - 1) / 256).

    NaN where there is no depth: p = 0 is invalid, and p = 1 is a disparity of 0.
    """
    pixels = (disparity.astype(np.float64) - 1.0) / 256.0
    return np.where(pixels > 0, baseline_m * fx_px / np.where(pixels > 0, pixels, 1.0), np.nan)


def read_camera(path: Path) -> tuple[float, float]:
    """Baseline in metres and focal length fx in pixels of a Cityscapes camera file. Raises DataError naming it."""
    try:
        camera = json.loads(path.read_text(encoding="utf-8"))
        baseline_m, fx_px = float(camera["extrinsic"]["baseline"]), float(camera["intrinsic"]["fx"])
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path}: not a Cityscapes camera file; it needs extrinsic.baseline and intrinsic.fx") from None
    if not (baseline_m > 0 and fx_px > 0):
        raise DataError(f"{path}: baseline {baseline_m} and fx {fx_px} must be positive")
    return baseline_m, fx_px


def read_depth_metres(disparity_file: Path, camera_file: Path) -> np.ndarray:
    """Ground truth of one Cityscapes image: (H, W) float64 metres at the file's size, NaN where there is none."""
    return disparity_to_metres(read_16bit(disparity_file, "a disparity map"), *read_camera(camera_file))


def _synthia(depth_file: Path, camera_file: Path | None) -> np.ndarray:
    return inverse_depth(read_16bit(depth_file, "a depth map"))


def _disparity(disparity_file: Path, camera_file: Path | None) -> np.ndarray:
    if camera_file is None:
        raise DataError(f"{disparity_file}: disparity needs a camera file; give its spec a 'camera' pattern")
    metres = read_depth_metres(disparity_file, camera_file)
    return np.nan_to_num(inverse_depth(metres * CM_PER_M), nan=0.0)  # 0 = unknown: no depth has inverse 0


register_depth("synthia_cm", _synthia)
register_depth("disparity", _disparity)
