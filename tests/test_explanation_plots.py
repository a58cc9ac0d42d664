import numpy as np
import pytest

from utils.explanation_plots import plot_methods


def make_maps(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((2, 8, 8))


def test_every_method_has_its_own_scale_and_every_map_its_height():
    images = np.full((2, 8, 8, 3), 100.0)
    maps = {"Grad-CAM": make_maps(0), "SmoothGrad": 1000 * make_maps(1)}
    maps["Grad-CAM"][1] = 0
    figure = plot_methods(images, maps, ["found", "missed"], masks=np.eye(8)[None].repeat(2, 0))
    axes = figure.axes
    assert len(axes) == 6 and axes[0].get_ylabel() == "found"
    assert axes[1].get_title().startswith("Grad-CAM\nmax ")
    assert axes[4].get_title() == "zero everywhere"
    for column, method in enumerate(maps, start=1):
        scales = {axes[row * 3 + column].images[1].get_clim() for row in (0, 1)}
        assert scales == {(0.0, maps[method].max())}
    assert all(ax.collections for ax in axes)


def test_maps_that_do_not_fit_are_refused():
    images = np.full((2, 8, 8, 3), 100.0)
    with pytest.raises(ValueError, match=r"Grad-CAM: maps \(1, 8, 8\) do not fit"):
        plot_methods(images, {"Grad-CAM": make_maps(0)[:1]}, "ab")
    with pytest.raises(ValueError, match="Grad-CAM: maps must be finite and not negative"):
        plot_methods(images, {"Grad-CAM": make_maps(0) - 2}, "ab")
    with pytest.raises(ValueError, match="2 images but 3 titles"):
        plot_methods(images, {"Grad-CAM": make_maps(0)}, "abc")
