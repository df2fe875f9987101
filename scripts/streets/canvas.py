"""A pinhole camera and a canvas that draws filled planar polygons with exact depth and labels.

World: x to the right, y up, z forward, in metres; the camera is at (cx, height, 0).
On a plane the inverse depth is linear in pixel coordinates, so the depth of each pixel is exact, not interpolated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

NEAR = 0.3  # metres; near clipping plane
SKY, BUILDING, ROAD, SIDEWALK, FENCE, VEGETATION, POLE, CAR, SIGN = 1, 2, 3, 4, 5, 6, 7, 8, 9
PERSON, BICYCLE, MOTORCYCLE, LIGHT, RIDER, BUS, WALL, LANE = 10, 11, 12, 15, 17, 19, 21, 22

# A paint takes plane coordinates (s, t) and depth z, each [N], and returns colour [N, 3], labels [N] or None, and
# its cover [N] (bool, or opacity 0..1; a pixel of cover 0 is unchanged) or None.
Painted = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]
Paint = Callable[[np.ndarray, np.ndarray, np.ndarray], Painted]


@dataclass(frozen=True)
class Camera:
    """Pinhole camera; focal length and centre in pixels, angles in radians (pitch > 0 looks down)."""

    width: int
    height_px: int
    focal: float
    height: float
    x: float = 0.0
    pitch: float = 0.0
    yaw: float = 0.0
    principal: tuple[float, float] | None = None  # None: the middle of the picture

    @property
    def center(self) -> tuple[float, float]:
        """Principal point in pixels."""
        return self.principal or ((self.width - 1) / 2, (self.height_px - 1) / 2)

    def every(self, step: int, width: int, height_px: int) -> Camera:
        """The camera of this image subsampled by `step`."""
        u0, v0 = self.center
        principal = (u0 / step, v0 / step)
        return replace(self, width=width, height_px=height_px, focal=self.focal / step, principal=principal)

    @property
    def rotation(self) -> np.ndarray:
        """World to camera rotation [3, 3]; camera axes are right, up, forward."""
        cp, sp, cy, sy = np.cos(self.pitch), np.sin(self.pitch), np.cos(self.yaw), np.sin(self.yaw)
        turn = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
        tilt = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
        return tilt @ turn

    @property
    def position(self) -> np.ndarray:
        """Camera position in the world [3]."""
        return np.array([self.x, self.height, 0.0])


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross product of two 3-vectors; NumPy's takes ten times as long for them, a tenth of a scene's time."""
    (ax, ay, az), (bx, by, bz) = a.tolist(), b.tolist()
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


def clip_near(points: np.ndarray) -> np.ndarray:
    """Cut a camera-space polygon [N, 3] at the near plane."""
    if (points[:, 2] >= NEAR).all():
        return points
    kept: list[np.ndarray] = []
    for a, b in zip(points, np.roll(points, -1, axis=0), strict=True):
        if a[2] >= NEAR:
            kept.append(a)
        if (a[2] >= NEAR) != (b[2] >= NEAR):
            kept.append(a + (b - a) * (NEAR - a[2]) / (b[2] - a[2]))
    return np.array(kept).reshape(-1, 3)


