"""Chest phantoms: drawn radiographs of children who do not exist, with the opacity known.

A phantom is a map of X-ray attenuation: soft tissue, minus the air of the lungs, plus bone. A
consolidation or an interstitial pattern takes air away, so that it ends where the lung ends, hides
vessels and erases the border of the heart where it touches it. Exposure turns the map into a film.

Everything is drawn from explicit seeds. The anatomy depends on the patient alone; pose, exposure
and noise on patient and view; the disease on patient and etiology. Nothing but the disease depends
on the etiology, so brightness, sharpness or noise cannot give the class away.

Coordinates are the patient's: `u` grows towards the patient's left (the right of the image), `v`
downwards; the thorax is about 2 wide, from its apex at v = -1 to the diaphragm at v = 0.6.
"""

import os
import shutil
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from PIL import Image
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter, uniform_filter

from utils.common.constants import CLASS_NAMES, ETIOLOGIES, IMAGE_SIZE, NORMAL, PNEUMONIA
from utils.common.files import read_json, write_json
from utils.common.progress import track

PHANTOM_VERSION = 1
"""Raise it when the same seed gives other pixels or names."""
DEFAULT_SEED = 21
DEFAULT_IMAGES = 240
SMALLEST_DATASET = 24

TEST_SHARE = 0.25
CLASS_SHARES = {"normal": 0.38, "bacteria": 0.345, "virus": 0.275}
"""Shares of images in every split: about 62 % pneumonia, bacterial to viral 5 to 4."""
IMAGES_PER_PATIENT = {1: 0.45, 2: 0.3, 3: 0.15, 4: 0.1}
JPEG_QUALITY = 95

_STREAMS = {"anatomy": 0, "disease": 1, "view": 2, "noise": 3}
_TEXTURE_SIZE, _TEXTURE_REACH = 256, 1.6

Shape = np.ndarray
"""(size, size) float64, one value a pixel. Double precision, because processors differ in the last
digits, and after rounding to 8 bits nothing is left of that."""


class PhantomError(ValueError):
    """A phantom data set that cannot be used or written; the message names the remedy."""


@dataclass(frozen=True)
class Phantom:
    """One rendered radiograph and what is known of it."""

    image: np.ndarray
    """(size, size) uint8 in [0, 255]; the patient's left is on the right."""
    opacity_mask: np.ndarray
    """(size, size) bool: where the disease is; all False in a normal phantom."""
    lung_mask: np.ndarray
    """(size, size) bool: the lungs, as far as heart and diaphragm leave them in sight."""
    etiology: str
    """`normal`, `bacteria` or `virus`."""
    patient_seed: int
    view: int


@dataclass(frozen=True)
class _Anatomy:
    """A patient's build, in patient coordinates; sides are (right, left), image left first."""

    width: float
    wall: float
    apex: float
    apex_shape: float
    domes: tuple[float, float]
    dome_height: float
    heart_borders: np.ndarray
    """Distance of the silhouette from the midline: rows at `_HEART_HEIGHTS`, (right, left)."""
    spine_bend: float
    spine_phase: float
    rib_drop: float
    rib_spacing: float
    rib_width: float
    bone: float
    vessels: float
    stomach: tuple[float, float, float, float]
    bowel: np.ndarray
    """(n, 3): centre (u, v) and radius of loops with gas."""
    fatness: float
    vessel_points: np.ndarray
    texture: np.ndarray


@dataclass(frozen=True)
class _View:
    """How one image was taken: pose, breath, arms, exposure, sharpness, things on the film."""

    scale: tuple[float, float]
    angle: float
    shift: tuple[float, float]
    turn: float
    breath: float
    arm_angles: tuple[float, float]
    window: tuple[float, float]
    gamma: float
    scatter: float
    sharpness: float
    blur: float
    noise: float
    marker: tuple[float, float, float] | None
    leads: np.ndarray
    collimation: tuple[float, float, float, float]


def render_phantom(
    patient_seed: int, etiology: str, view: int = 0, size: int = IMAGE_SIZE
) -> Phantom:
    """Render one radiograph; the same arguments always give the same pixels.

    Args:
        patient_seed: The patient, from 0; the anatomy is the same whatever etiology and view.
        etiology: `normal`, `bacteria` (consolidation of one or two lobes) or `virus` (reticular
            and patchy pattern in both lungs).
        view: Number of the image of this patient, from 0: other pose, exposure and noise.
        size: Side of the image in pixels.

    Raises:
        ValueError: if the etiology is unknown, or a number is negative or too small.
    """
    if etiology not in ETIOLOGIES:
        raise ValueError(f"unknown etiology {etiology!r}; choose one of {', '.join(ETIOLOGIES)}")
    if patient_seed < 0 or view < 0:
        raise ValueError(f"patient_seed and view start at 0, not {patient_seed} and {view}")
    if size < 32:
        raise ValueError(f"a phantom of {size} pixels shows nothing; take 32 or more")
    anatomy = _draw_anatomy(_stream("anatomy", patient_seed))
    taken = _draw_view(_stream("view", patient_seed, view))
    canvas = _Canvas(taken, size)
    lung = _lungs(canvas, anatomy, taken)
    vessels, bronchi = _vessel_trees(canvas, anatomy)
    disease = _stream("disease", patient_seed, ETIOLOGIES.index(etiology))
    healthy = np.zeros_like(lung)
    if etiology == "bacteria":
        lost_air, extent = _consolidation(disease, canvas, bronchi)
    elif etiology == "virus":
        lost_air, extent = _interstitial(disease, canvas, vessels)
    else:
        lost_air, extent = healthy, healthy
    tissue = _soft_tissue(canvas, anatomy, taken)
    bones = _bones(canvas, anatomy, taken)
    pattern = anatomy.vessels * vessels
    without_air = tissue + bones

    def attenuate(lost: Shape) -> Shape:
        # Vessels are seen against air: where it is gone, they are gone.
        return without_air - 0.8 * lung * (1 - lost) * (1 - np.minimum(pattern, 0.8))

    random = _stream("noise", patient_seed, view)
    image = _expose(attenuate(lost_air), attenuate(healthy), canvas, taken, random)
    lung_mask = lung > 0.12
    return Phantom(
        image=image,
        opacity_mask=(extent > 0.35) & lung_mask,
        lung_mask=lung_mask,
        etiology=etiology,
        patient_seed=patient_seed,
        view=view,
    )


