"""Chest phantoms: drawn radiographs of children who do not exist, with the opacity known.

A phantom is a map of X-ray attenuation: soft tissue, minus the air of the lungs, plus bone. A
consolidation or an interstitial pattern takes air away, so that it ends where the lung ends, hides
vessels and erases the border of the heart where it touches it. Exposure turns the map into a film.

Everything is drawn from explicit seeds. The anatomy depends on the patient alone; pose, exposure
and noise on patient and view; the disease on patient and etiology. Nothing but the disease depends
on the etiology, so brightness, sharpness or noise cannot give the class away.

Coordinates are the patient's: `u` grows toward the patient's left (the right of the image), `v`
downwards; the thorax is about 2 wide, from its apex at v = -1 to the diaphragm at v = 0.6.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter, uniform_filter

from utils.common.constants import ETIOLOGIES, IMAGE_SIZE
from utils.phantoms.anatomy import (
    HEART_HEIGHTS,
    Anatomy,
    View,
    cage_half_width,
    draw_anatomy,
    draw_view,
    noise_texture,
    stream,
)
from utils.phantoms.canvas import Canvas, Shape, capsule, ellipse, rise, round_edge
from utils.phantoms.lettering import draw_lettering
from utils.phantoms.sites import OPACITY_CONTRAST, take_at_site


@dataclass(frozen=True)
class Phantom:
    """One rendered radiograph and what is known of it."""

    image: np.ndarray
    """(size, size) uint8 in [0, 255]; the patient's left is on the right."""
    opacity_mask: np.ndarray
    """(size, size) bool: where the disease is; all False in a normal phantom."""
    lung_mask: np.ndarray
    """(size, size) bool: the lungs, as far as heart and diaphragm leave them in sight."""


def render_phantom(
    patient_seed: int,
    etiology: str,
    view: int = 0,
    size: int = IMAGE_SIZE,
    *,
    site: str | None = None,
) -> Phantom:
    """Render one radiograph; the same arguments always give the same pixels.

    Args:
        patient_seed: The patient, from 0; the anatomy is the same whatever etiology and view.
        etiology: `normal`, `bacteria` (consolidation of one or two lobes) or `virus` (reticular
            and patchy pattern in both lungs).
        view: Number of the image of this patient, from 0: other pose, exposure and noise.
        size: Side of the image in pixels.
        site: Where it is taken, a key of `sites.SITES`; the same child at two sites differs in the
            look of the film alone. Without a site, acquisition has habits of no room.

    Raises:
        ValueError: if etiology or site is unknown, or a number is negative or too small.
    """
    if etiology not in ETIOLOGIES:
        raise ValueError(f"unknown etiology {etiology!r}; choose one of {', '.join(ETIOLOGIES)}")
    if patient_seed < 0 or view < 0:
        raise ValueError(f"patient_seed and view start at 0, not {patient_seed} and {view}")
    if size < 32:
        raise ValueError(f"a phantom of {size} pixels shows nothing; take 32 or more")
    anatomy = draw_anatomy(stream("anatomy", patient_seed))
    taken = draw_view(stream("view", patient_seed, view))
    if site is not None:
        taken = take_at_site(taken, site, patient_seed, view)
    canvas = Canvas(taken, size)
    lung = _lungs(canvas, anatomy, taken)
    vessels, bronchi = _vessel_trees(canvas, anatomy)
    disease = stream("disease", patient_seed, ETIOLOGIES.index(etiology))
    healthy = np.zeros_like(lung)
    if etiology == "bacteria":
        lost_air, extent = _consolidation(disease, canvas, bronchi)
    elif etiology == "virus":
        lost_air, extent = _interstitial(disease, canvas, vessels)
    else:
        lost_air, extent = healthy, healthy
    if site is not None:
        lost_air = np.minimum(OPACITY_CONTRAST * lost_air, 0.95)
    tissue = _soft_tissue(canvas, anatomy, taken)
    bones = _bones(canvas, anatomy, taken)
    pattern = anatomy.vessels * vessels
    without_air = tissue + bones

    def attenuate(lost: Shape) -> Shape:
        # Vessels are seen against air: where it is gone, they are gone.
        return without_air - 0.8 * lung * (1 - lost) * (1 - np.minimum(pattern, 0.8))

    random = stream("noise", patient_seed, view)
    image = _expose(attenuate(lost_air), attenuate(healthy), canvas, taken, random)
    lung_mask = lung > 0.12
    return Phantom(image, opacity_mask=(extent > 0.35) & lung_mask, lung_mask=lung_mask)


