"""A study: everything that a run of the notebooks can be told, read from one file."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from utils.common.paths import ROOT

Fraction = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class StudyError(ValueError):
    """A study file that cannot be used; the message names the key and the remedy."""


class Study(BaseModel):
    """The parameters of one study, passed to the notebooks by papermill."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    study: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    """Name of the study and of its folders in `results/` and `figures/`."""
    dataset_name: Literal["phantoms", "chest_xray"]
    """Folder below `data/`; `phantoms` is rendered where it is absent."""
    seed: int
    validation_fraction: Fraction
    """Fraction of the patients outside the test set that is held out for validation."""
    weights: Literal["imagenet", "random"]
    allow_random_weights: bool
    """Whether to go on, loudly, with random weights where ImageNet's cannot be had."""
    views: Count
    """Augmented copies of each training image; epoch e trains on copy e mod copies."""
    vgg19_views: Count
    """The same for the VGG19 baseline, whose forward pass costs four times ResNet50's."""
    epochs: Count
    """Upper limit; early stopping may end before."""
    stopping_patience: Count
    """Epochs without a lower validation loss after which training ends."""
    plateau_patience: Count
    """Epochs without a lower validation loss after which the learning rate is reduced."""
    batch_size: Count
    learning_rate: Annotated[float, Field(gt=0)]
    resamples: Count
    """Bootstrap resamples behind each interval."""
    candidates: list[str] | None
    """Names in `utils.selection.candidates` that notebooks 07 and 08 compare; null takes all."""
    candidate_epochs: Count | None
    """Epochs of each candidate in place of its own; null leaves them."""
    screening_folds: list[str]
    """Folds of `utils.data.splits` on which all candidates are trained."""
    second_round_folds: list[str]
    """Those on which the candidates that may be chosen are trained."""
    controls: list[str] | None
    """Candidates that notebook 09 finishes with the first seed whether they are chosen or not, so
    that the criteria can be judged on bad models too; null takes `candidates.CONTROLS`."""
    leakage_epochs: Count
    """Epochs of notebook 11's training runs with flawed validation; none stops early."""
    final_seeds: list[int]
    """Seeds of the final models of notebook 09."""
    explained_images: Count
    """Test images, both classes alike, whose heat maps `make explain` tests."""
    known_phantoms: Count
    """Phantoms, normal ones included, whose heat maps it compares with their opacities."""
    draw_cases: bool
    """Whether notebook 12 draws test images with their heat maps."""

    def __hash__(self) -> int:
        """Let `functools` keep what was made for a study."""
        return hash(self.model_dump_json())


def load_study(name: str, **changes: Any) -> Study:
    """Read `studies/<name>.yaml`.

    Args:
        name: Of the study.
        changes: Values in place of the file's, such as the parameters of a notebook.

    Raises:
        StudyError: if there is no such file, a key is unknown or missing, or a value is unusable.
    """
    folder = ROOT / "studies"
    file = folder / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        raise StudyError(f"there is no study {name!r}; choose one of {known}")
    return read_study(file, **changes)


def read_study(file: Path, **changes: Any) -> Study:
    """Read a study from any file; see `load_study`."""
    try:
        study = Study.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")) | changes)
    except (ValidationError, yaml.YAMLError) as error:
        raise StudyError(f"{file} is not a usable study: {error}") from error
    if study.study != file.stem:
        raise StudyError(f"{file} names its study {study.study!r}; it must be {file.stem!r}")
    return study
