"""What pretrained weights are: their provenance, their hash, and the errors of having none."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

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
