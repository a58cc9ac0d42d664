"""How far the test set differs from the training folder, and what unlabeled images say."""

from collections.abc import Sequence
from itertools import combinations

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
from utils.evaluation.thresholds import is_positive
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


def measure_agreement(probabilities: Sequence[np.ndarray], threshold: float) -> float:
    """Return the proportion of images for which two models predict the same class, over all pairs.

    Models with the same recipe agree where they are right, and disagree where the images are
    unlike those in training (Jiang et al. 2022).

    Args:
        probabilities: Of each model, (n,) for the same images.
        threshold: PNEUMONIA is predicted at this probability or above.

    Raises:
        ValueError: if there are fewer than two models.
    """
    if len(probabilities) < 2:
        raise ValueError("agreement needs two models or more, such as two seeds of one recipe")
    predicted = [is_positive(np.asarray(each), threshold) for each in probabilities]
    return float(np.mean([np.mean(a == b) for a, b in combinations(predicted, 2)]))


def expect_accuracy(
    y_true: np.ndarray, known: np.ndarray, unknown: np.ndarray, threshold: float
) -> float:
    """Return the accuracy to expect on unlabeled images: average thresholded confidence.

    Garg et al. 2022: find the confidence that as many labeled images reach as are classified
    correctly, and see how many unlabeled ones reach it. Confidence is the distance to the
    threshold, each side scaled to 1.

    Args:
        y_true: (n,) labels of images of the known site.
        known: (n,) their probabilities.
        unknown: (m,) probabilities of images of the new site.
        threshold: PNEUMONIA is predicted at this probability or above.
    """
    wrong = np.mean(is_positive(np.asarray(known), threshold) != np.asarray(y_true))
    needed = np.quantile(_confidence(known, threshold), wrong)
    return float(np.mean(_confidence(unknown, threshold) >= needed))


def _confidence(probability: np.ndarray, threshold: float) -> np.ndarray:
    probability = np.asarray(probability, np.float64)
    above = (probability - threshold) / max(1 - threshold, 1e-12)
    below = (threshold - probability) / max(threshold, 1e-12)
    return np.where(is_positive(probability, threshold), above, below)
