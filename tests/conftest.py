"""Settings of the unit tests, made before TensorFlow and matplotlib are imported."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["MPLBACKEND"] = "Agg"

# A committed table that a test would make again has gone stale: a failure, not an hour of work.
os.environ["REMAKE_TABLES"] = "0"

# What tests run in workers says so itself.
for name in ("WORKERS", "SCHEDULER"):
    os.environ.pop(name, None)
