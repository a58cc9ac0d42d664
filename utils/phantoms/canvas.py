"""The canvas of a phantom: coordinates of the chest, and soft shapes that are drawn on it."""

from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from utils.common.constants import IMAGE_SIZE
from utils.phantoms.anatomy import TEXTURE_REACH, TEXTURE_SIZE, View

Shape = np.ndarray
"""(size, size) float64, one value a pixel. Double precision, because processors differ in the last
digits, and after rounding to 8 bits nothing is left of that."""


class Canvas:
    """Pixel grid of one image, its patient coordinates, and drawing of points."""

    def __init__(self, view: View, size: int) -> None:
        """Set up the grid; `view` maps the patient's coordinates to the image's."""
        self.size = size
        self.pixel = size / IMAGE_SIZE
        """Side of one pixel of a 224-pixel image, in pixels of this one."""
        cos, sin = np.cos(view.angle), np.sin(view.angle)
        self._matrix = view.zoom * (np.array([[cos, -sin], [sin, cos]]) @ np.diag(view.scale))
        self._shift = np.array(view.shift)
        self._zoom = view.zoom
        line = (np.arange(size) + 0.5) / size * 2 - 1
        self.x, self.y = np.meshgrid(line, line)
        inverse = np.linalg.inv(self._matrix)
        x, y = self.x - self._shift[0], self.y - self._shift[1]
        self.u = inverse[0, 0] * x + inverse[0, 1] * y
        self.v = inverse[1, 0] * x + inverse[1, 1] * y
        # Where each pixel looks into a texture, for bilinear interpolation.
        reach = (np.stack([self.v, self.u]) / TEXTURE_REACH + 1) / 2 * (TEXTURE_SIZE - 1)
        reach = np.clip(reach, 0, TEXTURE_SIZE - 1.001)
        corner = reach.astype(int)
        self._corner = corner[0] * TEXTURE_SIZE + corner[1]
        self._below, self._beside = reach - corner

    def place(self, u: Any, v: Any, weight: Any) -> np.ndarray:
        """Turn points of patient coordinates into (3, n) image coordinates and weights."""
        u, v, weight = (np.ravel(values) for values in np.broadcast_arrays(u, v, weight))
        points = self._matrix @ np.stack([u, v]) + self._shift[:, None]
        return np.concatenate([points, weight[None]])

    def draw(self, points: np.ndarray, blur: float) -> Shape:
        """Draw points as blobs of `blur` pixels (of 224).

        Args:
            points: (3, n): x and y in [-1, 1], and a weight, which is scaled so that lines and
                areas of points are as bright at every size and zoom.
            blur: Deviation of a blob.
        """
        side = self.size + 2
        column, row = np.clip((points[:2] + 1) / 2 * self.size + 0.5, 0, self.size + 0.999)
        left, top = column.astype(int), row.astype(int)
        right, bottom = column - left, row - top
        weight = points[2] * (self.pixel * self._zoom) ** 2
        flat = np.zeros(side * side + side + 2)
        for offset, share in (
            (0, (1 - right) * (1 - bottom)), (1, right * (1 - bottom)),
            (side, (1 - right) * bottom), (side + 1, right * bottom),
        ):  # fmt: skip
            flat += np.bincount(top * side + left + offset, weight * share, len(flat))
        drawn = flat[: side * side].reshape(side, side)[1:-1, 1:-1]
        return gaussian_filter(drawn, blur * self.pixel, truncate=3)

    def sample(self, texture: np.ndarray) -> Shape:
        """Look up a texture of patient coordinates."""
        flat, corner, beside = texture.ravel(), self._corner, self._beside
        upper = flat[corner] * (1 - beside) + flat[corner + 1] * beside
        corner = corner + TEXTURE_SIZE
        lower = flat[corner] * (1 - beside) + flat[corner + 1] * beside
        return upper + (lower - upper) * self._below


def rise(distance: Shape, width: float) -> Shape:
    """Go from 0 at `distance` <= 0 to 1 at `width`, smoothly."""
    t = np.clip(distance / width, 0, 1)
    return t * t * (3 - 2 * t)


def round_edge(distance: Shape, width: float) -> Shape:
    """Go from 0 to 1 like the depth of a body with a round edge."""
    t = np.clip(distance / width, 0, 1)
    return np.sqrt(t * (2 - t))


def ellipse(canvas: Canvas, center: tuple[float, float], radii: tuple[float, float],
             tilt: float = 0.0) -> Shape:  # fmt: skip
    """Return 1 - r**2 of an ellipse: 1 at its center, 0 on its border, negative outside."""
    u, v = canvas.u - center[0], canvas.v - center[1]
    cos, sin = np.cos(tilt), np.sin(tilt)
    a, b = (cos * u + sin * v) / radii[0], (cos * v - sin * u) / radii[1]
    return 1 - a * a - b * b


def capsule(canvas: Canvas, start: tuple[float, float], end: tuple[float, float],
             radius: float) -> Shape:  # fmt: skip
    """Return the depth, 0 to 1, of a round limb between two points."""
    direction = np.subtract(end, start)
    u, v = canvas.u - start[0], canvas.v - start[1]
    along = np.clip((u * direction[0] + v * direction[1]) / (direction @ direction), 0, 1)
    square = (u - along * direction[0]) ** 2 + (v - along * direction[1]) ** 2
    return np.sqrt(np.clip(1 - square / radius**2, 0, None))
