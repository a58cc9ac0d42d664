"""Pictures that are no chest radiographs, on which the guard is measured.

They come with packages of the study, or are drawn from a seed. None of them sets a limit of the
guard or trains it.
"""

from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy.ndimage import gaussian_filter

from utils.common.constants import IMAGE_SIZE
from utils.data.images import load_image, resize_image

NUMBER = 40
"""Pictures of each kind that is drawn."""
_PHOTOGRAPHS = {
    "skimage": (
        "data/astronaut.png", "data/brick.png", "data/camera.png", "data/cell.png",
        "data/chelsea.png", "data/clock_motion.png", "data/coffee.png", "data/coins.png",
        "data/color.png", "data/grass.png", "data/gravel.png", "data/horse.png",
        "data/hubble_deep_field.jpg", "data/ihc.png", "data/logo.png", "data/moon.png",
        "data/motorcycle_left.png", "data/page.png", "data/retina.jpg", "data/rocket.jpg",
        "data/text.png",
    ),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
    "matplotlib": ("mpl-data/sample_data/grace_hopper.jpg",),
}  # fmt: skip
"""Images that packages of the study carry; among them a retina, a tissue section and cells."""
_WORDS = (
    "the patient was seen on request of findings none chest without fever report invoice date "
    "number total address telephone dear sir madam regards department please return sign here name "
    "born insurance amount paid due page of"
).split()
_FONTS = ("DejaVu Sans", "DejaVu Serif", "DejaVu Sans Mono")


def make_foreign_images(seed: int = 0) -> dict[str, np.ndarray]:
    """Return images that are no radiographs of a chest, by kind.

    Args:
        seed: Of what is drawn.

    Returns:
        (n, 224, 224, 3) uint8 RGB in [0, 255] each: `photographs` that come with scikit-image,
        scikit-learn and matplotlib; `noise`, white, normal and smooth; `documents`, text pages,
        forms and tables, as files and as scans; `drawings`, lines, shapes, charts and windows of a
        screen; `flat`, one gray level, ramps and chessboards; `nearly black`, with faint noise.
    """
    random = np.random.default_rng(seed)
    draw = {"noise": _draw_noise, "documents": _draw_document, "drawings": _draw_drawing}
    return {
        "photographs": np.stack([
            load_image(Path(str(resources.files(package) / name)))
            for package, names in _PHOTOGRAPHS.items()
            for name in names
        ]),
        **{
            kind: np.stack([resize_image(make(random, number)) for number in range(NUMBER)])
            for kind, make in draw.items()
        },
        "flat": _make_flat(),
        "nearly black": _to_rgb([
            random.integers(0, 2 + number // 10, (IMAGE_SIZE, IMAGE_SIZE))
            for number in range(NUMBER)
        ]),
    }  # fmt: skip


def _make_flat() -> np.ndarray:
    """Return one gray level each, ramps and chessboards; one pixel becomes a gray level, too."""
    shape = (IMAGE_SIZE, IMAGE_SIZE)
    ramp = np.tile(np.linspace(0, 255, IMAGE_SIZE), (IMAGE_SIZE, 1))
    squares = [np.arange(IMAGE_SIZE) // side for side in (14, 28, 56)]
    boards = [255.0 * ((each[:, None] + each) % 2) for each in squares]
    levels = [np.full(shape, level) for level in range(0, 256, 15)]
    return _to_rgb([*levels, ramp, ramp.T, ramp[:, ::-1], ramp.T[::-1], *boards])


def _to_rgb(images: list[np.ndarray]) -> np.ndarray:
    return np.stack([resize_image(each.round().clip(0, 255).astype(np.uint8)) for each in images])


def _draw_noise(random: np.random.Generator, number: int) -> np.ndarray:
    shape = (IMAGE_SIZE, IMAGE_SIZE)
    if number % 3 == 0:
        noise = random.uniform(0, 255, shape)
    elif number % 3 == 1:
        noise = random.normal(128, 10 + 2 * number, shape)
    else:
        smooth = gaussian_filter(random.normal(0, 1, shape), 3 + number)
        noise = 128 + 60 * smooth / smooth.std()
    return noise.round().clip(0, 255).astype(np.uint8)


def _draw_document(random: np.random.Generator, number: int) -> np.ndarray:
    """Return a page: running text, a form or a table; every second one as if scanned."""
    page = Image.new("L", (850, 1100), 255)
    pen = ImageDraw.Draw(page)
    (_draw_text_page, _draw_form, _draw_table)[number % 3](pen, random)
    pixels = np.asarray(_scan(page, random) if number % 2 else page)
    return pixels


def _scan(page: Image.Image, random: np.random.Generator) -> Image.Image:
    """Return a page as a scanner shows it: gray paper, a little askew, soft, with noise."""
    askew = page.rotate(random.uniform(-4, 4), Image.Resampling.BILINEAR, fillcolor=255)
    soft = np.asarray(askew.filter(ImageFilter.GaussianBlur(random.uniform(0, 2))), float)
    paper, light = random.uniform(0.7, 1), np.linspace(1, random.uniform(0.7, 1), page.width)
    noisy = soft * paper * light + random.normal(0, 6, soft.shape)
    return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))


