"""Depth file formats -> inverse depth, 65536 / (centimetres + 1), the target of the depth head: large is near."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from advent.dataset.depth_formats import DepthKind, register_depth
from advent.dataset.image_io import read_16bit, read_values
from advent.dataset.spec import UNITS_CM, DepthFormat
from advent.errors import DataError
from daf.dataset.depth_units import UNCLEAR, guess_depth

INVERSE_SCALE = 65536.0
CM_PER_M = 100.0
EVERY_16BIT = np.arange(2**16, dtype=np.uint16)
FARTHEST = np.finfo(np.float32).tiny  # inverse of a known infinite depth; 0 means unknown


def inverse_depth(depth_cm: np.ndarray) -> np.ndarray:
    """65536 / (depth + 1), the depth target of DADA: (H, W) centimetres -> float32, large is near."""
    return (INVERSE_SCALE / (depth_cm.astype(np.float64) + 1.0)).astype(np.float32)


def to_centimetres(inverse: np.ndarray) -> np.ndarray:
    """Inverse of `inverse_depth`, as stored by SYNTHIA: (H, W) inverse depth -> uint16 centimetres, at most 65535.

    Rounded to the next centimetre. Values that no distance has, zero and below, become the farthest one.
    """
    return np.clip(np.rint(INVERSE_SCALE / np.maximum(inverse.astype(np.float64), 1.0) - 1.0), 0, 65535).astype(
        np.uint16
    )


def disparity_to_metres(disparity: np.ndarray, baseline_m: float, fx_px: float) -> np.ndarray:
    """Cityscapes' 16-bit disparity p -> (H, W) float64 depth in metres, baseline * fx / ((p - 1) / 256).

    NaN where depth is unknown: p = 0 is invalid, and p = 1 is a disparity of 0.
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
    """Depth ground truth of one Cityscapes image: (H, W) float64 metres at the file's size, NaN where unknown."""
    return disparity_to_metres(read_16bit(disparity_file, "a disparity map"), *read_camera(camera_file))


def _depth_map(file: Path) -> np.ndarray:
    return read_16bit(file, "a depth map")


def _synthia(depth: DepthFormat, file: Path, camera_file: Path | None) -> np.ndarray:
    return inverse_depth(_depth_map(file))


def _disparity(depth: DepthFormat, file: Path, camera_file: Path | None) -> np.ndarray:
    if camera_file is None:
        raise DataError(f"{file}: disparity needs a camera file; give its spec a 'camera' pattern")
    metres = read_depth_metres(file, camera_file)
    return np.nan_to_num(inverse_depth(metres * CM_PER_M), nan=0.0)  # 0 = unknown: no finite depth has inverse 0


def _distance(depth: DepthFormat, file: Path, camera_file: Path | None) -> np.ndarray:
    return _of_distances(depth, _values(file), file)


def _of_distances(depth: DepthFormat, stored: np.ndarray, file: Path) -> np.ndarray:
    values, known = _known(depth, stored, file)
    return _with_gaps(values * (depth.scale * UNITS_CM[depth.unit]), known)


def _inverse(depth: DepthFormat, file: Path, camera_file: Path | None) -> np.ndarray:
    return _of_inverses(depth, _values(file), file)


def _of_inverses(depth: DepthFormat, stored: np.ndarray, file: Path) -> np.ndarray:
    values, known = _known(depth, stored, file)
    with np.errstate(divide="ignore"):
        return _with_gaps(UNITS_CM[depth.unit] / (values * depth.scale), known)


def _values(file: Path) -> np.ndarray:
    return read_values(file, "a depth map")


def _known(depth: DepthFormat, stored: np.ndarray, file: Path) -> tuple[np.ndarray, np.ndarray]:
    """(values float64, known bool) of a depth file. Raises DataError on NaN or negative values unless unknown."""
    values = stored.astype(np.float64)
    unknown = np.isin(values, [value for value in depth.unknown if not np.isnan(value)])
    if any(np.isnan(value) for value in depth.unknown):
        unknown |= np.isnan(values)
    for label, wrong, word in (("NaN", np.isnan(values), ".nan"), ("negative", values < 0, "the value")):
        count = int((wrong & ~unknown).sum())
        if count:
            raise DataError(
                f"{file}: {count} of {values.size} depths are {label}; if that marks pixels without depth, add to "
                f"the spec: depth: {{kind: {depth.kind}, unknown: [{word}]}}"
            )
    return values, ~unknown


def _with_gaps(depth_cm: np.ndarray, known: np.ndarray) -> np.ndarray:
    return np.where(known, np.maximum(inverse_depth(depth_cm), FARTHEST), np.float32(0))


def _far_is_large(depth: DepthFormat, samples: list[np.ndarray]) -> tuple[str, bool]:
    """Guessed meaning of `synthia_cm` or `distance` samples after `scale`, and whether it agrees with the spec."""
    meaning, unit = guess_depth([values * depth.scale for values in samples])
    metres = [values * (depth.scale * UNITS_CM[depth.unit] / CM_PER_M) for values in samples]
    consistent = guess_depth(metres) == ("a distance", "m")
    return f"{meaning} in {unit}" if unit else meaning, consistent or meaning == UNCLEAR


def _near_is_large(depth: DepthFormat, samples: list[np.ndarray]) -> tuple[str, bool]:
    """Guessed meaning of `disparity` or `inverse` samples, and whether it is consistent with the spec."""
    meaning, unit = guess_depth(samples)
    return f"{meaning} in {unit}" if unit else meaning, meaning in ("an inverse depth", UNCLEAR)


def _table(of: Callable[[DepthFormat, np.ndarray, Path], np.ndarray]) -> Callable[[DepthFormat], np.ndarray]:
    return lambda depth: of(depth, EVERY_16BIT, Path("every value of 16 bits"))


def register_depth_formats() -> None:
    """Make the readers of depth files available to specs."""
    centimetres = _table(lambda _, cm, __: inverse_depth(cm))
    register_depth("synthia_cm", DepthKind(_synthia, _depth_map, _far_is_large, centimetres))
    register_depth("disparity", DepthKind(_disparity, _depth_map, _near_is_large))
    register_depth("distance", DepthKind(_distance, _values, _far_is_large, _table(_of_distances)))
    register_depth("inverse", DepthKind(_inverse, _values, _near_is_large, _table(_of_inverses)))
