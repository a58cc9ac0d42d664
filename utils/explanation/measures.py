"""What a heat map is worth, in numbers, and the baseline maps that use no network.

`utils.explanation.heat_maps` makes maps. Here are agreement with a known mask, similarity of two
maps, and faithfulness to the model; random cells, the center and the edges of an image are
baselines that any method has to beat. A map is never stretched before it is measured.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from skimage.filters import sobel, threshold_otsu
from skimage.metrics import structural_similarity

from utils.explanation.heat_maps import METHODS, enlarge_cells

STEPS = 20
"""Steps in which pixels are deleted or inserted."""


def energy_inside_mask(cam: np.ndarray, mask: np.ndarray) -> float:
    """Return the share of a map's energy that lies inside the mask, 0 to 1.

    A map that does not depend on the mask scores the mask's share of the image
    (`mask_share`). NaN where the map is zero or the mask is empty: there is nothing to share.

    Args:
        cam: (h, w), not negative.
        mask: (h, w) bool, or 0 and 1.
    """
    cam, mask = _check_pair(cam, mask)
    total = cam.sum()
    return float(cam[mask].sum() / total) if total > 0 and mask.any() else float("nan")


def pointing_hit(cam: np.ndarray, mask: np.ndarray) -> float:
    """Say whether the highest point of a map lies inside the mask: 1 or 0.

    Several equally high points count by their share inside, as if one were drawn, so that a flat
    map is not a hit. NaN where the map is zero or the mask is empty.

    Args:
        cam: (h, w), not negative.
        mask: (h, w) bool, or 0 and 1.
    """
    cam, mask = _check_pair(cam, mask)
    if cam.max() <= 0 or not mask.any():
        return float("nan")
    return float(mask[cam == cam.max()].mean())


def mask_share(mask: np.ndarray) -> float:
    """Return the share of the image that the mask covers: what a map reaches by chance."""
    return float(_as_mask(mask).mean())


def overlap_table(maps: np.ndarray, masks: np.ndarray, image_ids: Sequence[str]) -> pd.DataFrame:
    """Measure each map against its mask, and against the masks of the other images.

    Args:
        maps: (n, h, w), not negative.
        masks: (n, h, w) bool, or 0 and 1; an empty one has nothing to be marked.
        image_ids: Names of the rows.

    Returns:
        One row per image:
        `energy_inside` and `pointing_hit`, see there;
        `mask_share`, what chance alone gives for both;
        `energy_in_other_masks`, the mean share of the map's energy inside the masks of the other
        images: what a map gets for marking where opacities usually are;
        `maximum` of the map, in units of the class score; `zero_map`, whether it is 0.
    """
    maps, masks = np.asarray(maps), np.asarray(masks)
    if maps.ndim != 3 or maps.shape != masks.shape:
        raise ValueError(f"maps {maps.shape} and masks {masks.shape} must both be (n, h, w)")
    if len(image_ids) != len(maps):
        raise ValueError(f"{len(maps)} maps but {len(image_ids)} image_ids")
    rows = [
        {
            "energy_inside": energy_inside_mask(cam, mask),
            "energy_in_other_masks": _energy_in_others(cam, np.delete(masks, row, axis=0)),
            "pointing_hit": pointing_hit(cam, mask),
            "mask_share": mask_share(mask),
            "maximum": float(cam.max()),
            "zero_map": bool(cam.max() == 0),
        }
        for row, (cam, mask) in enumerate(zip(maps, masks, strict=True))
    ]
    return pd.DataFrame(rows, index=pd.Index(image_ids, name="image_id"))


def _energy_in_others(cam: np.ndarray, masks: np.ndarray) -> float:
    shares = np.array([energy_inside_mask(cam, mask) for mask in masks if mask.any()])
    return float(shares.mean()) if len(shares) else float("nan")


def _as_mask(mask: np.ndarray) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.dtype != bool and not np.isin(mask, (0, 1)).all():
        raise ValueError(
            f"a mask holds only 0 and 1, not values from {mask.min()} to {mask.max()}; compare "
            "it with a limit first"
        )
    return mask.astype(bool)


def _check_pair(cam: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cam, mask = np.asarray(cam, np.float64), _as_mask(mask)
    if cam.ndim != 2 or cam.shape != mask.shape:
        raise ValueError(f"map {cam.shape} and mask {mask.shape} must have one shape (h, w)")
    if not cam.min() >= 0:  # also true of NaN
        raise ValueError(f"a map must not be negative or NaN; its minimum is {cam.min()}")
    return cam, mask


def iou_at_otsu(cam: np.ndarray, mask: np.ndarray) -> float:
    """Return the overlap of a mask with a map cut at Otsu's threshold: intersection over union.

    NaN where the map is the same everywhere or the mask is empty: there is nothing to cut.

    Args:
        cam: (h, w), not negative.
        mask: (h, w) bool, or 0 and 1.
    """
    cam, mask = _check_pair(cam, mask)
    if cam.min() == cam.max() or not mask.any():
        return float("nan")
    hot = cam > threshold_otsu(cam)
    return float((hot & mask).sum() / (hot | mask).sum())


def random_map(shape: tuple[int, int], cells: int, seed: int) -> np.ndarray:
    """Return a map of random cells, as coarse as a network's and enlarged like them.

    Args:
        shape: (h, w) of the map.
        cells: Cells on a side.
        seed: Of the draw.
    """
    drawn = np.random.default_rng(seed).random((1, cells, cells))
    return enlarge_cells(drawn, shape)[0]


def center_map(shape: tuple[int, int]) -> np.ndarray:
    """Return a map that falls off evenly from the center to 0 in the corners."""
    y, x = (np.linspace(-1, 1, side) for side in shape)
    return 1 - np.sqrt((y[:, None] ** 2 + x[None, :] ** 2) / 2)


def edge_map(image: np.ndarray) -> np.ndarray:
    """Return the strength of the edges of a gray image, by Sobel's filter.

    Args:
        image: (h, w) in [0, 255].
    """
    return sobel(np.asarray(image, np.float64) / 255)


def similarity(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Return how similar two maps are: Spearman's correlation over pixels, and SSIM.

    SSIM compares maps that are divided by their maxima. NaN where one of them is zero.

    Args:
        first: (h, w), not negative.
        second: (h, w), not negative.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.max() <= 0 or second.max() <= 0:
        return float("nan"), float("nan")
    flat = first.min() == first.max() or second.min() == second.max()
    ranks = float("nan") if flat else float(spearmanr(first.ravel(), second.ravel()).statistic)
    ssim = structural_similarity(first / first.max(), second / second.max(), data_range=1.0)
    return ranks, float(ssim)


def perturb(
    image: np.ndarray, order: np.ndarray, replacement: np.ndarray, steps: int = STEPS
) -> np.ndarray:
    """Return an image whose pixels are replaced step by step, in an order.

    Deletion replaces an image's pixels by a blurred copy; insertion starts from the copy and
    replaces by the image.

    Args:
        image: (h, w, c), where it starts.
        order: (h, w); the largest value goes first, equal ones in an order that is drawn once,
            so that what a map leaves at zero has no preferred side.
        replacement: (h, w, c), where it ends.
        steps: Number of steps.

    Returns:
        (steps + 1, h, w, c): as it is, ..., wholly replaced.
    """
    heat = np.asarray(order, np.float64).ravel()
    tie_break = np.random.default_rng(0).permutation(heat.size)
    rank = np.empty(heat.size, int)
    rank[np.lexsort((tie_break, -heat))] = np.arange(heat.size)
    rank = rank.reshape(order.shape)
    cuts = np.round(np.linspace(0, heat.size, steps + 1)).astype(int)
    return np.stack([np.where((rank < cut)[..., None], replacement, image) for cut in cuts])


def area_under(curve: Sequence[float]) -> float:
    """Return the area under a curve over [0, 1], by trapezoids: the mean height."""
    return float(np.trapezoid(curve, dx=1 / (len(curve) - 1)))


def faithfulness(
    predict: Callable[[np.ndarray], np.ndarray],
    image: np.ndarray,
    order: np.ndarray,
    blurred: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the deletion and the insertion curve of an order (Petsiuk et al. 2018).

    Args:
        predict: From (n, h, w, c) to (n,) probabilities of the class that was explained.
        image: (h, w, c) in [0, 255].
        order: (h, w): a heat map, or a baseline.
        blurred: (h, w, c): the image without detail.

    Returns:
        Two (STEPS + 1,) curves. A faithful map's deletion falls early, its insertion rises early.
    """
    return (
        np.asarray(predict(perturb(image, order, blurred))),
        np.asarray(predict(perturb(blurred, order, image))),
    )


TITLES = {name: method.title for name, method in METHODS.items()} | {
    "random": "random cells", "centre": "center", "edges": "edge map",
}  # fmt: skip
"""What the maps of the tables are called, methods and baselines."""
BASELINES = ("random", "centre", "edges")
"""Maps that use no network; any method has to beat them."""
NO_NETWORK = "none"
"""Stands for the network of a map that uses none."""