def _stream(name: str, *numbers: int) -> Generator:
    """Return the random stream of one purpose, independent of all others."""
    return np.random.default_rng([_STREAMS[name], *numbers])


# Patient and view


_HEART_HEIGHTS = np.array([-1.3, -0.85, -0.6, -0.42, -0.22, 0.0, 0.2, 0.38, 0.55, 0.8])
"""Heights of the silhouette's control points, from the neck to below the diaphragm."""
_HEART_BORDERS = np.array([
    [0.17, 0.18, 0.18, 0.19, 0.22, 0.29, 0.33, 0.32, 0.27, 0.15],
    [0.17, 0.18, 0.22, 0.26, 0.26, 0.40, 0.55, 0.63, 0.62, 0.45],
]).T  # fmt: skip
"""Average silhouette: right, vena cava and atrium; left, aortic knob, waist and ventricle."""


def _draw_anatomy(random: Generator) -> _Anatomy:
    dome = random.normal(0.5, 0.05)
    borders = _HEART_BORDERS * random.normal(1, 0.05, 2)
    heart = np.clip((_HEART_HEIGHTS + 0.25) / 0.3, 0, 1)[:, None]
    borders = borders * (1 + heart * random.normal(-0.02, 0.08))
    vessels_above = np.exp(-(((_HEART_HEIGHTS + 0.45) / 0.2) ** 2))[:, None]
    # In small children the thymus widens the upper mediastinum.
    borders = borders + vessels_above * np.clip(random.normal(0.02, 0.05, 2), -0.02, 0.14)
    return _Anatomy(
        width=random.normal(1.0, 0.05),
        wall=random.uniform(0.08, 0.2),
        apex=random.normal(-1.0, 0.05),
        apex_shape=random.uniform(1.7, 2.3),
        # The right dome is the higher one, over the liver.
        domes=(dome, dome + random.uniform(-0.01, 0.1)),
        dome_height=random.uniform(0.2, 0.36),
        heart_borders=borders,
        spine_bend=random.normal(0, 0.02),
        spine_phase=random.uniform(),
        rib_drop=random.uniform(0.42, 0.68),
        rib_spacing=random.uniform(0.155, 0.19),
        rib_width=random.uniform(0.05, 0.07),
        bone=random.uniform(0.7, 1.1),
        vessels=random.uniform(0.5, 1.2),
        stomach=(
            random.uniform(0.3, 0.6), random.uniform(0.16, 0.3),
            random.uniform(0.1, 0.2), random.uniform(0.0, 0.35),
        ),
        bowel=random.uniform([-0.4, 1.0, 0.06], [0.8, 1.4, 0.16], (random.integers(4), 3)),
        fatness=random.uniform(0.9, 1.15),
        vessel_points=_grow_vessels(random),
        texture=_noise_texture(random, 0.16),
    )  # fmt: skip


def _draw_view(random: Generator) -> _View:
    scale = random.normal(0.78, 0.045)
    arms_up = random.random() < 0.35
    angles = np.deg2rad(random.uniform(-75, -25, 2) if arms_up else random.uniform(25, 75, 2))
    low = random.uniform(0.06, 0.2)
    marker = random.uniform([-0.97, -0.75, 0.05], [-0.8, 0.0, 0.085])
    leads = random.uniform([-0.9, -0.7, -0.1], [0.9, 0.5, 0.1], (3, 3))
    edges = random.uniform(0, 0.12, 4) * (random.random(4) < 0.15)
    return _View(
        scale=(scale * random.normal(1, 0.04), scale * random.normal(1.02, 0.04)),
        angle=np.deg2rad(random.normal(0, 2.2)),
        shift=(random.normal(0, 0.035), random.normal(0.06, 0.05)),
        turn=np.clip(random.normal(0, 0.035), -0.07, 0.07),
        breath=random.normal(0, 0.04),
        arm_angles=(angles[0], angles[1]),
        window=(low, random.uniform(0.95, 1.2)),
        gamma=random.uniform(0.65, 1.05),
        scatter=random.uniform(0.0, 0.35),
        sharpness=random.uniform(0.0, 0.8),
        blur=random.uniform(0.2, 0.8),
        noise=random.uniform(0.003, 0.01),
        marker=tuple(marker) if random.random() < 0.6 else None,
        leads=leads[: random.choice([0, 0, 0, 0, 0, 0, 1, 3])],
        collimation=tuple(edges),
    )


