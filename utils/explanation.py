"""Grad-CAM: which regions of an image speak for a class, and how well they meet a known mask.

Maps are kept as they are computed. Stretched to full heat each, as is the custom, the map of an
image that hardly speaks for the class would look like that of one that shouts it.
"""

from collections.abc import Sequence

import keras
import numpy as np
import pandas as pd
from scipy.stats import bootstrap
from tf_keras_vis.gradcam import Gradcam
from tf_keras_vis.utils.model_modifiers import ReplaceToLinear
from tf_keras_vis.utils.scores import CategoricalScore

from utils.facts import BACKBONES, CLASS_NAMES, NORMAL, PNEUMONIA
from utils.progress import track

CASES = {
    "TP": "PNEUMONIA, found",
    "FN": "PNEUMONIA, missed",
    "TN": "NORMAL, recognised",
    "FP": "NORMAL, false alarm",
}
"""The four outcomes of a prediction (positive is PNEUMONIA) and their titles."""

BATCH_SIZE = 8
"""Images explained at once; the gradient needs the activations of all layers in memory."""


def explain_images(
    model: keras.Model,
    images: np.ndarray,
    layer_name: str | None = None,
    class_index: int = PNEUMONIA,
    batch_size: int = BATCH_SIZE,
) -> np.ndarray:
    """Compute the Grad-CAM of one class for each image (Selvaraju et al. 2017).

    The gradient is that of the class score before softmax: after it, the gradient vanishes
    exactly where the model is sure. Each map is enlarged from the layer's cells by bilinear
    interpolation between their centres.

    Args:
        model: Flat model from (n, h, w, 3) to class probabilities; it is not changed.
        images: (n, h, w, 3) RGB in [0, 255], as the model takes them.
        layer_name: Layer with spatial output; by default the one that `facts.BACKBONES` names.
        class_index: Class to explain, PNEUMONIA unless told.
        batch_size: Images explained at once.

    Returns:
        (n, h, w) float32, not negative and not normalised, in units of the class score. A map
        may be zero everywhere (see `zero_maps`): nothing in that layer speaks for the class.

    Raises:
        ValueError: if layer, class or images do not fit the model.
    """
    layer_name = layer_name or default_layer(model)
    _require_spatial_layer(model, layer_name)
    if len(model.inputs) != 1 or tuple(images.shape[1:]) != tuple(model.input_shape[1:]):
        raise ValueError(
            f"images of shape {images.shape} do not fit {model.name}; "
            f"it takes (n, {', '.join(map(str, model.input_shape[1:]))})"
        )
    classes = model.output_shape[-1]
    if not 0 <= class_index < classes:
        raise ValueError(f"class_index must lie in 0 to {classes - 1}, not {class_index}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, not {batch_size}")
    _require_activation_to_replace(model)
    # Works on a clone; for the 75 million parameters of ResNet50 with its head that takes 600 MB
    # and a few seconds.
    gradcam = Gradcam(model, model_modifier=ReplaceToLinear())
    maps = np.zeros(images.shape[:3], np.float32)
    for start in track(range(0, len(images), batch_size), "Grad-CAM"):
        batch = images[start : start + batch_size].astype(np.float32)
        cells = gradcam(
            CategoricalScore([class_index] * len(batch)),
            batch,
            penultimate_layer=layer_name,
            # True would walk back from ResNet50's last activation to a convolution inside the
            # block, before normalisation and shortcut.
            seek_penultimate_conv_layer=False,
            # Its own enlargement pins the outer cells to the border of the image, up to half a
            # cell away from what they see; and its normalisation hides the height of a map.
            expand_cam=False,
            normalize_cam=False,
        )
        enlarged = keras.ops.image.resize(
            np.asarray(cells, np.float32)[..., None],
            images.shape[1:3],
            interpolation="bilinear",
            data_format="channels_last",
        )
        maps[start : start + len(batch)] = keras.ops.convert_to_numpy(enlarged)[..., 0]
    if not np.isfinite(maps).all():
        raise ValueError(f"the maps of {model.name} at {layer_name} are not finite; check images")
    return maps


def default_layer(model: keras.Model) -> str:
    """Return the Grad-CAM layer of the backbone that the model is built on.

    Raises:
        ValueError: if it is built on none of `facts.BACKBONES`.
    """
    names = {layer.name for layer in model.layers}
    for backbone in BACKBONES.values():
        if backbone.gradcam_layer in names:
            return backbone.gradcam_layer
    raise ValueError(
        f"{model.name} holds no layer of {', '.join(BACKBONES)}; pass layer_name, "
        f"{_describe_candidates(model)}"
    )


def zero_maps(maps: np.ndarray) -> np.ndarray:
    """Say which of (n, h, w) maps are zero everywhere, as (n,) bool."""
    return (maps == 0).all(axis=(1, 2))


def _require_activation_to_replace(model: keras.Model) -> None:
    # tf-keras-vis sets the attribute on whatever layer comes last, also where it does nothing.
    last = model.get_layer(model.output_names[0])
    if not hasattr(last, "activation") or not last.get_weights():
        raise ValueError(
            f"the output of {model.name} comes from {last.name!r}, which has no activation to "
            "replace by a linear one; end the model in a Dense layer with its softmax inside"
        )


def _spatial_layers(model: keras.Model) -> list[str]:
    """List the layers whose output is (n, height, width, channels), from input to output."""
    return [
        layer.name
        for layer in model.layers
        if not isinstance(layer, keras.layers.InputLayer | keras.Model)
        and len(getattr(layer.output, "shape", ())) == 4
    ]


