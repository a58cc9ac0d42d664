"""The metrics of a made-up study, which several modules read."""

import pytest

from tests.builders import make_study
from utils.evaluation.study_metrics import evaluate_study


@pytest.fixture(scope="module")
def study_metrics():
    models = {"vgg19": make_study(quality=0.8), "resnet50": make_study(quality=2.0)}
    return evaluate_study(models, resamples=60, seed=42)
