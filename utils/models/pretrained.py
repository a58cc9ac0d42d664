"""What pretrained weights are: their provenance, their hash, and the errors of having none."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

IMAGENET = "ImageNet"
RANDOM = "random"


class WeightsError(RuntimeError):
    """Weights that cannot be had or are not what they should be."""


class NotAvailable(Exception):
    """One source does not have the weights; the message says which and why."""


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
        """Return what a result must record of its weights; the banner is empty for ImageNet's."""
        return {
            "backbone": self.backbone,
            "description": self.description,
            "source": self.source,
            "sha256": self.sha256,
            "banner": self.banner,
        }


def values_sha256(model: keras.Model) -> str:
    """Return the SHA-256 of all weight values, whatever file they came from."""
    digest = hashlib.sha256()
    for variable in model.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).tobytes())
    return digest.hexdigest()


def describe_graph(model: keras.Model) -> list[Any]:
    """Describe what a model computes apart from its weights: layers, settings, connections.

    Names that Keras numbers through a session are replaced by a layer's position, and what does
    not change the result is left out, so that the same network has the same description always.
    """
    described = model.get_config()["layers"]
    position = {layer["name"]: f"layer {number}" for number, layer in enumerate(described)}

    def normalize(value: Any) -> Any:
        if isinstance(value, dict):
            # Shapes as built repeat the input's; trainable says nothing on a frozen backbone.
            skipped = ("trainable", "build_config")
            return {key: normalize(part) for key, part in value.items() if key not in skipped}
        if isinstance(value, list | tuple):
            return [normalize(part) for part in value]
        return position.get(value, value) if isinstance(value, str) else value

    return normalize(described)
