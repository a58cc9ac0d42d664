"""From prediction files to thresholds, metrics, intervals and calibration; no network, no image."""
