"""Helpers shared by the notebooks of the study; one module a concern."""

import os

# TensorFlow reads it once, when it loads. Its plain allocator returns every large array to the
# system and pays for fresh pages at each step: the step of the 51-million head took 1.5 times as
# long that way (docs/scaling.md, "What was tried once").
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")