def _noise_texture(random: Generator, scale: float) -> np.ndarray:
    """Draw smooth noise in patient coordinates: mean 0, deviation 1, blobs about `scale` wide."""
    steps = 2 * _TEXTURE_REACH / scale
    knots = random.standard_normal((int(steps) + 4, int(steps) + 4))
    # Cubic B-splines between random knots: cheaper than filtering white noise.
    place = np.linspace(0, steps, _TEXTURE_SIZE)
    first, t = place.astype(int), place % 1
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 1 + 3 * t * (1 + t - t**2), t**3)
    rows = sum(weight[:, None] * knots[first + k] for k, weight in enumerate(weights))
    smooth = sum(rows[:, first + k] * weight for k, weight in enumerate(weights))
    return smooth / smooth.std()


def _grow_vessels(random: Generator) -> np.ndarray:
    """Grow the vessels of both lungs from the hila outwards.

    Returns:
        Rows (u, v, calibre in [0, 1]).
    """
    trunks = 8
    side = np.repeat([-1.0, 1.0], trunks)
    u = side * random.uniform(0.2, 0.25, 2 * trunks)
    v = random.uniform(-0.16, 0.06, 2 * trunks)
    # Angles from the horizontal, downwards positive: a fan to apex, side and base.
    angle = np.tile(np.linspace(-1.35, 1.3, trunks), 2) + random.normal(0, 0.12, 2 * trunks)
    calibre = random.uniform(0.7, 1.0, 2 * trunks)
    rows = []
    for _ in range(4):
        bend = random.normal(0, 0.016, len(u))
        for _ in range(random.integers(16, 28)):
            u = u + side * 0.011 * np.cos(angle)
            v = v + 0.011 * np.sin(angle)
            angle = angle + bend + random.normal(0, 0.03, len(u))
            calibre = calibre * 0.988
            rows.append(np.column_stack([u, v, calibre]))
        spread = random.uniform(0.15, 0.5, (2, len(u)))
        u, v, side = np.tile(u, 2), np.tile(v, 2), np.tile(side, 2)
        angle = np.concatenate([angle - spread[0], angle + spread[1]])
        calibre = np.concatenate([calibre * 0.72, calibre * 0.6])
    return np.concatenate(rows)


# Drawing


