"""A recipe: one network and how it is trained."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from utils.common.constants import IMAGE_SIZE


@dataclass(frozen=True)
class Candidate:
    """A network and how it is trained."""

    name: str
    architecture: str
    size: int
    """Side of the gray image that the network receives, in pixels."""
    transforms: tuple[str, ...] = ()
    """Of `acquisition.TRANSFORMS`."""
    first_trained: str = "all"
    """First layer that is trained, `all`, or `head`; everything before it is frozen."""
    epochs: int = 6
    learning_rate: float = 1e-4
    batch_size: int = 32
    weight_decay: float = 1e-4
    label_smoothing: float = 0.05
    class_weights: bool = True
    """Whether both classes weigh the same in the loss."""
    averaging: float = 0.0
    """Momentum of the exponential moving average of the weights; 0 keeps the last ones."""
    trained_statistics: bool = False
    """Whether batch normalization that starts from ImageNet learns new statistics."""
    dropout: float = 0.3
    equalized: float = 0.0
    """Share of the training images that are seen after CLAHE."""
    mixup: float = 0.0
    """Alpha of the Beta distribution by which two images and their labels are mixed; 0 mixes
    none."""
    smallest_crop: float = 0.0
    """Least share of the area that a random crop of a 224-pixel image keeps, see
    `data.augmentation`; 1 takes the whole image by the same way, and at 0 images come reduced to
    `size` and uncropped."""
    bottom_rate: float = 1.0
    """Learning rate of the first layer as a share of the last one's; it falls geometrically
    between them."""
    gradual: bool = False
    """Whether the head trains alone at first and the others join it from above, until all train
    at half of the epochs."""

    @property
    def image_size(self) -> int:
        """Side of the gray images that a training is given: crops are cut from 224 pixels."""
        return IMAGE_SIZE if self.smallest_crop else self.size

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Candidate":
        """Return the candidate that `describe` recorded; what the record lacks is the default."""
        return cls(**{**record, "transforms": tuple(record["transforms"])})

    def describe(self) -> dict[str, Any]:
        """Return the candidate as a record, as JSON gives it back."""
        return asdict(self) | {"transforms": list(self.transforms)}
