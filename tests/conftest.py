"""Settings of the unit tests, made before TensorFlow and matplotlib are imported."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["MPLBACKEND"] = "Agg"

# A committed table that a test would make again has gone stale: a failure, not an hour of work.
os.environ["REMAKE_TABLES"] = "0"

# What tests run in workers says so itself.
for name in ("WORKERS", "SCHEDULER"):
    os.environ.pop(name, None)


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Open a browser; without one, tests of a page are skipped and say so."""
    from demo.picture import NoBrowserError, open_browser  # not for tests that open no page

    try:
        with open_browser() as browser:
            yield browser
    except NoBrowserError as error:
        pytest.skip(f"{error}: the page in the browser is not tested")
