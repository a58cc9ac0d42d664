"""Choose how to compute, by what the hardware has and what the reader asks for.

Predictions are always made in float32. A lower precision is for the augmented copies that a head
is trained on: an option that is measured (`make bench`) and recorded in the provenance, never a
silent default.
"""

import os
from pathlib import Path

import tensorflow as tf

PRECISIONS = ("float32", "bfloat16", "mixed_float16", "auto")
CPU_FACTS = Path("/proc/cpuinfo")
_FLOAT16_SINCE = (7, 0)
"""Compute capability from which NVIDIA GPUs have units for float16."""
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}
RECORDED_FLAGS = ("avx512f", "avx512_bf16", "amx_bf16")
"""Instruction sets that records name: what computes bfloat16, and how, depends on them."""


class HardwareError(ValueError):
    """A precision that cannot be had; the message names the remedy."""


def cpu_flags() -> set[str]:
    """Return the processor's instruction sets as Linux names them; none on other systems."""
    try:
        lines = CPU_FACTS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith("flags") for flag in line.split()[2:]}


def choose_precision(requested: str | None = None) -> str:
    """Return the precision of a backbone: `float32`, `bfloat16` or `mixed_float16`.

    Args:
        requested: One of `PRECISIONS`; the environment variable `PRECISION` by default, else
            `float32`. `auto` takes `mixed_float16` on a GPU that computes in it, `bfloat16` on a
            processor that does, and `float32` elsewhere.

    Raises:
        HardwareError: if the precision is unknown, or `mixed_float16` is asked of a processor.
    """
    requested = requested or os.environ.get("PRECISION") or "float32"
    if requested not in PRECISIONS:
        raise HardwareError(f"PRECISION is one of {', '.join(PRECISIONS)}, not {requested!r}")
    gpus = tf.config.list_physical_devices("GPU")
    if requested == "mixed_float16" and not gpus:
        raise HardwareError(
            "PRECISION=mixed_float16 needs a GPU, and TensorFlow sees none; "
            "take float32, bfloat16 or auto"
        )
    if requested != "auto":
        return requested
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        fast = details.get("compute_capability", (0, 0)) >= _FLOAT16_SINCE
        return "mixed_float16" if fast else "float32"
    return "bfloat16" if _BFLOAT16_FLAGS & cpu_flags() else "float32"
