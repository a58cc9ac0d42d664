"""What final models predict for test images of which a part is covered."""

from collections.abc import Sequence
from functools import partial

import keras
import pandas as pd

from utils.common.files import cached_table
from utils.common.paths import model_file, results_dir, table_file
from utils.common.provenance import read_provenance
from utils.common.study import Study
from utils.data.images import load_images
from utils.data.index import open_study_index
from utils.data.regions import REGIONS, cover_region
from utils.evaluation.metrics import evaluate_predictions
from utils.evaluation.predictions import prediction_hashes
from utils.models.prediction import predict_pixels

_PREDICTED_AS = {"resnet50_best_model": "resnet50"}
"""Name of the prediction file of a network whose file is called otherwise."""


def measure_regions(
    study: Study, names: Sequence[str], resamples: int, seed: int, table: str = "regions"
) -> pd.DataFrame:
    """Return what final models predict for test images of which a part is covered.

    Kept in `results/<study>/<table>.csv`. The template of the lungs is the same for all images.

    Args:
        study: The study.
        names: Of final models whose networks were exported on this machine.
        resamples: Bootstrap resamples of patients.
        seed: Of the resamples.
        table: Name of the kept table.

    Returns:
        A row per model and region: model, region, roc_auc, low, high.

    Raises:
        FileNotFoundError: if nothing is kept and a network is not there.
    """
    made_from = {
        "dataset": read_provenance(results_dir(study.study), "resnet50")["dataset"],
        "models": prediction_hashes(
            study.study, [_PREDICTED_AS.get(name, name) for name in names]
        ),
        "networks": list(names), "regions": list(REGIONS), "resamples": resamples, "seed": seed,
    }  # fmt: skip

    def make() -> pd.DataFrame:
        root, index = open_study_index(study)
        test = index[index.split == "test"].rename(columns={"label": "y_true"})
        pixels = load_images(root, test.image_id)
        rows = []
        for name in names:
            network = keras.models.load_model(model_file(study.study, name), compile=False)
            for region in REGIONS:
                probability = predict_pixels(
                    network, pixels, f"{name}, {region}", partial(cover_region, region=region)
                )
                scored = test.assign(probability=probability)
                auc = evaluate_predictions(scored, 0.5, resamples, seed)["roc_auc"]
                rows.append((name.removeprefix("final/"), region, *auc.values()))
        columns = ["model", "region", "roc_auc", "low", "high"]
        return pd.DataFrame(rows, columns=columns).round(4)

    return cached_table(table_file(study.study, table), made_from, make)
