"""Settings of pytest for both the unit tests and nbval's run of the notebooks."""

import pytest
from nbval.plugin import IPyNbFile


def pytest_collectstart(collector: pytest.Collector) -> None:
    # TensorFlow logs there, differently on every machine; saved notebooks carry no stderr at all.
    if isinstance(collector, IPyNbFile):
        collector.skip_compare += ("stderr",)
