"""Diagrams: what is committed is what the code draws, and all of it can be read."""

from xml.etree import ElementTree

import pytest

from utils.common.diagrams import COLORS, DIAGRAMS, FOLDER, draw_diagram, write_diagrams

SVG = "{http://www.w3.org/2000/svg}"


def test_committed_files_are_what_the_code_draws(tmp_path):
    for file in write_diagrams(tmp_path):
        assert (FOLDER / file.name).read_text() == file.read_text(), "run utils.common.diagrams"


@pytest.mark.parametrize("look", COLORS)
@pytest.mark.parametrize("name", DIAGRAMS)
def test_every_step_has_its_box_and_its_words(name, look):
    steps = DIAGRAMS[name]
    drawing = ElementTree.fromstring(draw_diagram(steps, look))
    boxes = drawing.findall(f"{SVG}rect")[1:]  # the first is the page
    assert len(boxes) == len(steps) and len(drawing.findall(f"{SVG}path")) == len(steps) - 1
    words = [text.text for text in drawing.findall(f"{SVG}text")]
    assert words == [word for step in steps for word in (step.title, *step.lines)]
    assert max(map(len, words)) <= 60
    ends = [float(box.get("y")) + float(box.get("height")) for box in boxes]
    starts = [float(box.get("y")) for box in boxes]
    assert all(end < start for end, start in zip(ends, starts[1:], strict=False))
    assert ends[-1] < float(drawing.get("height"))


def luminance(color: str) -> float:
    """Return the relative luminance of a color, as WCAG defines it."""
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return sum(w * part for w, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("look", COLORS)
@pytest.mark.parametrize("kind", ["page", "plain", "frozen", "trained"])
def test_words_have_contrast(look, kind):
    darker, lighter = sorted(luminance(COLORS[look][name]) for name in ("text", kind))
    assert (lighter + 0.05) / (darker + 0.05) > 7
