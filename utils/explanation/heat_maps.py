"""Heat maps: which regions of an image are evidence for a class, by five methods of tf-keras-vis.

Maps are kept as they are computed. If each were stretched to full heat, as is the custom, the map
of an image with hardly any evidence for the class would look like that of an image with much of it.
What maps are worth is measured in `utils.explanation.measures`.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import keras
import numpy as np
import pandas as pd
from keras import layers
from tf_keras_vis.gradcam import Gradcam
from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
from tf_keras_vis.layercam import Layercam
from tf_keras_vis.saliency import Saliency
from tf_keras_vis.scorecam import Scorecam
from tf_keras_vis.utils.scores import CategoricalScore

from utils.common.constants import CLASS_NAMES, NORMAL, PNEUMONIA
from utils.common.progress import track
from utils.evaluation.predictions import require_one_split
from utils.evaluation.thresholds import is_positive
from utils.models.catalogue import BACKBONES
from utils.models.own_model import read_class_scores

CASES = {
    "TP": "true positive (PNEUMONIA)",
    "FN": "false negative (PNEUMONIA)",
    "TN": "true negative (NORMAL)",
    "FP": "false positive (NORMAL)",
}
"""The four outcomes of a prediction (positive is PNEUMONIA) and their titles."""

BATCH_SIZE = 8
"""Images explained at once; the gradient needs the activations of all layers in memory."""
STRONGEST_CHANNELS = 32
"""Channels that Score-CAM takes, those whose activation varies most over the image: each costs one
pass through the network."""
NOISY_COPIES, NOISE, NOISE_SEED = 16, 0.1, 0
"""SmoothGrad averages over so many copies of an image; the noise's standard deviation is this share
of the image's range of gray, and the same for every image."""


@dataclass(frozen=True)
class Method:
    """A way to make heat maps."""

    title: str
    maker: type
    """Of tf-keras-vis, which makes the maps."""
    one_by_one: bool = False
    """Whether other images of a batch would change a map."""


METHODS = {
    "gradcam": Method("Grad-CAM", Gradcam),
    "gradcam_plus_plus": Method("Grad-CAM++", GradcamPlusPlus),
    "layercam": Method("LayerCAM", Layercam),
    "scorecam": Method("Score-CAM", Scorecam, one_by_one=True),
    "smoothgrad": Method("SmoothGrad", Saliency, one_by_one=True),
}
"""The methods by the name that `explain_images` takes: Selvaraju et al. 2017, Chattopadhay et al.
2018, Jiang et al. 2021, Wang et al. 2020, Smilkov et al. 2017. SmoothGrad is a map of pixels, the
others of the cells of a layer."""


def explain_images(
    model: keras.Model,
    images: np.ndarray,
    layer_name: str | None = None,
    class_index: int = PNEUMONIA,
    method: str = "gradcam",
) -> np.ndarray:
    """Compute a heat map of one class for each image.

    What is explained is the class score before softmax or sigmoid: after it, the gradient
    vanishes exactly where the model is confident. One sigmoid unit with the score z counts as two
    classes with the scores -z/2 and z/2, the softmax of which it is. Maps of cells are enlarged by
    bilinear interpolation between their centers. The map of an ensemble that averages its members'
    probabilities is the mean of the members' maps.

    Args:
        model: Flat model, functional or sequential, from (n, h, w, c) to class probabilities, by a
            Dense layer with softmax or with one sigmoid unit, or a mean of such models; it is not
            changed.
        images: (n, h, w, c) in [0, 255], as the model takes them.
        layer_name: Layer with spatial output; by default `default_layer`. SmoothGrad uses none.
        class_index: Class to explain, PNEUMONIA unless told.
        method: A key of `METHODS`.

    Returns:
        (n, h, w) float32, not negative and not normalized. Grad-CAM and LayerCAM are in units of
        the class score, Grad-CAM++ multiplies it by the score's exponential, Score-CAM weighs
        activations by probabilities, SmoothGrad is score per gray level. A map may be zero
        everywhere (see `zero_maps`): nothing in that layer is evidence for the class.

    Raises:
        ValueError: if method, layer, class or images do not fit the model.
    """
    return build_explainer(model, layer_name, method)(images, class_index)


