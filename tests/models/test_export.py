import time

import numpy as np
import pytest

from utils.common.files import file_sha256
from utils.models import export
from utils.models.architectures import build_network
from utils.models.export import TooLargeError, export_model, shrink_model


@pytest.mark.slow
def test_a_shrunk_model_is_half_as_large_and_says_the_same(tmp_path):
    import keras

    network = build_network("small_cnn", 64, seed=1, full_size=True)
    export_model(network, tmp_path / "whole.keras")
    images = np.random.default_rng(0).uniform(0, 255, (4, 224, 224, 3)).astype("float32")
    before = network.predict(images, verbose=0)
    size = shrink_model(network, tmp_path / "small.keras")
    assert size == (tmp_path / "small.keras").stat().st_size
    assert size < 0.65 * (tmp_path / "whole.keras").stat().st_size
    loaded = keras.models.load_model(tmp_path / "small.keras", compile=False, safe_mode=True)
    np.testing.assert_allclose(loaded.predict(images, verbose=0), before, atol=2e-3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.keras", "whole.keras"]
    hashes = []
    for _ in range(2):
        whole = keras.models.load_model(tmp_path / "whole.keras", compile=False)
        shrink_model(whole, tmp_path / "small.keras")
        hashes.append(file_sha256(tmp_path / "small.keras"))
        time.sleep(1.1)  # Keras notes the second in which it saves
    assert hashes[0] == hashes[1], "the same model gives the same file"


@pytest.mark.slow
def test_what_does_not_fit_is_refused(tmp_path, monkeypatch):
    network = build_network("small_cnn", 32, seed=1)
    monkeypatch.setattr(export, "LARGEST_BYTES", 1000)
    with pytest.raises(TooLargeError, match="take a smaller network"):
        shrink_model(network, tmp_path / "small.keras")
    assert not list(tmp_path.iterdir())
    network.get_layer("probabilities").bias.assign([1e6, 0.0])
    with pytest.raises(TooLargeError, match=r"bias holds 1e\+06"):
        shrink_model(network, tmp_path / "small.keras")