def _describe_candidates(model: keras.Model, shown: int = 12) -> str:
    candidates = _spatial_layers(model)
    if not candidates:
        return "but it has no layer with spatial output: join trunk and head into one flat graph"
    rest = len(candidates) - shown
    ending = f" (and {rest} before them)" if rest > 0 else ""
    return f"one of {', '.join(candidates[-shown:])}{ending}"


def _require_spatial_layer(model: keras.Model, layer_name: str) -> None:
    if layer_name not in _spatial_layers(model):
        raise ValueError(
            f"{model.name} has no layer {layer_name!r} with spatial output; choose "
            f"{_describe_candidates(model)}"
        )


# --- Overlap with a known mask ---------------------------------------------------------------


def energy_inside_mask(cam: np.ndarray, mask: np.ndarray) -> float:
    """Return the share of a map's energy that lies inside the mask, 0 to 1.

    A map that pays no attention to the mask scores the mask's share of the image
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


def overlap_table(
    maps: np.ndarray, masks: np.ndarray, image_ids: Sequence[str] | None = None
) -> pd.DataFrame:
    """Measure each map against its mask, and against the masks of the other images.

    Args:
        maps: (n, h, w), not negative.
        masks: (n, h, w) bool, or 0 and 1; an empty one has nothing to be found.
        image_ids: Names of the rows; numbers from 0 by default.

    Returns:
        One row an image:
        `energy_inside` and `pointing_hit`, see there;
        `mask_share`, what chance alone gives for both;
        `energy_in_other_masks`, the mean share of the map's energy inside the masks of the other
        images: what a map gets for looking where opacities usually are;
        `maximum` of the map, in units of the class score; `zero_map`, whether it is 0.
    """
    maps, masks = np.asarray(maps), np.asarray(masks)
    if maps.ndim != 3 or maps.shape != masks.shape:
        raise ValueError(f"maps {maps.shape} and masks {masks.shape} must both be (n, h, w)")
    if image_ids is not None and len(image_ids) != len(maps):
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
    columns = [
        "energy_inside", "energy_in_other_masks", "pointing_hit", "mask_share", "maximum",
        "zero_map",
    ]  # fmt: skip
    index = None if image_ids is None else pd.Index(list(image_ids), name="image_id")
    return pd.DataFrame(rows, index=index, columns=columns)


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


# --- Cases -----------------------------------------------------------------------------------


def select_cases(predictions: pd.DataFrame, threshold: float, n: int, seed: int) -> pd.DataFrame:
    """Draw right and wrong cases of both classes at random, so that none is picked to please.

    The draw depends on the images and the seed, not on the order of the rows. Patients come
    twice only where there are fewer than `n` of a kind.

    Args:
        predictions: Rows of one split of a prediction file.
        threshold: PNEUMONIA is predicted when probability >= threshold.
        n: Cases of each kind; there are fewer where a kind has fewer, or none.
        seed: Seed of the draw.

    Returns:
        The drawn rows with two more columns: `case` (TP, FN, TN or FP, in this order) and
        `title` (`CASES`).
    """
    if n < 1:
        raise ValueError(f"n must be 1 or more, not {n}")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must lie in [0, 1], not {threshold}")
    splits = sorted(set(predictions.split))
    if len(splits) != 1:
        raise ValueError(
            f"cases must come from one split, not from {len(splits)} ({', '.join(splits)}); take "
            "one with evaluation.select_split"
        )
    if not predictions.y_true.isin([NORMAL, PNEUMONIA]).all():
        raise ValueError(f"y_true must be 0 ({CLASS_NAMES[0]}) or 1 ({CLASS_NAMES[1]})")
    sick = predictions.y_true == PNEUMONIA
    called = predictions.probability >= threshold
    kinds = {"TP": sick & called, "FN": sick & ~called, "TN": ~sick & ~called, "FP": ~sick & called}
    drawn = []
    for number, case in enumerate(CASES):
        rows = predictions[kinds[case]].sort_values("image_id")
        rows = rows.iloc[np.random.default_rng([seed, number]).permutation(len(rows))]
        if (rows.patient_id != "").all():
            # Every patient's first image comes before anyone's second.
            repeats = rows.groupby("patient_id").cumcount().to_numpy()
            rows = rows.iloc[np.argsort(repeats, kind="stable")]
        drawn.append(rows.head(n).assign(case=case, title=CASES[case]))
    return pd.concat(drawn, ignore_index=True)


def mean_interval(
    values: np.ndarray, patients: np.ndarray, resamples: int, seed: int
) -> dict[str, float]:
    """Return the mean of a measure with its 95 % bootstrap interval over patients.

    Args:
        values: (n,) one value an image; NaN (a zero map) is left out.
        patients: (n,) patient of each image; all images of a drawn patient are taken.
        resamples: Bootstrap resamples.
        seed: Seed of the resamples.

    Returns:
        `value`, `low` and `high`.

    Raises:
        ValueError: if fewer than two patients have a value.
    """
    table = pd.DataFrame({"patient": patients, "value": values}).dropna()
    sums = table.groupby("patient").value.agg(["sum", "size"]).to_numpy()
    if len(sums) < 2:
        raise ValueError(f"an interval needs at least two patients; {len(sums)} have a value")
    result = bootstrap(
        (sums[:, 0], sums[:, 1]),
        lambda total, count, axis: total.sum(axis=axis) / count.sum(axis=axis),
        n_resamples=resamples, paired=True, method="percentile", rng=np.random.default_rng(seed),
    )  # fmt: skip
    interval = result.confidence_interval
    return {
        "value": float(table.value.mean()),
        "low": float(interval.low),
        "high": float(interval.high),
    }