def build_explainer(
    model: keras.Model,
    layer_name: str | None = None,
    method: str = "gradcam",
    scores: keras.Model | None = None,
) -> Callable[[np.ndarray, int], np.ndarray]:
    """Return a function from images and a class to the images' maps; see `explain_images`.

    The model is copied once, which takes seconds, and not for every call or class.

    Args:
        model: As `explain_images` takes it.
        layer_name: See there.
        method: See there.
        scores: The copy, from `build_score_model`, where it is there already; a mean of models
            makes its own.

    Raises:
        ValueError: if method or layer do not fit the model; the function raises it for images and
            classes that do not.
    """
    if method not in METHODS:
        raise ValueError(f"there is no method {method!r}; choose one of {', '.join(METHODS)}")
    model = _as_functional(model)
    if members := find_members(model):
        each = [build_explainer(member, layer_name, method) for member in members]
        return lambda images, class_index: np.mean(
            [explain(images, class_index) for explain in each], 0, np.float32
        )
    if method != "smoothgrad":
        layer_name = layer_name or default_layer(model)
        if layer_name not in _spatial_layers(model):
            raise ValueError(
                f"{model.name} has no layer {layer_name!r} with spatial output; "
                f"{_describe_candidates(model)}"
            )
    scores = scores or build_score_model(model)
    make_cells = _choose_method(method, scores, layer_name)
    at_once = 1 if METHODS[method].one_by_one else BATCH_SIZE

    def explain(images: np.ndarray, class_index: int) -> np.ndarray:
        classes = scores.output_shape[-1]
        if not 0 <= class_index < classes:
            raise ValueError(f"class_index must lie in 0 to {classes - 1}, not {class_index}")
        if len(model.inputs) != 1 or tuple(images.shape[1:]) != tuple(model.input_shape[1:]):
            raise ValueError(
                f"images of shape {images.shape} do not fit {model.name}; "
                f"it takes (n, {', '.join(map(str, model.input_shape[1:]))})"
            )
        maps = np.zeros(images.shape[:3], np.float32)
        for start in track(range(0, len(images), at_once), METHODS[method].title):
            batch = images[start : start + at_once].astype(np.float32)
            cells = make_cells(class_index, batch)
            enlarged = enlarge_cells(np.asarray(cells, np.float32), maps.shape[1:])
            maps[start : start + len(batch)] = enlarged
        if not np.isfinite(maps).all():
            raise ValueError(f"maps of {model.name} by {method} are not finite; check the images")
        return maps

    return explain


def _as_functional(model: keras.Model) -> keras.Model:
    """Return the graph of a Sequential model; others are returned as they are.

    Raises:
        ValueError: if it has no graph yet.
    """
    if not isinstance(model, keras.Sequential):
        return model
    if not model.built:
        raise ValueError(
            f"{model.name} does not know its input yet; begin it with keras.Input(shape)"
        )
    return keras.Model(model.inputs[0], model.outputs[0], name=model.name)


def build_explainers(model: keras.Model) -> dict[str, Callable[[np.ndarray, int], np.ndarray]]:
    """Return the explainer of every method by its name, all with one copy of the model.

    Args:
        model: As `explain_images` takes it; no mean of models.
    """
    model = _as_functional(model)
    scores = build_score_model(model)
    return {name: build_explainer(model, method=name, scores=scores) for name in METHODS}


