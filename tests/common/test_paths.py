"""Folders are where the repository says, unless a variable moves them."""

import pytest

from utils.common import paths


@pytest.mark.parametrize(
    ("variable", "locate", "default"),
    [
        ("DATA_DIR", lambda: paths.dataset_dir("chest_xray"), "data/chest_xray"),
        ("DATA_DIR", paths.downloaded_weights_dir, "data/weights"),
        ("RESULTS_DIR", lambda: paths.predictions_dir("full"), "results/full/predictions"),
        ("RESULTS_DIR", lambda: paths.models_dir("full"), "results/full/models"),
        ("FIGURES_DIR", lambda: paths.figures_dir("sample"), "figures/sample"),
        ("ACTIVATION_CACHE_DIR", paths.activation_cache_dir, "data/activations"),
    ],
)
def test_defaults_and_overrides(variable, locate, default, tmp_path, monkeypatch):
    for name in ("DATA_DIR", "RESULTS_DIR", "FIGURES_DIR", "ACTIVATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    assert locate() == paths.ROOT / default
    monkeypatch.setenv(variable, str(tmp_path))
    assert locate().is_relative_to(tmp_path)


def test_weights_folder_is_optional(tmp_path, monkeypatch):
    monkeypatch.delenv("WEIGHTS_DIR", raising=False)
    assert paths.local_weights_dir() is None
    monkeypatch.setenv("WEIGHTS_DIR", str(tmp_path))
    assert paths.local_weights_dir() == tmp_path