class _Canvas:
    """Pixel grid of one image, its patient coordinates, and drawing of points."""

    def __init__(self, view: _View, size: int) -> None:
        """Set up the grid; `view` maps the patient's coordinates to the image's."""
        self.size = size
        self.pixel = size / IMAGE_SIZE
        """Side of one pixel of a 224-pixel image, in pixels of this one."""
        cos, sin = np.cos(view.angle), np.sin(view.angle)
        self._matrix = np.array([[cos, -sin], [sin, cos]]) @ np.diag(view.scale)
        self._shift = np.array(view.shift)
        line = (np.arange(size) + 0.5) / size * 2 - 1
        self.x, self.y = np.meshgrid(line, line)
        inverse = np.linalg.inv(self._matrix)
        x, y = self.x - self._shift[0], self.y - self._shift[1]
        self.u = inverse[0, 0] * x + inverse[0, 1] * y
        self.v = inverse[1, 0] * x + inverse[1, 1] * y
        # Where each pixel looks into a texture, for bilinear interpolation.
        reach = (np.stack([self.v, self.u]) / _TEXTURE_REACH + 1) / 2 * (_TEXTURE_SIZE - 1)
        reach = np.clip(reach, 0, _TEXTURE_SIZE - 1.001)
        corner = reach.astype(int)
        self._corner = corner[0] * _TEXTURE_SIZE + corner[1]
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
                areas of points are as bright at every size.
            blur: Deviation of a blob.
        """
        side = self.size + 2
        column, row = np.clip((points[:2] + 1) / 2 * self.size + 0.5, 0, self.size + 0.999)
        left, top = column.astype(int), row.astype(int)
        right, bottom = column - left, row - top
        weight = points[2] * self.pixel**2
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
        corner = corner + _TEXTURE_SIZE
        lower = flat[corner] * (1 - beside) + flat[corner + 1] * beside
        return upper + (lower - upper) * self._below


def _rise(distance: Shape, width: float) -> Shape:
    """Go from 0 at `distance` <= 0 to 1 at `width`, smoothly."""
    t = np.clip(distance / width, 0, 1)
    return t * t * (3 - 2 * t)


def _round(distance: Shape, width: float) -> Shape:
    """Go from 0 to 1 like the depth of a body with a round edge."""
    t = np.clip(distance / width, 0, 1)
    return np.sqrt(t * (2 - t))


def _ellipse(canvas: _Canvas, centre: tuple[float, float], radii: tuple[float, float],
             tilt: float = 0.0) -> Shape:  # fmt: skip
    """Return 1 - r**2 of an ellipse: 1 at its centre, 0 on its border, negative outside."""
    u, v = canvas.u - centre[0], canvas.v - centre[1]
    cos, sin = np.cos(tilt), np.sin(tilt)
    a, b = (cos * u + sin * v) / radii[0], (cos * v - sin * u) / radii[1]
    return 1 - a * a - b * b


def _capsule(canvas: _Canvas, start: tuple[float, float], end: tuple[float, float],
             radius: float) -> Shape:  # fmt: skip
    """Return the depth, 0 to 1, of a round limb between two points."""
    direction = np.subtract(end, start)
    u, v = canvas.u - start[0], canvas.v - start[1]
    along = np.clip((u * direction[0] + v * direction[1]) / (direction @ direction), 0, 1)
    square = (u - along * direction[0]) ** 2 + (v - along * direction[1]) ** 2
    return np.sqrt(np.clip(1 - square / radius**2, 0, None))


# Tissue, lungs, bone


def _cage_half_width(v: np.ndarray, anatomy: _Anatomy) -> np.ndarray:
    """Return half the inner width of the rib cage at a height."""
    height = np.clip((0.6 - v) / (0.6 - anatomy.apex), 0, 1)
    return anatomy.width * np.clip(1 - height**anatomy.apex_shape, 0, None) ** 0.6


def _soft_tissue(canvas: _Canvas, anatomy: _Anatomy, view: _View) -> Shape:
    """Return the depth of the body without its air, about 1 at the trunk's centre."""
    u, v = canvas.u, canvas.v
    half = np.maximum(_cage_half_width(np.maximum(v, -0.55), anatomy), 0.5) + anatomy.wall
    half = half + 0.05 * _rise(v - 0.5, 0.5)
    across = np.abs(u / half)
    across = np.sqrt(np.clip(1 - across * across * across, 0, None))
    trunk = across * _rise(v + 1.28, 0.55)
    parts = [trunk * anatomy.fatness]
    neck = np.sqrt(np.clip(1 - (u / 0.36) ** 2, 0, None)) * _rise(-0.6 - v, 0.4)
    parts.append(0.62 * neck)
    parts.append(0.85 * np.sqrt(np.clip(_ellipse(canvas, (0, -1.75), (0.6, 0.5)), 0, None)))
    for side, angle in zip((-1, 1), view.arm_angles, strict=True):
        shoulder = (side * (0.98 + 0.5 * anatomy.wall), -0.86)
        reach = (side * np.cos(angle) * 1.6, np.sin(angle) * 1.6)
        hand = (shoulder[0] + reach[0], shoulder[1] + reach[1])
        parts.append(0.55 * _capsule(canvas, (side * 0.2, -0.93), shoulder, 0.27))
        parts.append(0.5 * _capsule(canvas, shoulder, hand, 0.22 + 0.3 * anatomy.wall))
    # Joins limbs to the trunk without a crease.
    depth = np.sqrt(np.sqrt(sum((part * part) ** 2 for part in parts)))
    domes = np.where(u < 0, *anatomy.domes) + view.breath
    below = _rise(v - domes, 0.3)
    liver = 0.05 * below * _rise(0.35 - u, 0.5)
    gas_u, gas_width, gas_height, gas_depth = anatomy.stomach
    gas_v = anatomy.domes[1] + view.breath + gas_height + 0.08
    gas = gas_depth * _rise(_ellipse(canvas, (gas_u, gas_v), (gas_width, gas_height)), 0.9)
    for bowel_u, bowel_v, radius in anatomy.bowel:
        loop = _ellipse(canvas, (bowel_u, bowel_v), (radius * 1.4, radius))
        gas = np.maximum(gas, 0.2 * _rise(loop, 0.9))
    trachea_u = 0.02 + view.turn * 0.5
    trachea = np.clip(1 - ((u - trachea_u) / 0.055) ** 2, 0, None) * _rise(-0.22 - v, 0.2)
    muscle = 0.012 * canvas.sample(anatomy.texture) * np.minimum(depth, 0.8)
    return depth * (1 + 0.12 * below) + liver + muscle - gas * depth * below - 0.13 * trachea


def _lungs(canvas: _Canvas, anatomy: _Anatomy, view: _View) -> Shape:
    """Return the depth of air in the lungs, up to about 0.7 of the trunk's depth."""
    u, v = canvas.u, canvas.v
    side = np.abs(u)
    cage = _cage_half_width(v, anatomy)
    dome = np.where(u < 0, *anatomy.domes) + view.breath
    dome = dome + anatomy.dome_height * np.clip((side - 0.48) / 0.52, -1, 1.2) ** 2
    # Wide at the wall, where the chest is round, narrow on the dome, which the beam grazes.
    air = _round(cage - side, 0.32) * _round(side - 0.09, 0.1) * _rise(dome - v, 0.04)
    recess = 0.13 * _round(cage - side, 0.2) * _rise(side - 0.25, 0.2) * _rise(dome + 0.22 - v, 0.2)
    air = np.maximum(air, recess)
    # The heart lies in front: turning the patient shifts it against the spine.
    middle = u + view.turn
    heights = np.linspace(_HEART_HEIGHTS[0], _HEART_HEIGHTS[-1], 200)
    borders = PchipInterpolator(_HEART_HEIGHTS, anatomy.heart_borders)(heights)
    right, left = (np.interp(v - 0.5 * view.breath, heights, border) for border in borders.T)
    inside = np.where(middle < 0, right, left) - np.abs(middle)
    cover = 0.88 * _round(inside, 0.2)
    hilum = np.exp(-(((side - 0.24) / 0.1) ** 2) - ((v + 0.08) / 0.17) ** 2)
    depth = 0.72 * (1 + 0.06 * canvas.sample(anatomy.texture))
    return depth * air * (1 - cover) * (1 - 0.22 * hilum)