class Canvas:
    """Colour [H, W, 3] (0..255 float), inverse depth [H, W] (1/m, 0 = sky) and SYNTHIA labels [H, W]."""

    def __init__(self, camera: Camera, sun: np.ndarray, ambient: float, diffuse: float) -> None:
        self.camera, self.sun, self.ambient, self.diffuse = camera, sun, ambient, diffuse
        shape = (camera.height_px, camera.width)
        self.color = np.zeros((*shape, 3), np.float32)
        self.inverse = np.zeros(shape, np.float32)
        self.label = np.full(shape, SKY, np.uint8)
        self._rotation, self._position = camera.rotation, camera.position

    def rays(self) -> np.ndarray:
        """World directions of all pixels [H, W, 3], with depth (not length) one."""
        u0, v0 = self.camera.center
        v, u = np.mgrid[: self.camera.height_px, : self.camera.width].astype(np.float32)
        rays = np.stack([(u - u0) / self.camera.focal, (v0 - v) / self.camera.focal, np.ones_like(u)], -1)
        return rays @ self._rotation.astype(np.float32)

    def shade(self, normal: np.ndarray) -> float:
        """Brightness factor of a face with this world normal (turned to the camera)."""
        return self.ambient * (0.85 + 0.15 * normal[1]) + self.diffuse * max(float(normal @ self.sun), 0.0)

    def poly(
        self,
        points: Sequence[Sequence[float] | np.ndarray] | np.ndarray,
        paint: Paint | Sequence[float] | np.ndarray,
        label: int | None,
        *,
        overlay: bool = False,
        alpha: float = 1.0,
        lit: bool = True,
    ) -> None:
        """Draw a planar world polygon [N, 3].

        The plane coordinates of a paint start at the first point, s toward the second point and t toward the last.
        `overlay` draws onto a surface in the same plane; label None keeps the existing labels.
        """
        world = np.asarray(points, np.float64)
        cam = (world - self._position) @ self._rotation.T
        normal = cross(cam[1] - cam[0], cam[-1] - cam[0])
        distance = float(normal @ cam[0])
        clipped = clip_near(cam)
        if len(clipped) < 3 or abs(distance) < 1e-9:
            return
        u0, v0 = self.camera.center
        focal = self.camera.focal
        uv = np.stack([u0 + focal * clipped[:, 0] / clipped[:, 2], v0 - focal * clipped[:, 1] / clipped[:, 2]], 1)
        low, high = np.floor(uv.min(0)), np.ceil(uv.max(0)) + 1
        x0, y0 = max(int(low[0]), 0), max(int(low[1]), 0)
        x1, y1 = min(int(high[0]), self.camera.width), min(int(high[1]), self.camera.height_px)
        if x1 <= x0 or y1 <= y0:
            return
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillPoly(mask, [np.round((uv - (x0, y0)) * 16).astype(np.int32)], 1, shift=4)
        rows, columns = np.nonzero(mask)
        rows += y0
        columns += x0
        ray_x, ray_y = (columns - u0) / focal, (v0 - rows) / focal
        inverse = (normal[0] * ray_x + normal[1] * ray_y + normal[2]) / distance
        slack = 0.996 if overlay else 1.00001
        visible = (inverse > self.inverse[rows, columns] * slack) & (inverse > 1e-6)
        if not visible.any():
            return
        rows, columns, inverse = rows[visible], columns[visible], inverse[visible]
        factor = 1.0
        if lit:
            face = cross(world[1] - world[0], world[-1] - world[0])
            face /= np.linalg.norm(face) + 1e-12
            factor = self.shade(face if face @ (self._position - world[0]) > 0 else -face)
        labels: np.ndarray | int | None = label
        if callable(paint):
            z = 1 / inverse
            hit = np.stack([ray_x[visible] * z, ray_y[visible] * z, z], 1) - cam[0]
            along = cam[1] - cam[0]
            along /= np.linalg.norm(along)
            up = cam[-1] - cam[0]
            up -= (up @ along) * along
            up /= np.linalg.norm(up)
            color, painted, cover = paint(hit @ along, hit @ up, z)
            color = color * factor
            if painted is not None:
                labels = painted
            if cover is not None:
                keep = cover > 0
                rows, columns, inverse, color = rows[keep], columns[keep], inverse[keep], color[keep]
                labels = labels[keep] if isinstance(labels, np.ndarray) else labels
                if cover.dtype != bool:
                    part = cover[keep, None]
                    color = part * color + (1 - part) * self.color[rows, columns]
        else:
            color = np.asarray(paint, np.float32) * factor
        if alpha < 1:
            color = alpha * color + (1 - alpha) * self.color[rows, columns]
        self.color[rows, columns] = color
        if labels is not None:
            self.label[rows, columns] = labels
        if not overlay:
            self.inverse[rows, columns] = inverse

    def box(self, low: Sequence[float], high: Sequence[float], paint: Paint | Sequence[float], label: int) -> None:
        """An upright box along the axes, between two corners; only the faces visible from the street."""
        (ax, ay, az), (bx, by, bz) = low, high
        self.poly([(ax, ay, az), (bx, ay, az), (bx, by, az), (ax, by, az)], paint, label)
        side = ax if self.camera.x < (ax + bx) / 2 else bx
        self.poly([(side, ay, az), (side, ay, bz), (side, by, bz), (side, by, az)], paint, label)
        top = by if self.camera.height > by else ay
        self.poly([(ax, top, az), (bx, top, az), (bx, top, bz), (ax, top, bz)], paint, label)
