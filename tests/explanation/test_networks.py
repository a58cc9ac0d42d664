"""The networks that are compared with the explained one, on small ones."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from utils.common.files import write_json
from utils.common.paths import choices_file
from utils.common.study import load_study
from utils.explanation import networks
from utils.explanation.networks import (
    LEVELS,
    find_compared,
    find_explained,
    phantom_recipe,
    random_label_recipe,
    randomize_in_steps,
)
from utils.models.architectures import build_network
from utils.models.registry import RELEASED_MODEL, SHIPPED_MODEL
from utils.selection.candidates import find_candidate
from utils.training.fine_tuning import train_candidate


def test_weights_are_randomized_from_the_output_on_and_the_network_is_left_alone():
    network = build_network("efficientnet_lite0", 64, seed=0)
    before = network.get_weights()
    still_equal = []
    for _, copy in randomize_in_steps(network, seed=0):
        pairs = zip(network.layers, copy.layers, strict=True)
        still_equal.append([
            all(np.array_equal(a, b) for a, b in zip(x.get_weights(), y.get_weights(), strict=True))
            for x, y in pairs
            if isinstance(x, keras.layers.Conv2D | keras.layers.Dense)
        ])  # fmt: skip
    assert len(still_equal) == LEVELS
    counts = [sum(step) for step in still_equal]
    assert counts[0] == len(still_equal[0]) - 1 and not still_equal[0][-1], "the output is first"
    assert counts == sorted(counts, reverse=True) and counts[-1] == 0
    assert all(np.array_equal(a, b) for a, b in zip(before, network.get_weights(), strict=True))


def test_the_full_study_explains_the_released_network_and_the_sample_its_own(tmp_path, monkeypatch):
    full = load_study("full")
    assert find_explained(full).title == RELEASED_MODEL
    assert [each.title for each in find_compared(full)] == [SHIPPED_MODEL]
    network = find_explained(full).load()
    assert network.input_shape == (None, 224, 224, 3)
    assert not any(isinstance(layer, keras.Model) for layer in network.layers), "it is flat"
    taught, random = phantom_recipe(full), random_label_recipe(full)
    assert (taught.smallest_crop, taught.image_size) == (0.08, 224)
    assert (random.smallest_crop, random.image_size, random.transforms) == (0, 128, ())

    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    write_json(choices_file("sample"), {"single": "lite0_96_none"})
    sample = load_study("sample")
    assert find_explained(sample).title == "lite0_96_none_seed42"
    assert find_compared(sample) == []
    assert phantom_recipe(sample).epochs == sample.candidate_epochs


@pytest.mark.slow
def test_a_network_is_trained_once_for_the_same_images(tmp_path, monkeypatch):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    recipe = replace(find_candidate("small_cnn_64_robust"), name="once", epochs=1)
    images = np.random.default_rng(0).integers(0, 256, (32, recipe.size, recipe.size, 1), np.uint8)
    labels, trained = np.arange(32) % 2, []

    def train(*arguments):
        trained.append(arguments[0].name)
        return train_candidate(*arguments)

    monkeypatch.setattr(networks, "train_candidate", train)
    first, again = (
        networks._train_full_size(load_study("sample"), recipe, images, labels) for _ in range(2)
    )
    assert trained == ["once"]
    pairs = zip(first.get_weights(), again.get_weights(), strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)
    networks._train_full_size(load_study("sample"), recipe, images, labels[::-1])
    assert trained == ["once", "once"], "other labels are another network"