def _vessel_trees(canvas: _Canvas, anatomy: _Anatomy) -> tuple[Shape, Shape]:
    """Return the share of the lung's depth that is vessel, and the same of its large bronchi."""
    u, v, calibre = anatomy.vessel_points.T
    thick = np.clip(calibre / 0.5 - 0.3, 0, 1)
    large = canvas.draw(canvas.place(u, v, 0.55 * thick), 1.7)
    fine = canvas.draw(canvas.place(u, v, 0.22 * np.sqrt(calibre)), 0.75)
    # A bronchus runs beside each artery, a little further in.
    bronchi = canvas.draw(canvas.place(u * 0.985, v + 0.02, 1.1 * thick), 0.8)
    return large + fine, bronchi


def _bones(canvas: _Canvas, anatomy: _Anatomy, view: _View) -> Shape:
    """Return the attenuation of spine, ribs, clavicles, scapulae and upper arms."""
    points = _ribs(canvas, anatomy, view)
    t = np.linspace(0, 1, 260)[:, None]
    across = np.linspace(-1, 1, 9)[None, :]
    # Bone is a tube: the beam meets most of it at the edges.
    cortex = 0.35 + np.abs(across) ** 3
    for side, angle in zip((-1, 1), view.arm_angles, strict=True):
        lift, out = (0.1, 0.1) if angle < 0 else (0.0, 0.0)
        u = side * (0.09 + 0.88 * t) - view.turn * (1 - t)
        v = -0.74 - (0.2 + lift) * t + 0.05 * np.sin(2 * np.pi * t + 0.3)
        points.append(canvas.place(u, v + 0.03 * across, 0.05 * cortex))
        # Of the scapula, its lateral border and its spine.
        u = side * (1.0 + out - 0.14 * t)
        points.append(canvas.place(u + 0.015 * across, -0.75 + 0.7 * t, 0.013 * cortex))
        u, v = side * (0.62 + out + 0.4 * t), -0.62 - 0.22 * t
        points.append(canvas.place(u, v + 0.02 * across, 0.016 * cortex))
        shaft = (0.052 + 0.05 * np.exp(-t / 0.07)) * across
        u = side * (1.02 + 0.5 * anatomy.wall + np.cos(angle) * 1.6 * t - np.sin(angle) * shaft)
        v = -0.86 + np.sin(angle) * 1.6 * t + np.cos(angle) * shaft
        points.append(canvas.place(u, v, 0.09 * cortex))
    drawn = canvas.draw(np.concatenate(points, axis=1), 0.75)
    return anatomy.bone * (drawn + _spine(canvas, anatomy, view))


def _ribs(canvas: _Canvas, anatomy: _Anatomy, view: _View) -> list[np.ndarray]:
    """Return the points of twelve pairs of ribs, bent tubes around the chest.

    Points are even along the rib in space; where it turns around the side they fall together on
    the film, and it shines there as a real rib does.
    """
    # From the spine (0) around the side (pi / 2) to the front, where cartilage is not seen.
    angle = np.linspace(0.1, 2.45, 260)[:, None]
    across = np.linspace(-1, 1, 8)[None, :]
    ribs = []
    for number in range(12):
        start = anatomy.apex + 0.1 + anatomy.rib_spacing * number
        drop = anatomy.rib_drop * (0.55 + 0.45 * min(number / 4, 1))
        v = start - 0.05 * np.sin(angle * 2) + drop * (1 - np.cos(angle)) / 2
        half = _cage_half_width(np.clip(v, anatomy.apex + 0.06, 0.6), anatomy) + 0.02
        v = v + view.breath * 0.4 * (1 - np.cos(angle))
        width = anatomy.rib_width * (0.8 + 0.2 * np.sin(angle)) * (0.8 if number > 9 else 1)
        # The front ends are thinner and further from the film; the lowest ribs have none.
        end = 1.7 if number > 8 else 2.45
        weight = np.clip((end - angle) / 0.35, 0, 1) * np.where(angle > np.pi / 2, 0.55, 1)
        height = min(0.55 + 0.2 * number, 1) if number < 9 else 0.6
        weight = 0.1 * height * weight * (0.45 + 0.9 * across**4)
        for side in (-1, 1):
            u = side * np.sin(angle) * half + view.turn * np.cos(angle)
            ribs.append(canvas.place(u, v + 0.5 * width * across, weight))
    return ribs


