"""Render one scene from a random generator: image, labels, depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streets.canvas import Camera, Canvas
from streets.photo import cast_shadows, develop, make_look, paint_sky
from streets.scene import Street, make_camera

SMALL = 320_000  # pictures with fewer pixels are drawn at twice their size and averaged


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