def _find_font(random: np.random.Generator, size: int) -> ImageFont.FreeTypeFont:
    """Return one of the fonts that come with matplotlib."""
    return ImageFont.truetype(font_manager.findfont(str(random.choice(_FONTS))), size)


def _write(random: np.random.Generator, words: int) -> str:
    return " ".join(random.choice(_WORDS, words))


def _draw_text_page(pen: ImageDraw.ImageDraw, random: np.random.Generator) -> None:
    size = int(random.integers(12, 30))
    font = _find_font(random, size)
    pen.text((80, 60), _write(random, 4).upper(), 0, _find_font(random, 2 * size))
    last = int(random.integers(400, 1050))
    for top in range(160, last, int(size * random.uniform(1.2, 2))):
        if random.random() < 0.9:
            pen.text((80, top), _write(random, max(2, 1000 // (size * 9))), 0, font)


def _draw_form(pen: ImageDraw.ImageDraw, random: np.random.Generator) -> None:
    font = _find_font(random, int(random.integers(14, 24)))
    pen.rectangle((40, 40, 810, 130), outline=0, width=3)
    pen.text((60, 70), _write(random, 4).title(), 0, font)
    for top in range(170, 1040, int(random.integers(50, 110))):
        pen.text((60, top), _write(random, 2), 0, font)
        if random.random() < 0.3:
            for left in range(330, 700, 120):
                pen.rectangle((left, top, left + 22, top + 22), outline=0, width=2)
        else:
            pen.rectangle((330, top - 6, 800, top + 30), outline=0, width=2)
            pen.text((345, top), _write(random, 3), 90, font)


def _draw_table(pen: ImageDraw.ImageDraw, random: np.random.Generator) -> None:
    font = _find_font(random, int(random.integers(12, 20)))
    height, width = (int(value) for value in random.integers((28, 90), (50, 200)))
    lefts = range(50, 800, width)
    for row, top in enumerate(range(120, 1040, height)):
        shade = 200 if row == 0 else (255 if row % 2 else 235)
        pen.rectangle((50, top, 800, top + height), shade, 120)
        for left in lefts:
            pen.text((left + 6, top + 5), f"{random.uniform(0, 999):.1f}", 0, font)
    for left in lefts:
        pen.line((left, 120, left, 1040), 120)
    pen.text((50, 60), _write(random, 5), 0, _find_font(random, 28))


def _draw_drawing(random: np.random.Generator, number: int) -> np.ndarray:
    """Return a drawing: lines by hand, shapes, a chart or windows of a screen."""
    draw: Callable[[np.random.Generator], Image.Image] = (
        _draw_lines, _draw_shapes, _draw_chart, _draw_windows,
    )[number % 4]  # fmt: skip
    return np.asarray(draw(random))


def _draw_lines(random: np.random.Generator) -> Image.Image:
    """Return curves as of a pen, dark on light or light on dark."""
    paper, ink = (255, 0) if random.random() < 0.7 else (20, 235)
    image = Image.new("L", (800, 800), paper)
    pen = ImageDraw.Draw(image)
    angle = np.linspace(0, 2 * np.pi, 200)
    for _ in range(random.integers(6, 25)):
        center, size = random.uniform(150, 650, 2), random.uniform(20, 250, 2)
        turns, phase = random.integers(1, 5, 2), random.uniform(0, 6, 2)
        curve = center + size * np.sin(angle[:, None] * turns + phase)
        pen.line([tuple(point) for point in curve], ink, int(random.integers(2, 9)))
    return image


def _draw_shapes(random: np.random.Generator) -> Image.Image:
    """Return filled shapes of any color."""
    colors = [tuple(int(value) for value in color) for color in random.integers(0, 256, (20, 3))]
    image = Image.new("RGB", (800, 600), colors[0])
    pen = ImageDraw.Draw(image)
    for color in colors[1 : random.integers(4, 20)]:
        left, top = random.uniform(0, 600, 2)
        width, height = random.uniform(40, 400, 2)
        box = (left, top, left + width, top + height)
        kind = random.integers(3)
        if kind == 0:
            pen.rectangle(box, color)
        elif kind == 1:
            pen.ellipse(box, color)
        else:
            pen.polygon([tuple(point) for point in random.uniform(0, 800, (3, 2))], color)
    return image


def _draw_chart(random: np.random.Generator) -> Image.Image:
    """Return a chart of lines, bars or points, with axes and labels."""
    image = Image.new("RGB", (900, 600), "white")
    pen = ImageDraw.Draw(image)
    font = _find_font(random, 20)
    pen.line((90, 40, 90, 520, 860, 520), "black", 3)
    for step in range(6):
        pen.text((30, 510 - 80 * step), f"{step * random.uniform(1, 9):.1f}", "black", font)
        pen.line((90, 520 - 80 * step, 860, 520 - 80 * step), "lightgray")
    for color in ("steelblue", "darkorange", "green")[: random.integers(1, 4)]:
        heights = 300 + np.cumsum(random.normal(0, 60, 12)).clip(-240, 200)
        points = [(120 + 60 * step, float(height)) for step, height in enumerate(heights)]
        kind = random.integers(3)
        if kind == 0:
            pen.line(points, color, 4)
        for left, top in points:
            if kind == 1:
                pen.rectangle((left - 15, top, left + 15, 520), color)
            elif kind == 2:
                pen.ellipse((left - 8, top - 8, left + 8, top + 8), color)
    pen.text((300, 550), _write(random, 4), "black", font)
    return image


def _draw_windows(random: np.random.Generator) -> Image.Image:
    """Return a screen: windows with a title, a side bar and text, light or dark."""
    dark = random.random() < 0.5
    back, pane, ink = ("#202428", "#2b3036", "#d8dde3") if dark else ("#5b7fa6", "#f6f6f6", "black")
    image = Image.new("RGB", (1280, 800), back)
    pen = ImageDraw.Draw(image)
    for _ in range(random.integers(1, 4)):
        left, top = random.integers(0, 500), random.integers(0, 250)
        right, bottom = left + random.integers(400, 760), top + random.integers(300, 520)
        font = _find_font(random, int(random.integers(12, 22)))
        pen.rectangle((left, top, right, bottom), pane, "gray")
        pen.rectangle((left, top, right, top + 30), "#3a6ea5")
        pen.text((left + 10, top + 5), _write(random, 3), "white", font)
        pen.rectangle((left, top + 31, left + 120, bottom), "#444b54" if dark else "#dde3ea")
        for line in range(top + 45, bottom - 20, 26):
            pen.text((left + 10, line), _write(random, 1), ink, font)
            pen.text((left + 140, line), _write(random, random.integers(1, 6)), ink, font)
    return image