def _spine(canvas: _Canvas, anatomy: _Anatomy, view: _View) -> Shape:
    """Return the attenuation of the vertebral column: bodies, discs, pedicles, spines."""
    u = canvas.u - view.turn - anatomy.spine_bend * np.sin(2.2 * canvas.v + anatomy.spine_phase)
    near = np.abs(u) < 0.22
    u, v = u[near], canvas.v[near]
    spacing = 0.9 * anatomy.rib_spacing
    phase = (v / spacing + anatomy.spine_phase) % 1.0
    body_width = 0.1 + 0.02 * _rise(v, 1.0) + 0.01 * np.cos(2 * np.pi * phase)
    body = _round(body_width - np.abs(u), 0.045) * (0.6 + 0.4 * _rise(np.sin(np.pi * phase), 0.5))
    height = (phase - 0.55) * spacing
    pedicles = np.exp(-(((np.abs(u) - 0.075) / 0.018) ** 2) - (height / 0.03) ** 2)
    spinous = np.exp(-((u / 0.016) ** 2) - ((height - 0.03) / 0.045) ** 2)
    transverse = np.exp(-(((height + 0.01) / 0.022) ** 2)) * _rise(0.2 - np.abs(u), 0.06)
    drawn = np.zeros_like(canvas.u)
    drawn[near] = 0.14 * body + 0.06 * pedicles + 0.04 * spinous + 0.02 * transverse
    return drawn


# Disease


_LOBES = {
    "right upper": (-0.40, -0.48, 0.40, 0.40),
    "right middle": (-0.38, 0.16, 0.34, 0.30),
    "right lower": (-0.58, 0.30, 0.42, 0.42),
    "left upper": (0.42, -0.42, 0.38, 0.48),
    "lingula": (0.55, 0.10, 0.32, 0.34),
    "left lower": (0.56, 0.34, 0.42, 0.40),
}
"""Centre (u, v) and radii of what one lobe shows on a frontal film."""


def _consolidation(random: Generator, canvas: _Canvas, bronchi: Shape) -> tuple[Shape, Shape]:
    """Fill part of one or two lobes; return the share of air lost, and the extent in [0, 1]."""
    count = 2 if random.random() < 0.35 else 1
    extent = np.zeros_like(canvas.u)
    for name in random.choice(list(_LOBES), count, replace=False):
        centre_u, centre_v, width, height = _LOBES[name]
        centre = (centre_u + random.normal(0, 0.06), centre_v + random.normal(0, 0.06))
        grown = random.uniform(0.95, 1.35)
        blob = _ellipse(canvas, centre, (width * grown, height * grown), random.uniform(-0.7, 0.7))
        ragged = 0.25 * _noise_texture(random, 0.2) + 0.1 * _noise_texture(random, 0.08)
        blob = blob + canvas.sample(ragged)
        part = _rise(blob, 0.8)
        if name.startswith("right") and name != "right lower":
            # The horizontal fissure, seen edge on, is a sharp border of upper and middle lobe.
            above = -0.14 + 0.12 * (canvas.u + 0.5) - canvas.v
            part = part * _rise(above if name == "right upper" else -above, 0.05)
        extent = np.maximum(extent, part * (canvas.u * centre_u > 0))
    patchy = 1 + 0.12 * canvas.sample(_noise_texture(random, 0.09))
    density = random.uniform(0.6, 0.97)
    bronchogram = random.uniform(0.2, 0.9) * np.minimum(bronchi, 1) * 0.5
    lost = density * extent * np.clip(patchy, 0.4, 1.5) * (1 - bronchogram)
    return np.clip(lost, 0, 0.92), extent


def _interstitial(random: Generator, canvas: _Canvas, vessels: Shape) -> tuple[Shape, Shape]:
    """Thicken the interstitium of both lungs; return as `_consolidation` does."""
    perihilar = np.exp(-(((np.abs(canvas.u) - 0.3) / 0.38) ** 2) - (canvas.v / 0.5) ** 2)
    central = random.uniform(0.2, 0.9)
    spread = 1.5 * central * perihilar + (1 - central)
    patches = _rise(canvas.sample(_noise_texture(random, 0.28)) + 1.6, 2.6)
    extent = np.clip(spread * patches * 1.6, 0, 1)
    # Lines where the noise changes sign: a net, as thickened septa show.
    coarse, fine = _noise_texture(random, 0.075), _noise_texture(random, 0.045)
    net = np.exp(-((coarse / 0.35) ** 2)) + np.exp(-((fine / 0.35) ** 2)) - 0.6
    net = canvas.sample(net + 0.15 * _noise_texture(random, 0.06))
    strength = random.uniform(0.7, 1.3)
    haze = random.uniform(0.05, 0.2)
    lost = extent * strength * (haze + 0.2 * net + 0.3 * np.minimum(vessels, 1))
    return np.clip(lost, -0.15, 0.85), extent


# Exposure