def _soft_tissue(canvas: Canvas, anatomy: Anatomy, view: View) -> Shape:
    """Return the depth of the body without its air, about 1 at the trunk's center."""
    u, v = canvas.u, canvas.v
    half = np.maximum(cage_half_width(np.maximum(v, -0.55), anatomy), 0.5) + anatomy.wall
    half = half + 0.05 * rise(v - 0.5, 0.5)
    across = np.abs(u / half)
    across = np.sqrt(np.clip(1 - across * across * across, 0, None))
    trunk = across * rise(v + 1.28, 0.55)
    parts = [trunk * anatomy.fatness]
    neck = np.sqrt(np.clip(1 - (u / 0.36) ** 2, 0, None)) * rise(-0.6 - v, 0.4)
    parts.append(0.62 * neck)
    parts.append(0.85 * np.sqrt(np.clip(ellipse(canvas, (0, -1.75), (0.6, 0.5)), 0, None)))
    for side, angle in zip((-1, 1), view.arm_angles, strict=True):
        shoulder = (side * (0.98 + 0.5 * anatomy.wall), -0.86)
        reach = (side * np.cos(angle) * 1.6, np.sin(angle) * 1.6)
        hand = (shoulder[0] + reach[0], shoulder[1] + reach[1])
        parts.append(0.55 * capsule(canvas, (side * 0.2, -0.93), shoulder, 0.27))
        parts.append(0.5 * capsule(canvas, shoulder, hand, 0.22 + 0.3 * anatomy.wall))
    # Joins limbs to the trunk without a crease.
    depth = np.sqrt(np.sqrt(sum((part * part) ** 2 for part in parts)))
    domes = np.where(u < 0, *anatomy.domes) + view.breath
    below = rise(v - domes, 0.3)
    liver = 0.05 * below * rise(0.35 - u, 0.5)
    gas_u, gas_width, gas_height, gas_depth = anatomy.stomach
    gas_v = anatomy.domes[1] + view.breath + gas_height + 0.08
    gas = gas_depth * rise(ellipse(canvas, (gas_u, gas_v), (gas_width, gas_height)), 0.9)
    for bowel_u, bowel_v, radius in anatomy.bowel:
        loop = ellipse(canvas, (bowel_u, bowel_v), (radius * 1.4, radius))
        gas = np.maximum(gas, 0.2 * rise(loop, 0.9))
    trachea_u = 0.02 + view.turn * 0.5
    trachea = np.clip(1 - ((u - trachea_u) / 0.055) ** 2, 0, None) * rise(-0.22 - v, 0.2)
    muscle = 0.012 * canvas.sample(anatomy.texture) * np.minimum(depth, 0.8)
    return depth * (1 + 0.12 * below) + liver + muscle - gas * depth * below - 0.13 * trachea


