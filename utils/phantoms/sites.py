"""Two sites at which a phantom can be taken, each with its habits of acquisition.

A child can be rendered at both: build, pose, breath, electrodes and opacity are the same, and what
a room makes of them is another. What a film's acquisition is like is drawn anew for every film,
within the habits of its site, from a random stream that knows patient, film and site, but not the
etiology. So it tells of a disease only as far as the sites' shares of the classes do.

`docs/phantoms.md` says what the sites are for, and by which criteria they were made.
"""

from dataclasses import dataclass, replace

from numpy.random import Generator

from utils.common.constants import NORMAL, PNEUMONIA
from utils.phantoms.anatomy import View, stream
from utils.phantoms.lettering import Lettering

Range = tuple[float, float]
"""Lowest and highest value; that of a film is drawn evenly between them."""

OPACITY_CONTRAST = 1.5
"""Factor on the air that a disease takes away, at both sites alike."""


@dataclass(frozen=True)
class Site:
    """The habits of one site. Lengths and places are shares of the image's side."""

    zoom: Range
    """Size of the chest, over its usual one."""
    shift: Range
    """How far the chest lies below its usual place."""
    collimated: float
    """Share of the edges that are black."""
    edge: Range
    """Width of a black edge."""
    face: str
    """Font of the marker R, that is, its shape."""
    marked: float
    """Share of the films with a marker."""
    marker_height: Range
    marker_left: Range
    marker_top: Range
    narrowing: Range
    """Width of the marker over that of its face."""
    tilt: Range
    """Of the marker, in degrees."""
    annotated: float
    """Share of the films with burnt-in text."""
    texts: tuple[tuple[str, float, float, float], ...]
    """Lines of that text: left, top, and height over `text_height`; `{}` is the tube's voltage."""
    text_height: Range
    background: Range
    """Gray where nothing absorbs, 0 black to 1 white."""
    window_low: Range
    window_high: Range
    """Attenuation, over the body's, that is shown black and white."""
    gamma: Range
    """Exponent of the contrast curve: low values make the lungs gray."""
    scatter: Range
    sharpness: Range
    """Strength of the edge enhancement."""
    blur: Range
    """In pixels of 224."""
    noise: Range
    """Standard deviation where nothing absorbs."""


SITES = {
    # A room with a stand: the whole chest with shoulders and belly, steep contrast, fine detail.
    "A": Site(
        zoom=(0.86, 1.0), shift=(-0.02, 0.03), collimated=0.1, edge=(0.0, 0.05),
        face="DejaVuSans", marked=0.95, marker_height=(0.035, 0.05),
        marker_left=(0.01, 0.07), marker_top=(0.15, 0.65), narrowing=(0.85, 1.0), tilt=(-2, 2),
        annotated=0.15, texts=(("DR 2", 0.9, 0.95, 1.0),), text_height=(0.02, 0.028),
        background=(0.0, 0.03), window_low=(0.06, 0.16), window_high=(0.9, 1.05),
        gamma=(0.75, 1.0), scatter=(0.0, 0.15), sharpness=(0.5, 1.2), blur=(0.2, 0.5),
        noise=(0.003, 0.007),
    ),
    # A mobile unit at the bedside: the lungs fill the film, which is gray, soft and annotated.
    "B": Site(
        zoom=(1.02, 1.18), shift=(-0.05, 0.01), collimated=0.05, edge=(0.0, 0.03),
        face="STIXGeneral", marked=0.9, marker_height=(0.07, 0.11),
        marker_left=(0.01, 0.08), marker_top=(0.07, 0.14), narrowing=(0.6, 0.85), tilt=(-8, 8),
        annotated=0.7,
        texts=(("A-P", 0.02, 0.01, 1.0), ("{} KV", 0.86, 0.02, 0.5), ("2.0 MAS", 0.86, 0.06, 0.5)),
        text_height=(0.04, 0.055),
        background=(0.06, 0.16), window_low=(0.06, 0.18), window_high=(1.15, 1.4),
        gamma=(0.9, 1.25), scatter=(0.1, 0.3), sharpness=(0.0, 0.4), blur=(0.5, 0.95),
        noise=(0.006, 0.012),
    ),
}  # fmt: skip
"""Both sites by their names. What is changed here is another renderer: see `docs/phantoms.md`."""

SITE_OF_CLASS = {NORMAL: "A", PNEUMONIA: "B"}
"""Where most images of a class are taken, if sites go with classes."""


def take_at_site(view: View, site: str, patient_seed: int, number: int) -> View:
    """Return how a film is taken at a site: the view's pose, breath and electrodes, another look.

    Args:
        view: From `draw_view`.
        site: A key of `SITES`.
        patient_seed: The patient, from 0.
        number: Of the film, from 0.

    Raises:
        ValueError: if the site is unknown.
    """
    if site not in SITES:
        raise ValueError(f"unknown site {site!r}; choose one of {', '.join(SITES)}")
    habits = SITES[site]
    random = stream("site", patient_seed, number, list(SITES).index(site))
    zoom = random.uniform(*habits.zoom)
    x, y = view.shift
    edges = random.uniform(*habits.edge, 4) * 2 * (random.random(4) < habits.collimated)
    return replace(
        view,
        zoom=zoom,
        shift=(zoom * x, zoom * y + 2 * random.uniform(*habits.shift)),
        collimation=tuple(edges),
        marker=None,
        lead=_draw_marker(habits, random),
        text=_draw_text(habits, random),
        background=random.uniform(*habits.background),
        window=(random.uniform(*habits.window_low), random.uniform(*habits.window_high)),
        gamma=random.uniform(*habits.gamma),
        scatter=random.uniform(*habits.scatter),
        sharpness=random.uniform(*habits.sharpness),
        blur=random.uniform(*habits.blur),
        noise=random.uniform(*habits.noise),
    )


def _draw_marker(habits: Site, random: Generator) -> tuple[Lettering, ...]:
    marker = Lettering(
        "R",
        habits.face,
        left=random.uniform(*habits.marker_left),
        top=random.uniform(*habits.marker_top),
        height=random.uniform(*habits.marker_height),
        narrowing=random.uniform(*habits.narrowing),
        tilt=random.uniform(*habits.tilt),
    )
    return (marker,) if random.random() < habits.marked else ()


def _draw_text(habits: Site, random: Generator) -> tuple[Lettering, ...]:
    height, voltage = random.uniform(*habits.text_height), random.integers(52, 70)
    lines = tuple(
        Lettering(text.format(voltage), habits.face, left, top, share * height, 0.8, tilt=0)
        for text, left, top, share in habits.texts
    )
    return lines if random.random() < habits.annotated else ()