def _expose(
    attenuation: Shape, healthy: Shape, canvas: _Canvas, view: _View, random: Generator
) -> np.ndarray:
    """Turn attenuation into a film: scatter, blur, noise, edge enhancement, window, 8 bits.

    The window is set on the healthy map, so that the disease does not change the rest of the film.
    """
    unit = canvas.pixel
    film = attenuation + _draw_objects(canvas, view)
    # Two moving averages are near enough to the wide bell of scattered light.
    halo = int(28 * unit) + 1
    glow = uniform_filter(uniform_filter(film, halo), halo)
    film = (1 - view.scatter) * film + view.scatter * glow
    film = gaussian_filter(film, view.blur * unit, truncate=3)
    # Few photons pass where much is absorbed: noise grows with attenuation.
    noise = random.standard_normal(film.shape) * view.noise * np.exp(0.9 * film)
    film = film + gaussian_filter(noise, 0.45 * unit, truncate=3)
    film = film + view.sharpness * (film - gaussian_filter(film, 3 * unit, truncate=3))
    low, high = view.window
    top = np.percentile(healthy, 97)
    value = np.clip((film / top - low) / (high * 0.93 - low), 0, None)
    # Bends over softly towards white, as film does.
    value = value**view.gamma
    value = value / np.sqrt(np.sqrt(1 + (value * value) ** 2))
    left, right, top_edge, bottom = view.collimation
    shutter = (
        (canvas.x > -1 + left) & (canvas.x < 1 - right)
        & (canvas.y > -1 + top_edge) & (canvas.y < 1 - bottom)
    )  # fmt: skip
    value = np.where(shutter, value, 0.02)
    return np.rint(np.clip(255 * value, 0, 255)).astype(np.uint8)


def _draw_objects(canvas: _Canvas, view: _View) -> Shape:
    """Draw what lies on the film: the side marker R, electrodes with their wires."""
    objects = np.zeros_like(canvas.u)
    if view.marker is not None:
        x, y, height = view.marker
        t = np.linspace(0, 1, 60)
        bow = np.pi * (t - 0.5)
        letter_x = np.concatenate([0 * t, 0.25 + 0.3 * np.cos(bow), 0.25 * t, 0.25 * t,
                                   0.2 + 0.38 * t])  # fmt: skip
        letter_y = np.concatenate([2 * t - 1, -0.5 + 0.5 * np.sin(bow), 0 * t - 1, 0 * t, t])
        weight = np.full(letter_x.shape, 12.0 * height)
        letter = np.stack([x + height * letter_x, y + height * letter_y, weight])
        objects += canvas.draw(letter, 0.6)
    for u, v, bend in view.leads:
        t = np.linspace(0, 1, 400)
        wire_u, wire_v = u + bend * np.sin(3 * t) + 0.3 * np.sign(u) * t**2, v + (1.3 - v) * t
        objects += canvas.draw(canvas.place(wire_u, wire_v, 0.12), 0.6)
        objects += 0.3 * _rise(_ellipse(canvas, (u, v), (0.045, 0.045)), 0.6)
    return np.minimum(objects, 0.9)


# Data set


@dataclass(frozen=True)
class PlannedImage:
    """One image of a phantom data set, before it is rendered."""

    split: str
    stem: str
    """File name without its suffix, in the convention of the Kaggle data set."""
    etiology: str
    patient_seed: int
    view: int

    @property
    def image_id(self) -> str:
        """Path below the root of the data set."""
        label = NORMAL if self.etiology == "normal" else PNEUMONIA
        return f"{self.split}/{CLASS_NAMES[label]}/{self.stem}.jpeg"


def plan_phantom_dataset(
    n_images: int = DEFAULT_IMAGES, seed: int = DEFAULT_SEED
) -> list[PlannedImage]:
    """Plan a data set: who is imaged how often, in which split, under which name.

    Patients have one to four images. Numbers of test patients lie below those of train patients.
    In train, one child has bacterial and viral images, and one patient of each class has an image
    stored twice under two names (if any has several).

    Args:
        n_images: Number of images, at least 24.
        seed: Seed of everything.
    """
    if n_images < SMALLEST_DATASET:
        raise ValueError(f"n_images must be at least {SMALLEST_DATASET}, not {n_images}")
    random = np.random.default_rng([seed, n_images])
    test_images = round(n_images * TEST_SHARE)
    first_number = 1
    plan: list[PlannedImage] = []
    for split, count in (("test", test_images), ("train", n_images - test_images)):
        patients = _plan_patients(random, count)
        plan += _name_images(split, patients, first_number, random)
        first_number = (first_number + len(patients) + 99) // 100 * 100 + 1
    return plan


def _plan_patients(random: Generator, n_images: int) -> list[tuple[str, int]]:
    """Return (etiology, number of images) of the patients of one split, in random order."""
    counts = {etiology: round(n_images * share) for etiology, share in CLASS_SHARES.items()}
    counts["normal"] += n_images - sum(counts.values())
    patients = []
    for etiology, left in counts.items():
        while left:
            wanted = random.choice(list(IMAGES_PER_PATIENT), p=list(IMAGES_PER_PATIENT.values()))
            patients.append((etiology, min(int(wanted), left)))
            left -= patients[-1][1]
    return [patients[place] for place in random.permutation(len(patients))]


def _name_images(
    split: str, patients: list[tuple[str, int]], first_number: int, random: Generator
) -> list[PlannedImage]:
    """Give patients their numbers and seeds, and images their names."""
    numbers = list(range(first_number, first_number + len(patients)))
    seeds = [int(value) for value in random.integers(2**31, size=len(patients))]
    views = [list(range(images)) for _, images in patients]
    if split == "train":
        _add_oddities([etiology for etiology, _ in patients], numbers, seeds, views)
    plan: list[PlannedImage] = []
    for (etiology, _), number, seed, own in zip(patients, numbers, seeds, views, strict=True):
        for place, view in enumerate(own):
            if etiology == "normal":
                family = "IM" if number % 2 else "NORMAL2-IM"
                stem = f"{family}-{number:04}-0001" + (f"-{place + 1:04}" if place else "")
            else:
                stem = f"person{number}_{etiology}_{first_number + len(plan)}"
            plan.append(PlannedImage(split, stem, etiology, seed, view))
    return plan


