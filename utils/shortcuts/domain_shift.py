"""How far the test set differs from the training folder."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from utils.common.constants import CLASS_NAMES, SCORED_SPLITS
from utils.common.files import cached_table
from utils.common.paths import table_file
from utils.common.study import Study
from utils.data.images import load_images
from utils.data.index import open_study_index, patient_number
from utils.data.splits import reduce_images
from utils.shortcuts.features import CUES_SIZE, cues_made_from, measure_cues

_FOLDS = 5


def measure_domain_shift(study: Study) -> pd.DataFrame:
    """Return how well the shortcut features alone tell the test set from the training split.

    Kept in `results/<study>/places.csv`. Classes are measured separately, because the splits hold
    different proportions of them; validation against training is the control, which should be near
    0.5.

    Args:
        study: The study.

    Returns:
        A row per class and split: class, split, roc_auc.
    """

    def make() -> pd.DataFrame:
        root, index = open_study_index(study)
        cues = measure_cues(reduce_images(load_images(root, index.image_id), CUES_SIZE))
        rows = []
        for label, class_name in enumerate(CLASS_NAMES):
            for split in SCORED_SPLITS:
                chosen = (index.split.isin(("train", split)) & (index.label == label)).to_numpy()
                elsewhere = (index.split == split).to_numpy()[chosen]
                features, patients = cues[chosen].to_numpy(), index.patient_id[chosen]
                auc = tell_domains_apart(features, elsewhere, patients, study.seed)
                rows.append((class_name, split, round(auc, 4)))
        return pd.DataFrame(rows, columns=["class", "split", "roc_auc"])

    return cached_table(table_file(study.study, "places"), cues_made_from(study), make)


def tell_domains_apart(
    features: np.ndarray, elsewhere: np.ndarray, patient_ids: Sequence[str], seed: int
) -> float:
    """Return how well a logistic regression tells images of one site from those of another.

    An AUC of 0.5 says that the sites cannot be told apart, 1 that every image reveals its site.
    Labels of disease are not used. Cross-validated, patients kept together.

    Args:
        features: (n, k) of the images, such as cues or a network's pooled activations.
        elsewhere: (n,) bool: which images are from the other site.
        patient_ids: (n,) patients; one patient's images are in one fold.
        seed: Of the folds.
    """
    patients = pd.Series(list(patient_ids)).map(patient_number)
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    probability = cross_val_predict(
        model, features, elsewhere, groups=patients, cv=folds, method="predict_proba"
    )[:, 1]
    return float(roc_auc_score(elsewhere, probability))