def _choose_method(
    method: str, scores: keras.Model, layer_name: str
) -> Callable[[int, np.ndarray], np.ndarray]:
    """Return what turns a class and a batch of images into cells, or for SmoothGrad into pixels."""
    explainer = METHODS[method].maker(scores)
    if method == "smoothgrad":

        def explain_pixels(class_index: int, batch: np.ndarray) -> np.ndarray:
            # tf-keras-vis adds noise itself, but takes its copies one by one: four times slower.
            noisy = noisy_copies(batch[0])
            gradients = np.concatenate([
                explainer(_score(class_index, part), part, keepdims=True, normalize_map=False)
                for part in np.array_split(noisy, -(-NOISY_COPIES // BATCH_SIZE))
            ])  # fmt: skip
            return gradients.mean(axis=0, keepdims=True).max(axis=-1)

        return explain_pixels
    arguments = {
        "penultimate_layer": layer_name,
        # True would walk back from ResNet50's last activation to a convolution inside the block,
        # before normalization and shortcut.
        "seek_penultimate_conv_layer": False,
        # Its own enlargement pins the outer cells to the border of the image, up to half a cell
        # away from what they cover; and its normalization hides the height of a map.
        "expand_cam": False,
        "normalize_cam": False,
    }
    if method == "scorecam":
        channels = scores.get_layer(layer_name).output.shape[-1]
        arguments["max_N"] = min(STRONGEST_CHANNELS, channels)

    def explain_cells(class_index: int, batch: np.ndarray) -> np.ndarray:
        with _without_progress_of_keras():
            return explainer(_score(class_index, batch), batch, **arguments)

    return explain_cells


def _score(class_index: int, batch: np.ndarray) -> CategoricalScore:
    """Return the score of one class for every image of a batch."""
    return CategoricalScore([class_index] * len(batch))


def noisy_copies(image: np.ndarray) -> np.ndarray:
    """Return the copies of an image over which SmoothGrad averages.

    Args:
        image: (h, w, c).

    Returns:
        (NOISY_COPIES, h, w, c) float32 with normal noise, the same for every image.
    """
    noise = np.random.default_rng(NOISE_SEED).normal(0, NOISE, (NOISY_COPIES, *image.shape))
    return (image + noise * np.ptp(image)).astype(np.float32)


@contextmanager
def _without_progress_of_keras() -> Iterator[None]:
    """Keep `predict`, which tf-keras-vis calls, from drawing a bar for every image."""
    interactive = keras.utils.is_interactive_logging_enabled()
    keras.utils.disable_interactive_logging()
    try:
        yield
    finally:
        if interactive:
            keras.utils.enable_interactive_logging()


def enlarge_cells(cells: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Enlarge (n, rows, columns) maps to (n, h, w), bilinearly between the centers of cells."""
    enlarged = keras.ops.image.resize(
        cells[..., None], shape, interpolation="bilinear", data_format="channels_last"
    )
    return keras.ops.convert_to_numpy(enlarged)[..., 0]


def find_members(model: keras.Model) -> list[keras.Model]:
    """List the networks whose probabilities a model averages; none if it is no ensemble."""
    last = model.get_layer(model.output_names[0])
    if not isinstance(last, layers.Average):
        return []
    return [layer for layer in model.layers if isinstance(layer, keras.Model)]


def build_score_model(model: keras.Model) -> keras.Model:
    """Return a copy of a model that ends in the class scores before softmax or sigmoid.

    Args:
        model: Ends in a Dense layer with softmax, or with one sigmoid unit.

    Returns:
        From the model's input to (n, classes) scores; two where it has one sigmoid unit.

    Raises:
        ValueError: if it ends otherwise.
    """
    model = _as_functional(model)
    last = model.get_layer(model.output_names[0])
    activation = getattr(getattr(last, "activation", None), "__name__", None)
    units = model.output_shape[-1]
    fits = (activation == "softmax" and units > 1) or (activation == "sigmoid" and units == 1)
    if not isinstance(last, layers.Dense) or not fits:
        raise ValueError(
            f"the output of {model.name} comes from {last.name!r}, and what comes before its "
            "probabilities is unknown; end the model in one Dense layer with softmax, or with "
            "sigmoid and one unit"
        )
    kernel, bias = read_class_scores(last)
    # A layer that is used in two models has two inputs; in a copy it has one. For the 75 million
    # parameters of ResNet50 with its head that takes 600 MB and a few seconds.
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    linear = layers.Dense(len(bias), dtype=last.dtype_policy, name="class_scores")
    scores = keras.Model(copy.inputs, linear(copy.get_layer(last.name).input))
    linear.set_weights([kernel, bias])
    return scores


def default_layer(model: keras.Model) -> str:
    """Return the layer that is explained if none is named.

    It is the one that `BACKBONES` names for the backbone, else the last with more than
    one position: the coarsest, with the most abstract channels. A transformer has none inside, so
    that it is the map of tokens that it reads.

    Raises:
        ValueError: if no layer has spatial output.
    """
    names = [
        name for name in _spatial_layers(model)
        if math.prod(model.get_layer(name).output.shape[1:3]) > 1
    ]  # fmt: skip
    for backbone in BACKBONES.values():
        if backbone.gradcam_layer in names:
            return backbone.gradcam_layer
    if not names:
        raise ValueError(f"{model.name} cannot be explained: {_describe_candidates(model)}")
    return names[-1]


def zero_maps(maps: np.ndarray) -> np.ndarray:
    """Say which of (n, h, w) maps are zero everywhere, as (n,) bool."""
    return (maps == 0).all(axis=(1, 2))


def _spatial_layers(model: keras.Model) -> list[str]:
    """List the layers whose output is (n, height, width, channels), from input to output."""
    return [
        layer.name
        for layer in model.layers
        if not isinstance(layer, keras.layers.InputLayer | keras.Model)
        and len(getattr(layer.output, "shape", ())) == 4
    ]


def _describe_candidates(model: keras.Model) -> str:
    candidates, shown = _spatial_layers(model), 12
    if not candidates:
        return "it has no layer with spatial output: join backbone and head into one flat graph"
    rest = len(candidates) - shown
    ending = f" (and {rest} before them)" if rest > 0 else ""
    return f"choose one of {', '.join(candidates[-shown:])}{ending}"


def name_cases(y_true: pd.Series, predicted: pd.Series) -> np.ndarray:
    """Return the outcome of each prediction, a key of `CASES`; `predicted` says where positive."""
    positive = y_true == PNEUMONIA
    return np.select([positive & predicted, positive, ~predicted], ["TP", "FN", "TN"], "FP")


def select_cases(predictions: pd.DataFrame, threshold: float, n: int, seed: int) -> pd.DataFrame:
    """Draw right and wrong cases of both classes at random, so that none is picked to please.

    The draw depends on the images and the seed, not on the order of the rows. Patients come
    twice only where there are fewer than `n` of a kind.

    Args:
        predictions: Rows of one split of a prediction file.
        threshold: At which PNEUMONIA is predicted; see `thresholds.is_positive`.
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
    require_one_split(predictions)
    if not predictions.y_true.isin([NORMAL, PNEUMONIA]).all():
        raise ValueError(f"y_true must be 0 ({CLASS_NAMES[0]}) or 1 ({CLASS_NAMES[1]})")
    cases = name_cases(predictions.y_true, is_positive(predictions.probability, threshold))
    drawn = []
    for number, case in enumerate(CASES):
        rows = predictions[cases == case].sort_values("image_id")
        rows = rows.iloc[np.random.default_rng([seed, number]).permutation(len(rows))]
        if (rows.patient_id != "").all():
            # Every patient's first image comes before anyone's second.
            repeats = rows.groupby("patient_id").cumcount().to_numpy()
            rows = rows.iloc[np.argsort(repeats, kind="stable")]
        drawn.append(rows.head(n).assign(case=case, title=CASES[case]))
    return pd.concat(drawn, ignore_index=True)