def _add_oddities(
    etiologies: list[str], numbers: list[int], seeds: list[int], views: list[list[int]]
) -> None:
    """Give the patients, in place, the quirks of the real data that an audit should find."""
    # One child under one number, with bacterial pneumonia and, on other films, viral.
    bacterial, viral = etiologies.index("bacteria"), etiologies.index("virus")
    numbers[viral], seeds[viral] = numbers[bacterial], seeds[bacterial]
    views[viral] = [view + max(IMAGES_PER_PATIENT) for view in views[viral]]
    # One patient a class whose last image is the first once more, where one has several.
    for normal in (True, False):
        for etiology, own in zip(etiologies, views, strict=True):
            if (etiology == "normal") == normal and len(own) > 1:
                own[-1] = own[0]
                break


def write_phantom_dataset(
    root: Path, n_images: int = DEFAULT_IMAGES, seed: int = DEFAULT_SEED
) -> Path:
    """Write a phantom data set in the layout of the Kaggle one, unless it is there already.

    `<root>/{train,test}/{NORMAL,PNEUMONIA}/*.jpeg` are gray JPEGs of 224 x 224 pixels,
    `<root>/masks/<same stem>.png` the masks, and `<root>/source.json` says what they are. All is
    rendered into a folder beside `root` and renamed, so that `root` is whole or absent, also where
    several processes do this at once.

    Args:
        root: Folder of the data set.
        n_images: Number of images, at least 24.
        seed: Seed of everything.

    Returns:
        `root`.

    Raises:
        PhantomError: if `root` holds something else; it is left as it is.
    """
    root = Path(root)
    plan = plan_phantom_dataset(n_images, seed)
    source = {
        "source": "phantoms", "seed": seed, "n_images": n_images, "version": PHANTOM_VERSION,
    }  # fmt: skip
    if _is_complete(root, source, plan):
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    unfinished = root.with_name(f".{root.name}-{uuid.uuid4().hex[:8]}")
    try:
        with ThreadPoolExecutor() as pool:
            written = pool.map(partial(_write_image, unfinished), plan)
            for _ in track(written, "rendering phantoms", len(plan)):
                pass
        write_json(unfinished / "source.json", source)
        try:
            os.replace(unfinished, root)
        except OSError:
            # Another process was faster; what it wrote must be the same.
            if not _is_complete(root, source, plan):
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return root


def _is_complete(root: Path, source: dict[str, Any], plan: list[PlannedImage]) -> bool:
    """Tell whether the data set is there (True) or has yet to be made (False).

    Raises:
        PhantomError: if something else is there.
    """
    remedy = f"delete the folder {root} and it will be rendered anew"
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    record = root / "source.json"
    if not record.is_file():
        raise PhantomError(f"{root} holds files but no source.json, so no whole phantoms; {remedy}")
    found = read_json(record)
    if found != source:
        raise PhantomError(f"{root} holds {found}, but {source} is asked for; {remedy}")
    files = [root / image.image_id for image in plan]
    files += [_mask_file(root, image.image_id) for image in plan]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise PhantomError(f"{root} lacks {len(missing)} files, first {missing[0].name}; {remedy}")
    return True


def _write_image(root: Path, planned: PlannedImage) -> None:
    phantom = render_phantom(planned.patient_seed, planned.etiology, planned.view)
    image_file, mask_file = root / planned.image_id, _mask_file(root, planned.image_id)
    for file in (image_file, mask_file):
        file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(phantom.image).save(image_file, format="JPEG", quality=JPEG_QUALITY)
    Image.fromarray(phantom.opacity_mask.astype(np.uint8) * 255).save(mask_file)


def _mask_file(root: Path, image_id: str) -> Path:
    return root / "masks" / f"{Path(image_id).stem}.png"


def load_opacity_mask(root: Path, image_id: str) -> np.ndarray:
    """Read where the disease of one phantom is, as (224, 224) bool; all False where healthy.

    Args:
        root: Root of a phantom data set.
        image_id: Path of the image below `root`, such as `train/NORMAL/IM-0115-0001.jpeg`.

    Raises:
        PhantomError: if there is no mask of that name: only phantoms have one.
    """
    file = _mask_file(Path(root), image_id)
    if not file.is_file():
        raise PhantomError(
            f"{file} is not there: only phantoms have known opacities; check that {root} holds "
            f"phantoms and that {image_id!r} is one of them"
        )
    with Image.open(file) as mask:
        return np.asarray(mask.convert("L")) > 127


def load_opacity_masks(root: Path, image_ids: Sequence[str]) -> np.ndarray:
    """Read the opacities of several phantoms, (n, 224, 224) bool, in the order of `image_ids`."""
    return np.stack([load_opacity_mask(root, image_id) for image_id in image_ids])
