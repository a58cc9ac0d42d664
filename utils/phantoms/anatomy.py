"""What a phantom is drawn from: a chest of its own, and how it was placed and exposed."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from utils.phantoms.lettering import Lettering

_STREAMS = {"anatomy": 0, "disease": 1, "view": 2, "noise": 3, "site": 4}
TEXTURE_SIZE, TEXTURE_REACH = 256, 1.6


@dataclass(frozen=True)
class Anatomy:
    """A patient's build, in patient coordinates; sides are (right, left), image left first."""

    width: float
    wall: float
    apex: float
    apex_shape: float
    domes: tuple[float, float]
    dome_height: float
    heart_borders: np.ndarray
    """Distance of the silhouette from the midline: rows at `HEART_HEIGHTS`, (right, left)."""
    spine_bend: float
    spine_phase: float
    rib_drop: float
    rib_spacing: float
    rib_width: float
    bone: float
    vessels: float
    stomach: tuple[float, float, float, float]
    bowel: np.ndarray
    """(n, 3): center (u, v) and radius of loops with gas."""
    fatness: float
    vessel_points: np.ndarray
    texture: np.ndarray


@dataclass(frozen=True)
class View:
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
    # Of a site alone: how tightly it frames, the gray of air, its lead letters and its text.
    zoom: float = 1.0
    background: float = 0.0
    lead: tuple[Lettering, ...] = ()
    text: tuple[Lettering, ...] = ()


def stream(name: str, *numbers: int) -> Generator:
    """Return the random stream of one purpose, independent of all others."""
    return np.random.default_rng([_STREAMS[name], *numbers])


HEART_HEIGHTS = np.array([-1.3, -0.85, -0.6, -0.42, -0.22, 0.0, 0.2, 0.38, 0.55, 0.8])
"""Heights of the silhouette's control points, from the neck to below the diaphragm."""
_HEART_BORDERS = np.array([
    [0.17, 0.18, 0.18, 0.19, 0.22, 0.29, 0.33, 0.32, 0.27, 0.15],
    [0.17, 0.18, 0.22, 0.26, 0.26, 0.40, 0.55, 0.63, 0.62, 0.45],
]).T  # fmt: skip
"""Average silhouette: right, vena cava and atrium; left, aortic knob, waist and ventricle."""


def draw_anatomy(random: Generator) -> Anatomy:
    """Draw the chest of one patient."""
    dome = random.normal(0.5, 0.05)
    borders = _HEART_BORDERS * random.normal(1, 0.05, 2)
    heart = np.clip((HEART_HEIGHTS + 0.25) / 0.3, 0, 1)[:, None]
    borders = borders * (1 + heart * random.normal(-0.02, 0.08))
    vessels_above = np.exp(-(((HEART_HEIGHTS + 0.45) / 0.2) ** 2))[:, None]
    # In small children the thymus widens the upper mediastinum.
    borders = borders + vessels_above * np.clip(random.normal(0.02, 0.05, 2), -0.02, 0.14)
    return Anatomy(
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
        texture=noise_texture(random, 0.16),
    )  # fmt: skip


def draw_view(random: Generator) -> View:
    """Draw how one image was taken: position, exposure, markers and leads."""
    scale = random.normal(0.78, 0.045)
    arms_up = random.random() < 0.35
    angles = np.deg2rad(random.uniform(-75, -25, 2) if arms_up else random.uniform(25, 75, 2))
    low = random.uniform(0.06, 0.2)
    marker = random.uniform([-0.97, -0.75, 0.05], [-0.8, 0.0, 0.085])
    leads = random.uniform([-0.9, -0.7, -0.1], [0.9, 0.5, 0.1], (3, 3))
    edges = random.uniform(0, 0.12, 4) * (random.random(4) < 0.15)
    return View(
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


def noise_texture(random: Generator, scale: float) -> np.ndarray:
    """Draw smooth noise in patient coordinates: mean 0, deviation 1, blobs about `scale` wide."""
    steps = 2 * TEXTURE_REACH / scale
    knots = random.standard_normal((int(steps) + 4, int(steps) + 4))
    # Cubic B-splines between random knots: cheaper than filtering white noise.
    place = np.linspace(0, steps, TEXTURE_SIZE)
    first, t = place.astype(int), place % 1
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 1 + 3 * t * (1 + t - t**2), t**3)
    rows = sum(weight[:, None] * knots[first + k] for k, weight in enumerate(weights))
    smooth = sum(rows[:, first + k] * weight for k, weight in enumerate(weights))
    return smooth / smooth.std()


def _grow_vessels(random: Generator) -> np.ndarray:
    """Grow the vessels of both lungs from the hila outwards.

    Returns:
        Rows (u, v, caliber in [0, 1]).
    """
    trunks = 8
    side = np.repeat([-1.0, 1.0], trunks)
    u = side * random.uniform(0.2, 0.25, 2 * trunks)
    v = random.uniform(-0.16, 0.06, 2 * trunks)
    # Angles from the horizontal, downwards positive: a fan to apex, side and base.
    angle = np.tile(np.linspace(-1.35, 1.3, trunks), 2) + random.normal(0, 0.12, 2 * trunks)
    caliber = random.uniform(0.7, 1.0, 2 * trunks)
    rows = []
    for _ in range(4):
        bend = random.normal(0, 0.016, len(u))
        for _ in range(random.integers(16, 28)):
            u = u + side * 0.011 * np.cos(angle)
            v = v + 0.011 * np.sin(angle)
            angle = angle + bend + random.normal(0, 0.03, len(u))
            caliber = caliber * 0.988
            rows.append(np.column_stack([u, v, caliber]))
        spread = random.uniform(0.15, 0.5, (2, len(u)))
        u, v, side = np.tile(u, 2), np.tile(v, 2), np.tile(side, 2)
        angle = np.concatenate([angle - spread[0], angle + spread[1]])
        caliber = np.concatenate([caliber * 0.72, caliber * 0.6])
    return np.concatenate(rows)


def cage_half_width(v: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    """Return half the inner width of the rib cage at a height."""
    height = np.clip((0.6 - v) / (0.6 - anatomy.apex), 0, 1)
    return anatomy.width * np.clip(1 - height**anatomy.apex_shape, 0, None) ** 0.6