def _lungs(canvas: Canvas, anatomy: Anatomy, view: View) -> Shape:
    """Return the depth of air in the lungs, up to about 0.7 of the trunk's depth."""
    u, v = canvas.u, canvas.v
    side = np.abs(u)
    cage = cage_half_width(v, anatomy)
    dome = np.where(u < 0, *anatomy.domes) + view.breath
    dome = dome + anatomy.dome_height * np.clip((side - 0.48) / 0.52, -1, 1.2) ** 2
    # Wide at the wall, where the chest is round, narrow on the dome, which the beam grazes.
    air = round_edge(cage - side, 0.32) * round_edge(side - 0.09, 0.1) * rise(dome - v, 0.04)
    recess = (
        0.13 * round_edge(cage - side, 0.2) * rise(side - 0.25, 0.2) * rise(dome + 0.22 - v, 0.2)
    )
    air = np.maximum(air, recess)
    # The heart lies in front: turning the patient shifts it against the spine.
    middle = u + view.turn
    heights = np.linspace(HEART_HEIGHTS[0], HEART_HEIGHTS[-1], 200)
    borders = PchipInterpolator(HEART_HEIGHTS, anatomy.heart_borders)(heights)
    right, left = (np.interp(v - 0.5 * view.breath, heights, border) for border in borders.T)
    inside = np.where(middle < 0, right, left) - np.abs(middle)
    cover = 0.88 * round_edge(inside, 0.2)
    hilum = np.exp(-(((side - 0.24) / 0.1) ** 2) - ((v + 0.08) / 0.17) ** 2)
    depth = 0.72 * (1 + 0.06 * canvas.sample(anatomy.texture))
    return depth * air * (1 - cover) * (1 - 0.22 * hilum)


def _vessel_trees(canvas: Canvas, anatomy: Anatomy) -> tuple[Shape, Shape]:
    """Return the share of the lung's depth that is vessel, and the same of its large bronchi."""
    u, v, caliber = anatomy.vessel_points.T
    thick = np.clip(caliber / 0.5 - 0.3, 0, 1)
    large = canvas.draw(canvas.place(u, v, 0.55 * thick), 1.7)
    fine = canvas.draw(canvas.place(u, v, 0.22 * np.sqrt(caliber)), 0.75)
    # A bronchus runs beside each artery, a little further in.
    bronchi = canvas.draw(canvas.place(u * 0.985, v + 0.02, 1.1 * thick), 0.8)
    return large + fine, bronchi


def _bones(canvas: Canvas, anatomy: Anatomy, view: View) -> Shape:
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


def _ribs(canvas: Canvas, anatomy: Anatomy, view: View) -> list[np.ndarray]:
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
        half = cage_half_width(np.clip(v, anatomy.apex + 0.06, 0.6), anatomy) + 0.02
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


def _spine(canvas: Canvas, anatomy: Anatomy, view: View) -> Shape:
    """Return the attenuation of the vertebral column: bodies, discs, pedicles, spines."""
    u = canvas.u - view.turn - anatomy.spine_bend * np.sin(2.2 * canvas.v + anatomy.spine_phase)
    near = np.abs(u) < 0.22
    u, v = u[near], canvas.v[near]
    spacing = 0.9 * anatomy.rib_spacing
    phase = (v / spacing + anatomy.spine_phase) % 1.0
    body_width = 0.1 + 0.02 * rise(v, 1.0) + 0.01 * np.cos(2 * np.pi * phase)
    body = round_edge(body_width - np.abs(u), 0.045) * (
        0.6 + 0.4 * rise(np.sin(np.pi * phase), 0.5)
    )
    height = (phase - 0.55) * spacing
    pedicles = np.exp(-(((np.abs(u) - 0.075) / 0.018) ** 2) - (height / 0.03) ** 2)
    spinous = np.exp(-((u / 0.016) ** 2) - ((height - 0.03) / 0.045) ** 2)
    transverse = np.exp(-(((height + 0.01) / 0.022) ** 2)) * rise(0.2 - np.abs(u), 0.06)
    drawn = np.zeros_like(canvas.u)
    drawn[near] = 0.14 * body + 0.06 * pedicles + 0.04 * spinous + 0.02 * transverse
    return drawn


_LOBES = {
    "right upper": (-0.40, -0.48, 0.40, 0.40),
    "right middle": (-0.38, 0.16, 0.34, 0.30),
    "right lower": (-0.58, 0.30, 0.42, 0.42),
    "left upper": (0.42, -0.42, 0.38, 0.48),
    "lingula": (0.55, 0.10, 0.32, 0.34),
    "left lower": (0.56, 0.34, 0.42, 0.40),
}
"""Center (u, v) and radii of what one lobe shows on a frontal film."""


