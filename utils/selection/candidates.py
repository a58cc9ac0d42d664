"""The candidates of notebooks 07 and 08, in the order in which they are trained."""

import re
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from utils.data.acquisition import MILD_GEOMETRY, STRONG_GEOMETRY
from utils.models.recipe import Candidate

AGAINST_SHORTCUTS = (
    "exposure", "spectrum", "spectrum_transfer", "histogram_transfer", "noise", "frame",
)  # fmt: skip
"""Transforms that vary the shortcut features of notebook 07."""
ROBUST = (*MILD_GEOMETRY, *AGAINST_SHORTCUTS)

_BASE = Candidate("lite0_96_robust", "efficientnet_lite0", 96, ROBUST, learning_rate=3e-4)
"""What the ablation changes one thing of: cheap, and trained as a whole."""


def _variant(name: str, **changes: object) -> Candidate:
    return replace(_BASE, name=name, **changes)


AUGMENTATION = (
    _variant("lite0_96_none", transforms=()),
    _variant("lite0_96_reference", transforms=STRONG_GEOMETRY),
    _variant("lite0_96_mild", transforms=MILD_GEOMETRY),
    *(
        _variant(f"lite0_96_mild_{name}", transforms=(*MILD_GEOMETRY, name))
        for name in (*AGAINST_SHORTCUTS, "resample")
    ),
    _variant("lite0_96_mild_clahe", transforms=MILD_GEOMETRY, equalized=0.5),
    _BASE,
)
"""Augmentation, one change a row."""

DEPTH = (
    _variant("lite0_96_head", first_trained="head"),
    _variant("lite0_96_from_block12", first_trained="block12_expand_conv"),
    _variant("lite0_96_from_block6", first_trained="block6_expand_conv"),
    _variant("lite0_96_gradual", gradual=True),
    _variant("lite0_96_discriminative", bottom_rate=0.1),
)
"""Where training begins: the head alone, the last stages, more of them; `_BASE` trains all."""

RECIPE = (
    _variant("lite0_96_statistics", trained_statistics=True),
    _variant("lite0_96_averaged", averaging=0.99),
    _variant("lite0_96_unweighted", class_weights=False),
    _variant("lite0_96_hard_labels", label_smoothing=0.0),
    _variant("lite0_96_mixup", mixup=0.2),
    _variant("lite0_96_slow", learning_rate=1e-4),
    _variant("lite0_96_long", epochs=12),
)

_AT_64 = _variant("lite0_64_robust", size=64)
SIZE = (
    _AT_64,
    _variant("lite0_128_robust", size=128),
    _variant("lite0_160_robust", size=160),
    _variant("lite0_128_long", size=128, epochs=12),
    _variant("lite0_224_robust", size=224),
)

ARCHITECTURE = (
    _variant("resnet50_64_robust", architecture="resnet50", size=64, learning_rate=1e-4),
    _variant("small_cnn_64_robust", architecture="small_cnn", size=64, learning_rate=1e-3,
             epochs=12),
    _variant("hybrid_vit_64_robust", architecture="hybrid_vit", size=64, learning_rate=1e-4),
    _variant("plain_vit_64_robust", architecture="plain_vit", size=64, learning_rate=5e-4,
             epochs=12),
)  # fmt: skip
"""Other networks under the same augmentation; those without pretrained weights get twice the
epochs."""

NETWORKS = (_AT_64, *ARCHITECTURE)
"""What notebook 08 compares: one input size, one augmentation."""
FINE_TUNING = (*AUGMENTATION, *DEPTH, *RECIPE, *SIZE)
"""What notebook 07 compares; notebook 08 adds the other architectures."""
CANDIDATES = (*FINE_TUNING, *ARCHITECTURE)
CUT = (
    "lite0_96_mild_spectrum_transfer", "lite0_96_mild_noise", "lite0_96_mild_resample",
    "lite0_96_mild_clahe", "lite0_96_from_block12", "lite0_96_gradual",
    "lite0_96_discriminative", "lite0_96_unweighted", "lite0_96_hard_labels", "lite0_96_mixup",
    "lite0_96_slow", "lite0_224_robust",
)  # fmt: skip
"""Names of candidates not trained when the budget ran out (`docs/selection_rule.md` has it): a
study that takes all leaves them out, and `make screen CANDIDATES=` trains them on demand."""
CONTROLS = (
    "lite0_96_none", "lite0_96_reference", "lite0_96_mild", "lite0_96_robust",
    "small_cnn_64_robust",
)  # fmt: skip
"""Final models whether they are chosen or not: the criteria are judged on poor models, too."""
BASE, MILD, NETWORK_BASE = _BASE.name, "lite0_96_mild", _AT_64.name
"""Names of what the rows of 07's recipe, of its augmentation, and of 08 are compared with."""


_NETWORK_WORDS = {
    "lite0": "EfficientNet-Lite0", "resnet50": "ResNet50", "small_cnn": "small CNN",
    "hybrid_vit": "hybrid transformer", "plain_vit": "plain transformer",
}  # fmt: skip
_RECIPE_WORDS = {
    "none": "no augmentation", "reference": "strong geometry", "head": "head alone",
    "from_block6": "from block 6", "from_block12": "from block 12",
    "gradual": "unfrozen gradually", "discriminative": "early layers slower",
    "statistics": "new statistics", "averaged": "averaged weights",
    "unweighted": "classes unweighted", "hard_labels": "no label smoothing",
    "slow": "lower learning rate", "long": "twice the epochs",
}  # fmt: skip
_NAME = re.compile(rf"({'|'.join(_NETWORK_WORDS)})_(\d+)_(\w+)")


def displayed_candidate(name: str, *, short: bool = False) -> str:
    """Return what figures show for a candidate's stored name; other names are returned as they are.

    Args:
        name: Such as `lite0_96_mild_frame`, which is shown as
            `EfficientNet-Lite0, 96 px, mild + frame`.
        short: Whether to leave out the network, where all have the same: `96 px, mild + frame`.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return name
    network, size, recipe = match.groups()
    words = _RECIPE_WORDS.get(recipe, recipe).replace("mild_", "mild + ").replace("_", " ")
    parts = [_NETWORK_WORDS[network], f"{size} px", words]
    return ", ".join(parts[1:] if short else parts)


def pick_candidates(
    names: Sequence[str] | None, epochs: int | None, among: Sequence[Candidate] = CANDIDATES
) -> list[Candidate]:
    """Return the candidates of a study, in the order of the list.

    Args:
        names: Those that the study trains; None takes all but `CUT`.
        epochs: In place of each candidate's own; None leaves them.
        among: Part of the list that is wanted.

    Raises:
        KeyError: if a name is unknown.
    """
    if names is None:
        wanted = [candidate for candidate in among if candidate.name not in CUT]
    else:
        wanted = [find_candidate(name) for name in names]
    return [
        candidate if epochs is None else replace(candidate, epochs=epochs)
        for candidate in among
        if candidate in wanted
    ]


def select_rows(table: pd.DataFrame, group: Sequence[Candidate]) -> pd.DataFrame:
    """Return the rows of a table whose `candidate` belongs to a group of the list."""
    return table[table.candidate.isin([candidate.name for candidate in group])]


def find_candidate(name: str) -> Candidate:
    """Return the candidate of a name.

    Raises:
        KeyError: naming those that there are.
    """
    for candidate in CANDIDATES:
        if candidate.name == name:
            return candidate
    raise KeyError(
        f"there is no candidate {name!r}; choose of "
        f"{', '.join(candidate.name for candidate in CANDIDATES)}"
    )
