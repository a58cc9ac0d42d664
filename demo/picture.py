"""Draw the picture of the demo in docs/using.md: its page with a phantom, as a browser shows it."""

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from utils.common.files import write_atomically
from utils.common.paths import ROOT

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PICTURE = ROOT / "docs" / "demo.png"
WIDTH, COLORS = 680, 256
SAMPLE = "Phantom 6"


class NoBrowserError(RuntimeError):
    """No browser was found; the message names the remedy."""


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Open an installed Chromium without a window.

    Raises:
        NoBrowserError: if there is none.
    """
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        raise NoBrowserError("no browser; install Debian's package chromium")
    with sync_playwright() as playwright:
        # Its sandbox needs rights that a container does not have; it opens our own page alone.
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


def start_demo(*arguments: str, **environment: str) -> subprocess.Popen:
    """Start the demo as a process whose words can be read.

    Args:
        arguments: Of the command line.
        environment: Variables that are set for it, besides those of this process.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "demo", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | environment,
    )  # fmt: skip


def read_address(process: subprocess.Popen) -> str:
    """Return the address at which a demo that has just been started serves.

    Raises:
        RuntimeError: with what it said, if it ended instead.
    """
    said = []
    for line in process.stdout:
        said.append(line)
        if found := re.search(r"Open (http://\S+) in a browser", line):
            return found[1]
    raise RuntimeError("".join(said))


def main() -> None:
    """Serve the released model, ask it about a phantom, and keep a picture of the page."""
    process = start_demo("--port", "0")
    try:
        with open_browser() as browser:
            page = browser.new_page(viewport={"width": WIDTH, "height": 600})
            page.goto(read_address(process))
            page.get_by_role("button", name=SAMPLE).click()
            page.get_by_role("heading", name="The model predicts").wait_for()
            page.get_by_label("Show the class activation map").check()
            page.evaluate("document.activeElement.blur()")
            shot = page.screenshot(full_page=True)
    finally:
        process.terminate()
    with write_atomically(PICTURE) as temporary, Image.open(io.BytesIO(shot)) as picture:
        # A palette is enough, and half the size; dithered, for the colors of the map.
        colors = picture.convert("RGB")
        dithered = colors.quantize(palette=colors.quantize(COLORS))
        dithered.save(temporary, "PNG", optimize=True)


if __name__ == "__main__":
    main()
