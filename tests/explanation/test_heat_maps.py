import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from keras import layers

from utils.common.constants import NORMAL, PNEUMONIA
from utils.explanation import heat_maps
from utils.explanation.heat_maps import (
    CASES,
    METHODS,
    NOISE,
    NOISE_SEED,
    NOISY_COPIES,
    build_score_model,
    default_layer,
    explain_images,
    select_cases,
    zero_maps,
)
from utils.explanation.measures import pointing_hit
from utils.models.architectures import ARCHITECTURES, build_network
from utils.models.backbones import join
from utils.models.export import average_networks

SIZE = 32
CELL = 8


def build_model(seed: int = 0) -> keras.Model:
    """Build a flat ResNet-like classifier of 32 x 32 images with 4 x 4 cells at `block_out`."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.Rescaling(1 / 255, name="rescale")(image)
    x = layers.Conv2D(4, 3, strides=CELL, padding="same", activation="relu", name="stem")(x)
    y = layers.Conv2D(4, 3, padding="same", name="block_conv")(x)
    y = layers.BatchNormalization(name="block_norm")(y)
    x = layers.Activation("relu", name="block_out")(layers.Add(name="block_add")([x, y]))
    backbone = keras.Model(image, x, name="small")
    activations = keras.Input(backbone.output_shape[1:], name="activations")
    z = layers.Flatten(name="flatten")(activations)
    z = layers.Dense(8, activation="relu", name="dense")(z)
    z = layers.Dropout(0.5, name="dropout")(z)
    z = layers.Dense(2, activation="softmax", name="probabilities")(z)
    return join(backbone, keras.Model(activations, z, name="head"))


def build_spotlight(sign: float = 1.0) -> keras.Model:
    """Build a model whose PNEUMONIA score is `sign` times the mean brightness of 4 x 4 cells."""
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.AveragePooling2D(CELL, name="cells")(image)
    x = layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones", name="brightness")(x)
    # Pooling spreads the gradient evenly: the map is the brightness itself.
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    model = keras.Model(image, layers.Dense(2, activation="softmax", name="probabilities")(x))
    model.get_layer("probabilities").set_weights([np.array([[0.0, sign]]), np.zeros(2)])
    return model


def images_with_bright_cell(row: int, column: int, value: float = 100.0) -> np.ndarray:
    images = np.zeros((1, SIZE, SIZE, 3), np.float32)
    images[:, row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = value
    return images


def random_images(count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (count, SIZE, SIZE, 3)).astype(np.float32)


def gradcam_by_hand(model: keras.Model, images: np.ndarray, layer: str, index: int) -> np.ndarray:
    """Compute Grad-CAM with a tape, the score before softmax worked out from the weights."""
    activations = model.get_layer(layer).output
    dense, last = model.get_layer("dense"), model.get_layer("probabilities")
    to_layer = keras.Model(model.input, activations)
    with tf.GradientTape() as tape:
        cells = to_layer(images, training=False)
        tape.watch(cells)
        hidden = tf.nn.relu(tf.reshape(cells, (len(images), -1)) @ dense.kernel + dense.bias)
        score = (hidden @ last.kernel + last.bias)[:, index]
    weights = tf.reduce_mean(tape.gradient(score, cells), axis=(1, 2), keepdims=True)
    cams = tf.nn.relu(tf.reduce_sum(weights * cells, axis=-1, keepdims=True))
    return tf.image.resize(cams, images.shape[1:3], method="bilinear").numpy()[..., 0]


@pytest.mark.parametrize("class_index", [NORMAL, PNEUMONIA])
def test_maps_equal_grad_cam_by_hand(class_index, monkeypatch):
    monkeypatch.setattr(heat_maps, "BATCH_SIZE", 2)
    model, images = build_model(), random_images(5)
    maps = explain_images(model, images, "block_out", class_index)
    assert maps.shape == (5, SIZE, SIZE) and maps.dtype == np.float32
    assert maps.min() >= 0 and maps.max() > 0
    expected = gradcam_by_hand(model, images, "block_out", class_index)
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-6)


def test_maps_are_not_normalised():
    model = build_spotlight()
    faint = explain_images(model, images_with_bright_cell(1, 2, 1.0), "brightness")
    strong = explain_images(model, images_with_bright_cell(1, 2, 100.0), "brightness")
    np.testing.assert_allclose(strong, 100 * faint, rtol=1e-5)


@pytest.mark.parametrize("row, column", [(0, 0), (1, 2), (3, 3)])
def test_a_bright_cell_is_found_where_it_is(row, column):
    images = images_with_bright_cell(row, column)
    cam = explain_images(build_spotlight(), images, "brightness")[0]
    inside = np.zeros((SIZE, SIZE), bool)
    inside[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = True
    assert pointing_hit(cam, inside) == 1
    # Interpolation spreads the cell to its neighbors, evenly on both sides.
    center = (np.arange(SIZE) * cam.sum(axis=1)).sum() / cam.sum()
    if 0 < row < 3:
        assert center == pytest.approx(row * CELL + (CELL - 1) / 2, abs=0.01)


def test_evidence_against_the_class_gives_a_zero_map_without_division():
    model = build_spotlight(sign=-1.0)
    with np.errstate(all="raise"):
        maps = explain_images(model, images_with_bright_cell(1, 1), "brightness")
    assert np.array_equal(maps, np.zeros((1, SIZE, SIZE)))
    assert zero_maps(maps).tolist() == [True]
    assert explain_images(model, images_with_bright_cell(1, 1), "brightness", NORMAL).max() == 0


def test_zero_maps_are_told_apart():
    maps = np.zeros((3, 4, 4))
    maps[1, 2, 3] = 1e-9
    assert zero_maps(maps).tolist() == [True, False, True]
    assert zero_maps(np.zeros((0, 4, 4))).tolist() == []


def test_a_certain_model_still_gives_a_map():
    # After softmax the gradient of a probability of 1 is 0; before it, it is not.
    model = build_spotlight(sign=10.0)
    images = images_with_bright_cell(1, 1, 255.0)
    assert model.predict(images, verbose=0)[0, PNEUMONIA] == 1
    assert explain_images(model, images, "brightness").max() > 10


def test_the_callers_model_is_not_changed():
    model, images = build_model(), random_images(2)
    before, config = model.get_weights(), model.to_json()
    predicted = model.predict(images, verbose=0)
    explain_images(model, images, "block_out")
    assert model.get_layer("probabilities").activation is keras.activations.softmax
    assert model.to_json() == config
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(model.predict(images, verbose=0), predicted)


def test_an_exported_model_gives_the_same_maps(tmp_path):
    model, images = build_model(), random_images(2)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_allclose(
        explain_images(loaded, images, "block_out"),
        explain_images(model, images, "block_out"),
        rtol=1e-6,
    )


def test_batches_do_not_change_the_maps(monkeypatch):
    model, images = build_model(), random_images(5)
    whole = explain_images(model, images, "block_out")
    for size in (1, 2, 5):
        monkeypatch.setattr(heat_maps, "BATCH_SIZE", size)
        np.testing.assert_allclose(
            explain_images(model, images, "block_out"), whole, rtol=1e-5, atol=1e-7
        )
    assert explain_images(model, images[:0], "block_out").shape == (0, SIZE, SIZE)


def test_pixels_of_whole_numbers_are_taken():
    model, images = build_model(), random_images(2).astype(np.uint8)
    np.testing.assert_array_equal(
        explain_images(model, images, "block_out"),
        explain_images(model, images.astype(np.float32), "block_out"),
    )


# --- Methods and outputs ---------------------------------------------------------------------


def scores_and_gradients(model: keras.Model, images: np.ndarray, layer: str, index: int):
    """Return cells of `layer`, and the gradient of the class score with respect to them."""
    scores = build_score_model(model)
    both = keras.Model(scores.input, [scores.get_layer(layer).output, scores.output])
    with tf.GradientTape() as tape:
        cells, values = both(images, training=False)
        score = values[:, index]
    return cells.numpy(), tape.gradient(score, cells).numpy(), score.numpy()


def test_class_scores_give_the_probabilities_back():
    model, images = build_model(), random_images(3)
    scores = build_score_model(model).predict(images, verbose=0)
    expected = model.predict(images, verbose=0)
    np.testing.assert_allclose(keras.ops.softmax(scores), expected, rtol=1e-5)


@pytest.mark.parametrize("class_index", [NORMAL, PNEUMONIA])
def test_layercam_by_hand(class_index):
    model, images = build_model(), random_images(3)
    cells, gradients, _ = scores_and_gradients(model, images, "block_out", class_index)
    by_hand = np.maximum((cells * np.maximum(gradients, 0)).sum(-1, keepdims=True), 0)
    expected = tf.image.resize(by_hand, (SIZE, SIZE)).numpy()[..., 0]
    maps = explain_images(model, images, "block_out", class_index, method="layercam")
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-6)


def test_gradcam_plus_plus_by_hand():
    model, images = build_model(), random_images(3)
    cells, gradients, score = scores_and_gradients(model, images, "block_out", PNEUMONIA)
    places = cells.sum(axis=(1, 2), keepdims=True)
    denominator = 2 * gradients**2 + places * gradients**3
    alpha = np.divide(gradients**2, denominator, out=np.zeros_like(gradients), where=gradients != 0)
    total = alpha.sum(axis=(1, 2), keepdims=True)
    alpha = np.divide(alpha, total, out=np.zeros_like(alpha), where=total != 0)
    rising = np.maximum(np.exp(score)[:, None, None, None] * gradients, 0)
    weights = (alpha * rising).sum(axis=(1, 2), keepdims=True)
    by_hand = np.maximum((weights * cells).sum(-1, keepdims=True), 0)
    expected = tf.image.resize(by_hand, (SIZE, SIZE)).numpy()[..., 0]
    maps = explain_images(model, images, "block_out", method="gradcam_plus_plus")
    np.testing.assert_allclose(maps, expected, rtol=1e-3, atol=1e-6)


def test_scorecam_weighs_channels_by_what_they_let_through(capfd):
    images = images_with_bright_cell(1, 2)
    # One channel, the brightness: the masked image is the image, its probability the weight.
    model = build_spotlight()
    cells = keras.Model(model.input, model.get_layer("brightness").output)(images)
    probability = model.predict(images, verbose=0)[0, PNEUMONIA]
    expected = tf.image.resize(probability * cells, (SIZE, SIZE)).numpy()[..., 0]
    maps = explain_images(model, images, "brightness", method="scorecam")
    np.testing.assert_allclose(maps, expected, rtol=1e-4)
    assert "step" not in capfd.readouterr().out


def test_smoothgrad_is_the_mean_gradient_of_noisy_copies():
    model, images = build_model(), random_images(1)
    spread = NOISE * (images.max() - images.min())
    shape = (NOISY_COPIES, *images.shape[1:])
    noisy = images + np.random.default_rng(NOISE_SEED).normal(0, spread, shape)
    scores = build_score_model(model)
    inputs = tf.constant(noisy, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        score = scores(inputs, training=False)[:, PNEUMONIA]
    expected = np.abs(tape.gradient(score, inputs)).mean(axis=0).max(axis=-1)
    maps = explain_images(model, images, method="smoothgrad")
    np.testing.assert_allclose(maps[0], expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_a_map_does_not_depend_on_its_batch(method, monkeypatch):
    model, images = build_model(), random_images(4)
    maps = explain_images(model, images, "block_out", method=method)
    assert maps.shape == (4, SIZE, SIZE) and maps.min() >= 0 and maps.max() > 0
    monkeypatch.setattr(heat_maps, "BATCH_SIZE", 1)
    alone = explain_images(model, images[2:3], "block_out", method=method)
    np.testing.assert_allclose(alone[0], maps[2], rtol=1e-4, atol=1e-7)


def build_sigmoid_twin(model: keras.Model) -> keras.Model:
    """Build the same model with one sigmoid unit: its score is the difference of both."""
    last = model.get_layer("probabilities")
    kernel, bias = last.get_weights()
    unit = layers.Dense(1, activation="sigmoid", name="probability")
    features = keras.models.clone_model(model)
    features.set_weights(model.get_weights())
    twin = keras.Model(features.inputs, unit(features.get_layer("probabilities").input))
    unit.set_weights([kernel[:, 1:] - kernel[:, :1], bias[1:] - bias[:1]])
    return twin


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("class_index", [NORMAL, PNEUMONIA])
def test_one_sigmoid_unit_is_explained_for_both_classes(method, class_index):
    model, images = build_model(), random_images(2)
    # The softmax whose two scores are symmetric is the same function as one sigmoid unit.
    kernel, bias = model.get_layer("probabilities").get_weights()
    difference, offset = (kernel[:, 1] - kernel[:, 0]) / 2, (bias[1] - bias[0]) / 2
    model.get_layer("probabilities").set_weights(
        [np.stack([-difference, difference], axis=1), np.array([-offset, offset])]
    )
    twin = build_sigmoid_twin(model)
    np.testing.assert_allclose(
        twin.predict(images, verbose=0)[:, 0], model.predict(images, verbose=0)[:, 1], rtol=1e-5
    )
    np.testing.assert_allclose(
        explain_images(twin, images, "block_out", class_index, method=method),
        explain_images(model, images, "block_out", class_index, method=method),
        rtol=1e-3, atol=1e-6,
    )  # fmt: skip


def test_the_two_classes_of_a_sigmoid_unit_are_told_apart():
    twin, images = build_sigmoid_twin(build_spotlight()), images_with_bright_cell(1, 1)
    assert explain_images(twin, images, "brightness", PNEUMONIA).max() > 0
    assert explain_images(twin, images, "brightness", NORMAL).max() == 0
    with pytest.raises(ValueError, match="class_index must lie in 0 to 1, not 2"):
        explain_images(twin, images, "brightness", 2)


@pytest.mark.slow
def test_an_ensemble_is_explained_by_the_mean_of_its_members(tmp_path):
    members = [build_network("small_cnn", 32, seed, full_size=True) for seed in (0, 1)]
    images = np.random.default_rng(0).uniform(0, 255, (1, 224, 224, 3)).astype(np.float32)
    average_networks(members, "both").save(tmp_path / "both.keras")
    both = keras.models.load_model(tmp_path / "both.keras", compile=False)
    each = [explain_images(member, images) for member in members]
    assert not np.allclose(each[0], each[1])
    np.testing.assert_allclose(
        explain_images(both, images), np.mean(each, axis=0), rtol=1e-4, atol=1e-7
    )


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_network_of_the_study_is_explained(architecture):
    model = build_network(architecture, 32, seed=0)
    images = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 1)).astype(np.float32)
    for method in METHODS:
        maps = explain_images(model, images, method=method)
        assert maps.shape == (1, 32, 32) and maps.min() >= 0
    layer = model.get_layer(default_layer(model))
    assert layer.output.shape[1] == layer.output.shape[2] > 1


def test_an_unknown_method_lists_those_there_are():
    with pytest.raises(ValueError, match="no method 'lime'; choose one of gradcam, "):
        explain_images(build_model(), random_images(1), method="lime")


def test_the_default_layer_is_that_of_the_backbone():
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(2, 3, name="block5_conv4")(image)
    model = keras.Model(image, layers.GlobalAveragePooling2D()(x))
    assert default_layer(model) == "block5_conv4"


def test_without_a_known_backbone_the_last_layer_with_places_is_taken():
    assert default_layer(build_model()) == "block_out"
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(2, 3, name="conv")(image)
    x = layers.GlobalAveragePooling2D(keepdims=True, name="mean")(x)
    assert default_layer(keras.Model(image, x)) == "conv"
    flat = keras.Model(image, layers.Dense(2, activation="softmax")(layers.Flatten()(image)))
    with pytest.raises(ValueError, match="no layer with spatial output"):
        default_layer(flat)


@pytest.mark.parametrize("layer", ["conv5_block3_out", "flatten", "probabilities", "image"])
def test_an_unknown_layer_lists_the_candidates(layer):
    with pytest.raises(ValueError, match=f"no layer '{layer}'.*stem, block_conv.*block_out"):
        explain_images(build_model(), random_images(1), layer)


def test_a_long_list_of_candidates_is_cut():
    image = x = keras.Input((SIZE, SIZE, 3))
    for number in range(20):
        x = layers.Activation("relu", name=f"step_{number}")(x)
    model = keras.Model(image, layers.Dense(2, activation="softmax")(layers.Flatten()(x)))
    with pytest.raises(ValueError, match="step_8, .*step_19 .and 8 before them"):
        explain_images(model, random_images(1), "step_20")


@pytest.mark.parametrize("method", ["gradcam", "scorecam", "smoothgrad"])
def test_a_sequential_model_is_explained_as_its_graph_is(method):
    keras.utils.set_random_seed(1)
    sequential = keras.Sequential([
        keras.Input((16, 16, 3)), layers.Conv2D(4, 3, activation="relu", name="conv"),
        layers.GlobalAveragePooling2D(), layers.Dense(1, activation="sigmoid"),
    ])  # fmt: skip
    graph = keras.Model(sequential.inputs[0], sequential.outputs[0])
    images = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3)).astype("float32")
    maps = explain_images(sequential, images, class_index=0, method=method)
    np.testing.assert_array_equal(maps, explain_images(graph, images, None, 0, method))
    assert not zero_maps(maps).all()


def test_a_sequential_model_without_input_is_refused_with_the_remedy():
    model = keras.Sequential([layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(2, "softmax")])
    with pytest.raises(ValueError, match="does not know its input yet; begin it with keras.Input"):
        explain_images(model, np.zeros((1, 16, 16, 3)))


def test_a_nested_trunk_is_refused_with_the_remedy():
    inner = build_model()
    image = keras.Input((SIZE, SIZE, 3))
    nested = keras.Model(image, inner(image))
    with pytest.raises(ValueError, match="one flat graph"):
        explain_images(nested, random_images(1), "block_out")


def test_an_output_without_activation_is_refused():
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3, name="conv")(image))
    model = keras.Model(image, layers.Softmax(name="softmax")(x))
    with pytest.raises(ValueError, match="'softmax', and what comes before .* is unknown"):
        explain_images(model, random_images(1), "conv")


def test_images_and_class_are_checked():
    model = build_model()
    with pytest.raises(ValueError, match=r"\(2, 16, 16, 3\).*\(n, 32, 32, 3\)"):
        explain_images(model, np.zeros((2, 16, 16, 3)), "block_out")
    with pytest.raises(ValueError, match="class_index must lie in 0 to 1, not 2"):
        explain_images(model, random_images(1), "block_out", 2)
    with pytest.raises(ValueError, match="not finite"):
        explain_images(model, np.full((1, SIZE, SIZE, 3), np.nan), "block_out")


# --- Cases -----------------------------------------------------------------------------------


def make_predictions() -> pd.DataFrame:
    rows = []
    for number in range(40):
        y_true = int(number % 2)
        kind = "bacteria" if y_true else "normal"
        right = number % 8 < 6
        probability = 0.9 if right == bool(y_true) else 0.1
        rows.append((f"test/{number:03}.jpeg", f"person-{number}-{kind}", y_true, probability))
    table = pd.DataFrame(rows, columns=["image_id", "patient_id", "y_true", "probability"])
    return table.assign(split="test")


def test_cases_are_right_and_wrong_ones_of_both_classes():
    cases = select_cases(make_predictions(), 0.5, 3, seed=1)
    assert cases.case.tolist() == [case for case in CASES for _ in range(3)]
    assert cases.title.tolist() == [CASES[case] for case in cases.case]
    positive, predicted = cases.y_true == PNEUMONIA, cases.probability >= 0.5
    expected = np.select(
        [positive & predicted, positive & ~predicted, ~positive & ~predicted],
        ["TP", "FN", "TN"],
        default="FP",
    )
    assert cases.case.tolist() == expected.tolist()
    assert cases.image_id.is_unique


def test_the_draw_depends_on_the_seed_alone():
    predictions = make_predictions()
    first = select_cases(predictions, 0.5, 3, seed=1)
    shuffled = predictions.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(select_cases(shuffled, 0.5, 3, seed=1), first)
    assert not select_cases(predictions, 0.5, 3, seed=2).equals(first)


def test_a_probability_at_the_threshold_is_called_pneumonia():
    predictions = make_predictions().head(2).assign(probability=0.3)
    assert select_cases(predictions, 0.3, 1, seed=0).case.tolist() == ["TP", "FP"]
    assert select_cases(predictions, 0.31, 1, seed=0).case.tolist() == ["FN", "TN"]


def test_fewer_cases_where_there_are_fewer():
    predictions = make_predictions()
    perfect = predictions.assign(probability=predictions.y_true.astype(float))
    cases = select_cases(perfect, 0.5, 50, seed=0)
    assert cases.case.value_counts().to_dict() == {"TP": 20, "TN": 20}


def test_a_patient_comes_twice_only_if_there_is_no_other():
    predictions = make_predictions().assign(y_true=1, probability=0.9)
    predictions["patient_id"] = ["person-1-virus"] * 38 + ["person-2-virus", "person-3-virus"]
    for seed in range(5):
        cases = select_cases(predictions, 0.5, 4, seed)
        assert cases.patient_id.nunique() == 3 and len(cases) == 4
    nameless = predictions.assign(patient_id="")
    assert len(select_cases(nameless, 0.5, 4, 0)) == 4


def test_cases_check_their_input():
    predictions = make_predictions()
    with pytest.raises(ValueError, match="n must be 1 or more, not 0"):
        select_cases(predictions, 0.5, 0, 0)
    with pytest.raises(ValueError, match="not 1.5"):
        select_cases(predictions, 1.5, 1, 0)
    mixed = predictions.assign(split=["test", "train"] * 20)
    with pytest.raises(ValueError, match="2 splits .test, train."):
        select_cases(mixed, 0.5, 1, 0)
    with pytest.raises(ValueError, match="y_true"):
        select_cases(predictions.assign(y_true=2), 0.5, 1, 0)