def _consolidation(random: Generator, canvas: Canvas, bronchi: Shape) -> tuple[Shape, Shape]:
    """Fill part of one or two lobes; return the share of air lost, and the extent in [0, 1]."""
    count = 2 if random.random() < 0.35 else 1
    extent = np.zeros_like(canvas.u)
    for name in random.choice(list(_LOBES), count, replace=False):
        center_u, center_v, width, height = _LOBES[name]
        center = (center_u + random.normal(0, 0.06), center_v + random.normal(0, 0.06))
        grown = random.uniform(0.95, 1.35)
        blob = ellipse(canvas, center, (width * grown, height * grown), random.uniform(-0.7, 0.7))
        ragged = 0.25 * noise_texture(random, 0.2) + 0.1 * noise_texture(random, 0.08)
        blob = blob + canvas.sample(ragged)
        part = rise(blob, 0.8)
        if name.startswith("right") and name != "right lower":
            # The horizontal fissure, seen edge on, is a sharp border of upper and middle lobe.
            above = -0.14 + 0.12 * (canvas.u + 0.5) - canvas.v
            part = part * rise(above if name == "right upper" else -above, 0.05)
        extent = np.maximum(extent, part * (canvas.u * center_u > 0))
    patchy = 1 + 0.12 * canvas.sample(noise_texture(random, 0.09))
    density = random.uniform(0.6, 0.97)
    bronchogram = random.uniform(0.2, 0.9) * np.minimum(bronchi, 1) * 0.5
    lost = density * extent * np.clip(patchy, 0.4, 1.5) * (1 - bronchogram)
    return np.clip(lost, 0, 0.92), extent


def _interstitial(random: Generator, canvas: Canvas, vessels: Shape) -> tuple[Shape, Shape]:
    """Thicken the interstitium of both lungs; return as `_consolidation` does."""
    perihilar = np.exp(-(((np.abs(canvas.u) - 0.3) / 0.38) ** 2) - (canvas.v / 0.5) ** 2)
    central = random.uniform(0.2, 0.9)
    spread = 1.5 * central * perihilar + (1 - central)
    patches = rise(canvas.sample(noise_texture(random, 0.28)) + 1.6, 2.6)
    extent = np.clip(spread * patches * 1.6, 0, 1)
    # Lines where the noise changes sign: a net, as thickened septa show.
    coarse, fine = noise_texture(random, 0.075), noise_texture(random, 0.045)
    net = np.exp(-((coarse / 0.35) ** 2)) + np.exp(-((fine / 0.35) ** 2)) - 0.6
    net = canvas.sample(net + 0.15 * noise_texture(random, 0.06))
    strength = random.uniform(0.7, 1.3)
    haze = random.uniform(0.05, 0.2)
    lost = extent * strength * (haze + 0.2 * net + 0.3 * np.minimum(vessels, 1))
    return np.clip(lost, -0.15, 0.85), extent


def _expose(
    attenuation: Shape, healthy: Shape, canvas: Canvas, view: View, random: Generator
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
    # Bends over softly toward white, as film does.
    value = value**view.gamma
    value = value / np.sqrt(np.sqrt(1 + (value * value) ** 2))
    value = view.background + (1 - view.background) * value
    left, right, top_edge, bottom = view.collimation
    shutter = (
        (canvas.x > -1 + left) & (canvas.x < 1 - right)
        & (canvas.y > -1 + top_edge) & (canvas.y < 1 - bottom)
    )  # fmt: skip
    value = np.where(shutter, value, 0.02)
    if view.text:
        value = value + (1 - value) * draw_lettering(view.text, canvas.size)
    return np.rint(np.clip(255 * value, 0, 255)).astype(np.uint8)


def _draw_objects(canvas: Canvas, view: View) -> Shape:
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
        objects += 0.3 * rise(ellipse(canvas, (u, v), (0.045, 0.045)), 0.6)
    objects = np.minimum(objects, 0.9)
    if view.lead:
        # Lead lets nothing through.
        objects = objects + 1.5 * draw_lettering(view.lead, canvas.size)
    return objects
