"""The precision is what was asked for, or what the hardware has, never a silent other one."""

import pytest
import tensorflow as tf

from utils.training import precision
from utils.training.precision import HardwareError, choose_precision


@pytest.fixture(autouse=True)
def processor(tmp_path, monkeypatch):
    """Stand in for a machine without a GPU whose processor's flags the test names."""
    monkeypatch.delenv("PRECISION", raising=False)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(precision, "CPU_FACTS", tmp_path / "cpuinfo")

    def describe(flags):
        (tmp_path / "cpuinfo").write_text(f"model name\t: Some CPU\nflags\t\t: fpu {flags}\n")

    return describe


def test_float32_is_the_default(processor):
    processor("avx512_bf16")
    assert choose_precision() == "float32"


def test_the_environment_is_read(monkeypatch):
    monkeypatch.setenv("PRECISION", "bfloat16")
    assert choose_precision() == "bfloat16"
    assert choose_precision("float32") == "float32"


@pytest.mark.parametrize(
    ("flags", "precision"),
    [("avx2 avx512f", "float32"), ("avx512_bf16", "bfloat16"), ("amx_bf16", "bfloat16")],
)
def test_auto_takes_what_the_processor_computes_in(processor, flags, precision):
    processor(flags)
    assert choose_precision("auto") == precision


def test_auto_without_processor_facts_is_float32():
    assert choose_precision("auto") == "float32"


@pytest.mark.parametrize(
    ("capability", "precision"), [((8, 0), "mixed_float16"), ((6, 1), "float32")]
)
def test_auto_takes_what_the_gpu_computes_in(monkeypatch, capability, precision):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu"])
    monkeypatch.setattr(
        tf.config.experimental,
        "get_device_details",
        lambda gpu: {"compute_capability": capability},
    )
    assert choose_precision("auto") == precision


def test_what_cannot_be_had_is_refused():
    with pytest.raises(HardwareError, match="one of float32, bfloat16, mixed_float16, auto"):
        choose_precision("float8")
    with pytest.raises(HardwareError, match="needs a GPU"):
        choose_precision("mixed_float16")
