"""Pictures of streets: rendered from a random generator, and written as SYNTHIA, Cityscapes or Mapillary Vistas."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from advent.utils.serialization import write_atomically
from streets.canvas import Camera, Canvas
from streets.photo import cast_shadows, develop, make_look, paint_sky
from streets.scene import Street, make_camera

SMALL = 320_000  # pictures with fewer pixels are drawn at twice their size and averaged
BASELINE = 0.22  # metres
# SYNTHIA id -> id of the layout.
CITYSCAPES = {
    1: 23,
    2: 11,
    3: 7,
    4: 8,
    5: 13,
    6: 21,
    7: 17,
    8: 26,
    9: 20,
    10: 24,
    11: 33,
    12: 32,
    15: 19,
    17: 25,
    19: 28,
    21: 12,
    22: 7,
}
MAPILLARY = {
    1: 27,
    2: 17,
    3: 13,
    4: 15,
    5: 3,
    6: 30,
    7: 45,
    8: 55,
    9: 50,
    10: 19,
    11: 52,
    12: 57,
    15: 48,
    17: 20,
    19: 54,
    21: 6,
    22: 24,
}
CITIES = ("ahornstadt", "birkenau", "cedernburg", "dornfeld")


@dataclass(frozen=True)
class Picture:
    """image [h, w, 3] RGB uint8; label [h, w] SYNTHIA ids; depth [h, w] metres along the axis (inf = sky); camera."""

    image: np.ndarray
    label: np.ndarray
    depth: np.ndarray
    camera: Camera


def render(rng: np.random.Generator, width: int, height: int, style: str = "synthia") -> Picture:
    """Draw one random street."""
    factor = 2 if width * height <= SMALL else 1
    look = make_look(rng, style)
    camera = make_camera(rng, width * factor, height * factor)
    canvas = Canvas(camera, look.sun, look.ambient, look.diffuse)
    paint_sky(canvas, look, rng)
    street = Street(rng, canvas, look)
    street.draw()
    cast_shadows(canvas, look, [street.rows[-1], street.rows[1]], rng)
    image = develop(canvas, look, rng, (width, height))
    inverse, label = canvas.inverse[::factor, ::factor], canvas.label[::factor, ::factor]
    with np.errstate(divide="ignore"):
        depth = np.where(inverse > 0, 1 / inverse, np.inf)
    return Picture(image, label, depth, camera.every(factor, width, height))


def paths(layout: str, out: Path, index: int, val: bool) -> dict[str, Path]:
    """The files of one picture: image, label, and depth and camera if the layout has them."""
    if layout == "synthia":
        name = f"{index:07d}.png"
        return {"image": out / "RGB" / name, "depth": out / "Depth" / name, "label": out / "parsed_LABELS" / name}
    if layout == "mapillary":
        split, name = ("validation" if val else "training"), f"street_{index:06d}"
        return {"image": out / split / "images" / f"{name}.jpg", "label": out / split / "labels" / f"{name}.png"}
    split, city = ("val", "eschenheim") if val else ("train", CITIES[index % len(CITIES)])
    stem = f"{city}_{index:06d}_000019"

    def place(folder: str, tail: str) -> Path:
        return out / folder / split / city / f"{stem}_{tail}"

    return {
        "image": place("leftImg8bit", "leftImg8bit.png"),
        "label": place("gtFine", "gtFine_labelIds.png"),
        "depth": place("disparity", "disparity.png"),
        "camera": place("camera", "camera.json"),
    }


def _encode(suffix: str, array: np.ndarray) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, 92] if suffix == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 4]
    success, data = cv2.imencode(suffix, array, options)
    assert success
    return data.tobytes()


def _remap(label: np.ndarray, table: dict[int, int]) -> np.ndarray:
    lookup = np.arange(256, dtype=np.uint8)
    for key, value in table.items():
        lookup[key] = value
    return lookup[label]


def write_picture(layout: str, files: dict[str, Path], picture: Picture) -> None:
    """Write the files of one picture; the image is written last, so its presence means that all files exist."""
    fx = picture.camera.focal
    parts: dict[str, bytes] = {}
    if layout == "synthia":
        parts["label"] = _encode(".png", picture.label)
        depth = np.where(np.isfinite(picture.depth), np.clip(np.round(picture.depth * 100), 1, 65534), 65535)
        parts["depth"] = _encode(".png", depth.astype(np.uint16))
    elif layout == "cityscapes":
        parts["label"] = _encode(".png", _remap(picture.label, CITYSCAPES))
        code = np.where(np.isfinite(picture.depth), np.round(BASELINE * fx / picture.depth * 256) + 1, 0)
        parts["depth"] = _encode(".png", np.clip(code, 0, 65535).astype(np.uint16))
        u0, v0 = picture.camera.center
        angles = {"pitch": picture.camera.pitch, "yaw": picture.camera.yaw, "roll": 0.0}
        pose = {"baseline": BASELINE, **angles, "x": 0.0, "y": 0.0, "z": picture.camera.height}
        meta = {"extrinsic": pose, "intrinsic": {"fx": fx, "fy": fx, "u0": u0, "v0": v0}}
        parts["camera"] = (json.dumps(meta, indent=2) + "\n").encode()
    else:
        parts["label"] = _encode(".png", _remap(picture.label, MAPILLARY))
    parts["image"] = _encode(files["image"].suffix, np.ascontiguousarray(picture.image[..., ::-1]))
    for key, data in parts.items():
        write_atomically(files[key], lambda handle, data=data: handle.write(data))  # type: ignore[misc]
